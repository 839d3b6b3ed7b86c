//! Models that read words: golden encoders with a tokenizer of whole words beside them.

use serde_json::{Map, Value, json};
use std::path::Path;
use tempfile::TempDir;

/// A tokenizer of `vocab` words: `[PAD] [UNK] [CLS] [SEP] [MASK] w5 w6 ...`, apart where white space is.
pub fn tokenizer(vocab: usize) -> Value {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let names: Map<String, Value> = (0..vocab)
        .map(|id| (special.get(id).map_or_else(|| format!("w{id}"), |name| (*name).to_owned()), json!(id)))
        .collect();
    let added: Vec<Value> = (0..special.len())
        .map(|id| {
            json!({"id": id, "content": special[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": null,
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "model": {"type": "WordLevel", "vocab": names, "unk_token": "[UNK]"}})
}

/// A copy of the golden model `name` that reads words, with `change` made to its config.
pub fn reader(name: &str, change: impl FnOnce(&mut Value)) -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let text = std::fs::read(from.join("config.json")).expect("config.json");
    let mut config: Value = serde_json::from_slice(&text).expect("JSON");
    change(&mut config);
    let vocab = config["vocab_size"].as_u64().expect("a vocabulary") as usize;
    std::fs::copy(from.join("model.safetensors"), dir.path().join("model.safetensors")).expect("a copy");
    let write = |name: &str, value: &Value| {
        std::fs::write(dir.path().join(name), value.to_string()).expect("a file of the model");
    };
    write("config.json", &config);
    write("tokenizer.json", &tokenizer(vocab));
    dir
}
