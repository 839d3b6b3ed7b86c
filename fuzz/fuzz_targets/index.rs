//! An index of shards, over two valid ones.
#![no_main]

use inlaid::format::files::{Files, INDEX, Load, Part};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fn shard(name: &str) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 4]].concat()
}

fuzz_target!(|bytes: &[u8]| {
    let part = |name: &str, bytes: Vec<u8>| (name.to_owned(), Part::Memory(Arc::new(bytes)));
    let shards = [part("1.safetensors", shard("a")), part("2.safetensors", shard("b"))];
    let files = Files::named(shards.into_iter().chain([part(INDEX, bytes.to_vec())]));
    let Ok(tensors) = files.and_then(|files| files.tensors(Load::Map, &mut None)) else { return };
    assert!(tensors.names().all(|name| name == "a" || name == "b"));
});
