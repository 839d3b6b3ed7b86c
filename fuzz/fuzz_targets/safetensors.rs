//! A safetensors file: whatever is accepted can be read to its last byte.
#![no_main]

use inlaid::format::{safetensors, source::Source};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(tensors) = safetensors::parse(&Source::private("fuzz", bytes.to_vec())) else { return };
    for (_, tensor) in tensors.iter() {
        assert_eq!(Some(tensor.bytes().len()), tensor.dtype().row_bytes(tensor.elements()));
    }
});
