//! Malformed `config.json` and `generation_config.json`.

use crate::{Case, case, with};
use inlaid::Error;
use inlaid::format::config::Config;
use inlaid::format::generation::GenerationConfig;

pub fn open(bytes: &[u8]) -> Result<(), Error> {
    let config = Config::parse("config.json", bytes)?;
    // What a family asks for, of every type.
    config.str("model_type")?;
    for key in ["hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size"] {
        config.usize(key)?;
    }
    config.f32_or("rms_norm_eps", 1e-6)?;
    config.bool_or("tie_word_embeddings", false)?;
    config.window("sliding_window", None)?;
    if let Some(scaling) = config.object("rope_scaling")? {
        scaling.str("rope_type")?;
        scaling.f32("factor")?;
        scaling.finish(&[])?;
    }
    GenerationConfig::read(Some(&config), &config)?;
    config.finish(&["architectures"])
}

pub fn valid() -> Vec<u8> {
    br#"{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":64,"num_attention_heads":4,"num_hidden_layers":2,"vocab_size":32,"rms_norm_eps":1e-5,"tie_word_embeddings":true,"sliding_window":null,"rope_scaling":{"rope_type":"linear","factor":2.0},"bos_token_id":1,"eos_token_id":[2,3],"temperature":0.7,"top_k":50,"use_cache":false}"#
        .to_vec()
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut replaced = |old: &str, news: &[&str]| {
        cases.extend(news.iter().map(|new| case(format!("{old} -> {new}"), with(valid(), old, new))));
    };
    replaced("\"llama\"", &["1", "null", "[\"llama\"]", "{}", "true"]);
    replaced(
        ":64",
        &[":-64", ":64.5", ":6e400", ":\"64\"", ":null", ":[64]", ":18446744073709551616", ":true", ":"],
    );
    replaced("\"hidden_size\":64,", &["", "\"hidden_size\":64,\"hidden_size\":64,", "\"hidden_size\":064,"]);
    replaced(
        "1e-5",
        &["\"1e-5\"", "1e39", "-1e39", "1e400", "NaN", "Infinity", "[]", "true", "0x1", ".5", "1.", "+1"],
    );
    replaced(":true", &[":1", ":\"true\"", ":[]", ":True", ":yes"]);
    replaced(
        "\"sliding_window\":null",
        &["\"sliding_window\":0", "\"sliding_window\":-1", "\"sliding_window\":1.5"],
    );
    replaced("\"sliding_window\":null", &["\"sliding_window\":4294967296", "\"sliding_window\":\"big\""]);
    replaced(
        "{\"rope_type\":\"linear\",\"factor\":2.0}",
        &["1", "[]", "\"linear\"", "{}", "{\"rope_type\":\"linear\"}"],
    );
    replaced(
        "\"factor\":2.0",
        &["\"factor\":2.0,\"factor\":2.0", "\"factor\":2.0,\"beta\":3", "\"factor\":\"2\""],
    );
    replaced(
        "\"eos_token_id\":[2,3]",
        &["\"eos_token_id\":[2,-3]", "\"eos_token_id\":\"2\"", "\"eos_token_id\":{}"],
    );
    replaced("\"eos_token_id\":[2,3]", &["\"eos_token_id\":[[2]]", "\"eos_token_id\":4294967296"]);
    replaced("0.7", &["\"hot\"", "[0.7]", "1e39"]);
    replaced("\"top_k\":50", &["\"top_k\":-1", "\"top_k\":0.5"]);
    replaced(
        "\"use_cache\":false",
        &["\"use_cache\":1", "\"quantization_config\":{\"bits\":4}", "\"num_experts\":8"],
    );
    replaced(
        "\"use_cache\":false",
        &["\"\\u0000\":1", "\"a\":{\"b\":1,\"b\":2}", "\"a\":[{\"b\":1,\"b\":2}]"],
    );
    cases.extend(whole());
    cases
}

fn whole() -> Vec<Case> {
    let value = |value: String| with(valid(), "\"use_cache\":false", &format!("\"x\":{value}"));
    let pairs = |n: usize| (0..n).map(|i| format!("\"{i}\":{{\"a\":{{}}}}")).collect::<Vec<_>>().join(",");
    let list: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("spaces", vec![b' '; 100]),
        ("a list", b"[]".to_vec()),
        ("a number", b"1".to_vec()),
        ("null", b"null".to_vec()),
        ("zeros", vec![0; 1000]),
        ("not UTF-8", b"{\"a\":\"\xc3\x28\"}".to_vec()),
        ("UTF-16", "{\"a\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("a byte order mark", [b"\xef\xbb\xbf".to_vec(), valid()].concat()),
        ("twice", [valid(), valid()].concat()),
        ("a comment", [b"// x\n".to_vec(), valid()].concat()),
        ("deep lists", value("[".repeat(1 << 20))),
        ("deep lists, closed", value(format!("{}{}", "[".repeat(200), "]".repeat(200)))),
        ("deep objects", value("{\"a\":".repeat(1 << 18))),
        ("a million numbers", value(format!("[{}0]", "0,".repeat(1 << 20)))),
        ("many small objects", value(format!("[{}{{}}]", "{\"a\":1},".repeat(1 << 20)))),
        ("many empty lists", value(format!("[{}0]", "[],".repeat(1 << 20)))),
        ("many keys", value(format!("{{{}}}", pairs(1 << 18)))),
        ("a long string", value(format!("\"{}\"", "x".repeat(17 << 20)))),
        ("a long string of escapes, unclosed", value(format!("\"{}", "\\n".repeat(7 << 20)))),
        ("a long number", value("9".repeat(1 << 20))),
        ("a long exponent", value(format!("1e{}", "9".repeat(1 << 16)))),
    ];
    list.into_iter().map(|(what, bytes)| case(what, bytes)).collect()
}
