//! Malformed safetensors files.

use crate::{Case, case};
use inlaid::Error;
use inlaid::format::safetensors::parse;
use inlaid::format::source::Source;

pub fn open(bytes: &[u8]) -> Result<(), Error> {
    let tensors = parse(&Source::memory("model.safetensors", std::sync::Arc::new(bytes.to_vec())))?;
    // What was accepted is all there.
    for (_, tensor) in tensors.iter() {
        let row =
            tensor.dtype().row_bytes(tensor.elements()).expect("dense types have any number of elements");
        assert_eq!(tensor.bytes().len(), row);
    }
    Ok(())
}

fn file(header: impl AsRef<[u8]>, data: usize) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes(), header, &vec![0; data]].concat()
}

pub fn valid() -> Vec<u8> {
    file(
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b\u00e9":{"dtype":"BF16","shape":[],"data_offsets":[8,10]}} "#,
        10,
    )
}

/// A header of one tensor `a` of eight bytes, with one field replaced.
fn field(name: &str, value: &str) -> Vec<u8> {
    let fields = [("dtype", "\"F32\""), ("shape", "[2]"), ("data_offsets", "[0,8]")];
    let fields = fields.map(|(key, old)| format!("\"{key}\":{}", if key == name { value } else { old }));
    file(format!("{{\"a\":{{{}}}}}", fields.join(",")), 8)
}

fn tensor(name: &str, begin: u64, end: u64) -> String {
    format!(
        r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#,
        end.saturating_sub(begin)
    )
}

fn two(a: (u64, u64), b: (u64, u64), data: usize) -> Vec<u8> {
    file(format!("{{{},{}}}", tensor("a", a.0, a.1), tensor("b", b.0, b.1)), data)
}

pub fn cases() -> Vec<Case> {
    [lengths(), headers(), fields(), places(), sizes()].into_iter().flatten().collect()
}

fn lengths() -> Vec<Case> {
    let valid = valid();
    let mut cases: Vec<Case> = (0..8).map(|n| case(format!("{n} bytes"), vec![0xff; n])).collect();
    let header = u64::from_le_bytes(*valid.first_chunk().unwrap());
    let file = valid.len() as u64;
    let around =
        [0, 1, 2, header - 1, header + 1, header - 10, header + 10, file - 8, file - 7, file, file + 1];
    let huge = [1 << 16, 100_000_000, 100_000_001, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 40, 1 << 63];
    for length in
        around.into_iter().chain(huge).chain([u64::MAX, u64::MAX - 7, u64::MAX - 8, i64::MAX as u64])
    {
        let mut bytes = valid.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        cases.push(case(format!("header length {length}"), bytes));
    }
    cases
}

fn headers() -> Vec<Case> {
    let a = tensor("a", 0, 8);
    let deep = |open: &str, close: &str, n: usize| format!("{{\"a\":{}{}}}", open.repeat(n), close.repeat(n));
    let list: Vec<(&str, Vec<u8>)> = vec![
        ("no JSON", b"hello".to_vec()),
        ("empty", b"".to_vec()),
        ("a list", b"[]".to_vec()),
        ("null", b"null".to_vec()),
        ("a string", b"\"a\"".to_vec()),
        ("a space first", format!(" {{{a}}}").into()),
        ("a byte order mark", format!("\u{feff}{{{a}}}").into()),
        ("two objects", format!("{{{a}}}{{}}").into()),
        ("zeros behind", format!("{{{a}}}\0\0").into()),
        ("a comma too many", format!("{{{a},}}").into()),
        ("unclosed", format!("{{{a}").into()),
        ("single quotes", b"{'a': 1}".to_vec()),
        ("a comment", format!("{{{a}/**/}}").into()),
        ("a bad escape", br#"{"\q":1}"#.to_vec()),
        ("half a surrogate", br#"{"\ud800":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}"#.to_vec()),
        ("bytes that are not UTF-8", b"{\"\xff\xfe\":1}".to_vec()),
        ("a control character", b"{\"\n\":1}".to_vec()),
        ("deep lists", deep("[", "]", 100_000).into()),
        ("deep objects", deep("{\"a\":", "}", 100_000).into()),
        ("deep, unclosed", deep("[", "", 1_000_000).into()),
        ("a tensor that is a number", br#"{"a":1}"#.to_vec()),
        ("a tensor that is null", br#"{"a":null}"#.to_vec()),
        ("a tensor that is a long list", format!("{{\"a\":[{}0]}}", "0,".repeat(1 << 20)).into()),
        ("an empty tensor", br#"{"a":{}}"#.to_vec()),
        ("a name twice", format!("{{{a},{a}}}").into()),
        ("a name twice, once escaped", format!("{{{a},{}}}", a.replace("\"a\"", "\"\\u0061\"")).into()),
        ("an empty tensor twice", format!("{{{a},{0},{0}}}", tensor("e", 8, 8)).into()),
        ("metadata twice", format!("{{\"__metadata__\":{{}},\"__metadata__\":{{}},{a}}}").into()),
        ("metadata that is a list", format!("{{\"__metadata__\":[],{a}}}").into()),
        ("metadata that is null", format!("{{\"__metadata__\":null,{a}}}").into()),
        ("metadata of numbers", format!("{{\"__metadata__\":{{\"k\":1}},{a}}}").into()),
        ("metadata of objects", format!("{{\"__metadata__\":{{\"k\":{{}}}},{a}}}").into()),
        ("a metadata key twice", format!("{{\"__metadata__\":{{\"k\":\"\",\"k\":\"\"}},{a}}}").into()),
    ];
    list.into_iter().map(|(what, header)| case(what, file(header, 8))).collect()
}

fn fields() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut all = |name: &str, values: &[&str]| {
        cases.extend(values.iter().map(|value| case(format!("{name} = {value}"), field(name, value))));
    };
    all(
        "dtype",
        &["1", "null", "\"\"", "\"f32\"", "\"F31\"", "\"F32 \"", "[\"F32\"]", "\"Q8_0\"", "\"\\u0000\""],
    );
    all("dtype", &["\"F64\"", "\"BF16\"", "\"F4\"", "\"F6_E2M3\"", "\"BOOL\""]);
    all(
        "shape",
        &["2", "null", "\"2\"", "{}", "[[2]]", "[2.0]", "[2.5]", "[-2]", "[\"2\"]", "[null]", "[true]"],
    );
    all("shape", &["[]", "[0]", "[1]", "[3]", "[2,0]", "[2,2]", "[1,1,1]", "[2,1,1,1,1,1,1,1,1]"]);
    all("shape", &["[18446744073709551615]", "[18446744073709551616]", "[9223372036854775808,2]", "[1e3]"]);
    all("shape", &["[4294967296,4294967296]", "[4294967296,4294967296,0]", "[4611686018427387904,4]"]);
    all("shape", &["[2305843009213693952,8,2]", "[2305843009213693953]", "[1152921504606846977,16]"]);
    all(
        "data_offsets",
        &["null", "8", "[]", "[0]", "[0,8,8]", "[0,\"8\"]", "[0,8.0]", "[-8,0]", "[null,8]", "{}"],
    );
    all(
        "data_offsets",
        &["[8,0]", "[1,9]", "[0,7]", "[0,9]", "[8,16]", "[0,0]", "[8,8]", "[0,18446744073709551615]"],
    );
    all(
        "data_offsets",
        &["[18446744073709551608,18446744073709551615]", "[0,18446744073709551616]", "[1,0]"],
    );
    all("data_offsets", &["[18446744073709551608,0]", "[9223372036854775807,9223372036854775807]"]);
    let extra = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"stride":[1]}}"#;
    let twice = r#"{"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}}"#;
    let missing = r#"{"a":{"dtype":"F32","data_offsets":[0,8]}}"#;
    cases.extend(
        [("an unknown field", extra), ("a field twice", twice), ("a field less", missing)]
            .map(|(what, header)| case(what, file(header, 8))),
    );
    cases
}

fn places() -> Vec<Case> {
    let list = [
        ("the same place", two((0, 8), (0, 8), 8)),
        ("an overlap", two((0, 8), (7, 15), 15)),
        ("one within the other", two((0, 8), (2, 4), 8)),
        ("an overlap of the second listed", two((4, 12), (0, 8), 12)),
        ("a hole", two((0, 8), (9, 17), 17)),
        ("a hole at the start", two((1, 8), (8, 16), 16)),
        ("data behind", two((0, 8), (8, 16), 17)),
        ("data that ends early", two((0, 8), (8, 16), 15)),
        ("no data", two((0, 8), (8, 16), 0)),
        ("data and no tensor", file("{}", 1)),
        ("an empty tensor beyond the end", file(format!("{{{}}}", tensor("a", 9, 9)), 8)),
        ("an empty tensor in a hole", file(format!("{{{},{}}}", tensor("a", 0, 8), tensor("e", 3, 3)), 8)),
    ];
    list.into_iter().map(|(what, bytes)| case(what, bytes)).collect()
}

fn sizes() -> Vec<Case> {
    let many = |n: usize| {
        let list: Vec<String> = (0..n).map(|i| tensor(&format!("t{i}"), 0, 0)).collect();
        format!("{{{}}}", list.join(","))
    };
    let long = "x".repeat(1 << 20);
    let metadata: Vec<String> = (0..=1 << 16).map(|i| format!("\"{i}\":\"\"")).collect();
    vec![
        case("more tensors than any model has", file(many((1 << 17) + 1), 0)),
        case("a name of a mebibyte", file(format!("{{{}}}", tensor(&long, 0, 8)), 8)),
        case("an element type of a mebibyte", field("dtype", &format!("\"{long}\""))),
        case("a shape of a million sizes", field("shape", &format!("[{}2]", "1,".repeat(1 << 20)))),
        case("offsets of a million numbers", field("data_offsets", &format!("[{}8]", "0,".repeat(1 << 20)))),
        case("a number of a million digits", field("shape", &format!("[{}]", "9".repeat(1 << 20)))),
        case("metadata without end", file(format!("{{\"__metadata__\":{{{}}}}}", metadata.join(",")), 0)),
        case("one string of forty mebibytes", file(format!("{{\"{}\":1}}", "\\n".repeat(20 << 20)), 0)),
    ]
}
