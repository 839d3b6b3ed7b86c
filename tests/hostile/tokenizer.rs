//! Malformed `tokenizer.json`.

use crate::{Case, case, with};
use inlaid::Error;
use inlaid::tokenizer::Tokenizer;

pub fn open(bytes: &[u8]) -> Result<(), Error> {
    let tokenizer = Tokenizer::from_bytes(bytes, None)?;
    // What was accepted either works or says why not.
    for text in ["", "ab a", "<s>b</s>\u{301}\u{1f642}"] {
        if let Ok(ids) = tokenizer.encode(text, true, true) {
            let _ = tokenizer.decode(&ids, true);
        }
    }
    Ok(())
}

pub fn valid() -> Vec<u8> {
    br#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":5,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\w+|\\s"},"behavior":"Isolated","invert":false},"post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false},"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"vocab":{"a":0,"b":1,"ab":2," ":3,"c":4},"merges":[["a","b"]]}}"#
        .to_vec()
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut replaced = |old: &str, news: &[&str]| {
        cases.extend(news.iter().map(|new| case(format!("{old} -> {new}"), with(valid(), old, new))));
    };
    replaced("\"BPE\"", &["\"XPE\"", "null", "7", "[]", "\"Unigram\"", "\"WordPiece\""]);
    replaced(
        "{\"a\":0,",
        &["[", "{\"a\":-1,", "{\"a\":0.5,", "{\"a\":\"0\",", "{\"a\":4294967296,", "{\"a\":null,"],
    );
    replaced("{\"a\":0,", &["{\"a\":4294967295,", "{\"a\":4000000000,"]);
    replaced(
        "[[\"a\",\"b\"]]",
        &["[[\"a\"]]", "[[\"a\",\"b\",\"c\"]]", "[\"ab\"]", "[[\"a\",\"x\"]]", "[1]", "{}"],
    );
    replaced("[[\"a\",\"b\"]]", &["[[\"b\",\"a\"]]", "null", "[[\"a\",1]]"]);
    replaced("\"type\":\"NFC\"", &["\"type\":\"NFX\"", "\"type\":1", "\"kind\":\"NFC\""]);
    replaced(
        "{\"type\":\"NFC\"}",
        &["[]", "7", "\"NFC\"", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AA\"}"],
    );
    replaced("\\\\w+|\\\\s", &["(", "[", "a{99999999}", "(?<=a+", "\\\\p{Nope}", "(a{1000}){1000}{1000}"]);
    replaced("\"id\":5", &["\"id\":-5", "\"id\":\"5\"", "\"id\":1e9", "\"id\":null"]);
    replaced("\"special\":true", &["\"special\":1", "\"special\":true,\"special\":true"]);
    replaced("\"behavior\":\"Isolated\"", &["\"behavior\":\"Odd\"", "\"behavior\":null"]);
    let deep = |open: &str| with(valid(), "{\"type\":\"NFC\"}", &open.repeat(1 << 17));
    let list: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("an empty object", b"{}".to_vec()),
        ("a list", b"[]".to_vec()),
        ("not JSON", b"tokenizer".to_vec()),
        ("zeros", vec![0; 4096]),
        ("not UTF-8", b"{\"version\":\"\xff\"}".to_vec()),
        ("no model", br#"{"version":"1.0","added_tokens":[]}"#.to_vec()),
        ("another version", with(valid(), "\"1.0\"", "\"9.0\"")),
        ("deep lists", deep("[")),
        ("deep objects", deep("{\"a\":")),
        ("deep normalizers", deep("{\"type\":\"Sequence\",\"normalizers\":[")),
        (
            "deep decoders",
            with(
                valid(),
                "{\"type\":\"ByteLevel\"",
                &"{\"type\":\"Sequence\",\"decoders\":[".repeat(1 << 16),
            ),
        ),
        ("something behind", [valid(), b"x".to_vec()].concat()),
    ];
    cases.extend(list.into_iter().map(|(what, bytes)| case(what, bytes)));
    cases
}
