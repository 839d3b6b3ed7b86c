//! An archive of PyTorch or NumPy: its entries, the pickle or the arrays' headers, the tensors.
#![no_main]

use inlaid::format::checkpoint;
use inlaid::format::source::Source;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(tensors) = checkpoint::tensors(&Source::private("fuzz", bytes.to_vec())) else { return };
    for (_, tensor) in tensors.iter() {
        assert_eq!(Some(tensor.bytes().len()), tensor.dtype().row_bytes(tensor.elements()));
    }
});
