//! A GGUF file: all metadata, the config and tensors that it amounts to.
#![no_main]

use inlaid::format::gguf::{self, Value};
use inlaid::format::source::Source;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = gguf::parse(Source::private("fuzz", bytes.to_vec())) else { return };
    let mut values = 0;
    for key in file.keys() {
        values += match file.get(key).expect("what was accepted can be read") {
            Value::List(list) => list.iter().count(),
            _ => 1,
        };
    }
    assert!(values <= bytes.len());
    let _ = gguf::to_config(&file);
    let Ok(tensors) = gguf::tensors(&file) else { return };
    for (_, tensor) in tensors.iter() {
        assert_eq!(Some(tensor.bytes().len()), tensor.dtype().row_bytes(tensor.elements()));
    }
});
