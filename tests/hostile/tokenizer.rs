//! Malformed `tokenizer.json`.

use crate::{Case, case, with};
use inlaid::Error;
use inlaid::tokenizer::Tokenizer;

pub fn open(bytes: &[u8]) -> Result<(), Error> {
    try_out(&Tokenizer::from_bytes(bytes, None)?);
    Ok(())
}

/// What was accepted either works or says why not.
pub fn try_out(tokenizer: &Tokenizer) {
    for text in ["", "ab a", "<s>b</s>\u{301}\u{1f642}"] {
        if let Ok(ids) = tokenizer.encode(text, true, true) {
            let _ = tokenizer.decode(&ids, true);
        }
    }
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
    cases.extend(weak_places());
    cases
}

/// What the crate beneath would panic on, or worse.
fn weak_places() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut model = |what: &str, model: &str| {
        let (text, start) = (String::from_utf8(valid()).unwrap(), "\"model\":");
        let at = text.find(start).unwrap() + start.len();
        cases.push(case(what, format!("{}{model}}}", &text[..at])));
    };
    let bpe = |more: &str| format!(r#"{{"type":"BPE","vocab":{{"a":0,"b":1,"ab":2,"\u00e9":3}},{more}}}"#);
    model("a merge into more than the longest token", &bpe(r#""merges":[["ab","ab"]]"#));
    model("the same, as older files write it", &bpe(r#""merges":["ab ab"]"#));
    model("the same, before the tokens", r#"{"type":"BPE","merges":[["a","a"]],"vocab":{"a":0}}"#);
    model("the same, and no type", r#"{"merges":[["a","a"]],"vocab":{"a":0}}"#);
    model("a prefix longer than a token", &bpe(r#""merges":[["a","b"]],"continuing_subword_prefix":"xxxx""#));
    model(
        "a prefix within a character",
        &bpe(r#""continuing_subword_prefix":"x","merges":[["a","\u00e9"]]"#),
    );
    model("a vocabulary twice", &bpe(r#""merges":[],"vocab":{"a":0}"#));
    let word = "x".repeat(1 << 20);
    model(
        "a tree as deep as a mebibyte",
        &format!(r#"{{"type":"Unigram","unk_id":0,"vocab":[["{word}",0.0]]}}"#),
    );
    let mut part = |what: &str, old: &str, new: &str| cases.push(case(what, with(valid(), old, new)));
    let post = |single: &str, special: &str| {
        format!(
            r#""post_processor":{{"type":"TemplateProcessing","single":[{single}],"pair":[],"special_tokens":{{{special}}}}}"#
        )
    };
    let (none, a) = ("\"post_processor\":null", r#"{"Sequence":{"id":"A","type_id":0}}"#);
    let s = r#"{"SpecialToken":{"id":"<s>","type_id":0}}"#;
    part("a template with a second text", none, &post(r#"{"Sequence":{"id":"B","type_id":0}}"#, ""));
    part("a template with a token that is not explained", none, &post(&format!("{s},{a}"), ""));
    let uneven = r#""<s>":{"id":"<s>","ids":[5,5],"tokens":["<s>"]}"#;
    part("a template with more ids than tokens", none, &post(&format!("{s},{a}"), uneven));
    let one = post(&format!("{a},{a},{a}"), "").replacen("\"post_processor\":", "", 1);
    let two = format!(r#""post_processor":{{"type":"Sequence","processors":[{one},{one}]}}"#);
    part("a template around a template", none, &two);
    let split = r#"{"type":"Split","pattern":{"Regex":"\\w+|\\s"},"behavior":"Isolated","invert":false}"#;
    part("words of no length", split, r#"{"type":"FixedLength","length":0}"#);
    let decoder = r#"{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}"#;
    part("a decoder that strips ends", decoder, r#"{"type":"Strip","content":"a","start":1,"stop":1}"#);
    part("the same as a list", decoder, r#"["a",1,1]"#);
    part("a template with a second text, otherwise", none, &post(r#"{"Sequence":["B",0]}"#, ""));
    part(
        "a template with a second text, as an object",
        none,
        &post(r#"{"Sequence":{"id":{"B":null},"type_id":0}}"#, ""),
    );
    part("the same under another name", decoder, r#"{"type":"Strap","content":"a","start":1,"stop":1}"#);
    for table in ["", "A", "AAAA", "AAAAAA==", "/////w==", "BAAAAAD8//8=", "BAAAAAAAAID/", "CAAAAA=="] {
        let new = format!(r#"{{"type":"Precompiled","precompiled_charsmap":"{table}"}}"#);
        part(&format!("a table of characters `{table}`"), "{\"type\":\"NFC\"}", &new);
    }
    cases
}
