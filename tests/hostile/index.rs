//! Malformed `model.safetensors.index.json` over two valid shards.

use crate::{Case, case};
use inlaid::Error;
use inlaid::format::files::{Files, INDEX, Load, Part};
use std::sync::Arc;

fn shard(name: &str) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 4]].concat()
}

pub fn open(bytes: &[u8]) -> Result<(), Error> {
    let part = |name: &str, bytes: Vec<u8>| (name.to_owned(), Part::Memory(Arc::new(bytes)));
    let shards = [part("1.safetensors", shard("a")), part("2.safetensors", shard("b"))];
    let files = Files::named(shards.into_iter().chain([part(INDEX, bytes.to_vec())]))?;
    files.tensors(Load::Map, &mut None).map(drop)
}

pub fn valid() -> Vec<u8> {
    br#"{"metadata":{"total_size":8},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#.to_vec()
}

fn map(entries: &str) -> Vec<u8> {
    format!("{{\"weight_map\":{{{entries}}}}}").into()
}

pub fn cases() -> Vec<Case> {
    let good = r#""a":"1.safetensors","b":"2.safetensors""#;
    let other = |shard: &str| map(&format!(r#""a":"1.safetensors","b":"{shard}""#));
    let mut cases: Vec<Case> = [
        "../2.safetensors",
        "..",
        ".",
        "",
        "/2.safetensors",
        "/etc/passwd",
        "./2.safetensors",
        "x/2.safetensors",
        "2.safetensors/",
        "..\\\\2.safetensors",
        "C:2.safetensors",
        "C:\\\\2.safetensors",
        "2.safetensors\\u0000",
        "2.safetensors\\n",
        "\\u002e\\u002e/2.safetensors",
        "//2.safetensors",
        "3.safetensors",
        "2.SAFETENSORS",
        "model.safetensors.index.json",
        "2.safetensors:stream",
        "1.safetensors",
    ]
    .into_iter()
    .map(|shard| case(format!("shard `{shard}`"), other(shard)))
    .collect();
    let long = "x".repeat(1 << 20);
    let many: Vec<String> = (0..=1 << 17).map(|i| format!("\"{i}\":\"1.safetensors\"")).collect();
    let shards: Vec<String> = (0..5000).map(|i| format!("\"{i}\":\"{i}.safetensors\"")).collect();
    let list: Vec<(&str, Vec<u8>)> = vec![
        ("no object", b"[]".to_vec()),
        ("empty", b"{}".to_vec()),
        ("no map", br#"{"metadata":{}}"#.to_vec()),
        ("a map that is a list", br#"{"weight_map":[]}"#.to_vec()),
        ("a map that is null", br#"{"weight_map":null}"#.to_vec()),
        ("a map of numbers", map(r#""a":1,"b":2"#)),
        ("a map of nulls", map(r#""a":null"#)),
        ("a tensor that no shard has", map(r#""c":"1.safetensors""#)),
        ("a tensor less", map(r#""b":"2.safetensors","c":"1.safetensors""#)),
        ("a tensor more", map(&format!("{good},\"c\":\"1.safetensors\""))),
        ("shards swapped", map(r#""a":"2.safetensors","b":"1.safetensors""#)),
        ("a tensor twice", map(&format!("{good},\"a\":\"1.safetensors\""))),
        ("a tensor twice, once escaped", map(&format!("{good},\"\\u0061\":\"1.safetensors\""))),
        ("the map twice", format!("{{\"weight_map\":{{{good}}},\"weight_map\":{{{good}}}}}").into()),
        ("an unknown field twice and no map", br#"{"x":1,"x":2}"#.to_vec()),
        ("deep metadata", format!("{{\"metadata\":{}", "[".repeat(1 << 20)).into()),
        ("deep map", format!("{{\"weight_map\":{}", "{\"a\":".repeat(1 << 18)).into()),
        ("a shard of a mebibyte", other(&long)),
        ("too many tensors", map(&many.join(","))),
        ("too many shards", map(&shards.join(","))),
        ("more bytes than any index has", [valid(), vec![b' '; 17 << 20]].concat()),
        ("not UTF-8", b"{\"weight_map\":{\"\xff\":\"1.safetensors\"}}".to_vec()),
        ("something behind", [valid(), b"x".to_vec()].concat()),
    ];
    cases.extend(list.into_iter().map(|(what, bytes)| case(what, bytes)));
    cases
}
