//! Text to tokens and back.
#![cfg(feature = "tokenizer")]

use inlaid::tokenizer::{Decoder, Tokenizer};

/// A byte-level tokenizer of all bytes and a few merges, with a BOS.
fn byte_level() -> Tokenizer {
    let mut alphabet: Vec<char> =
        tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let mut names: Vec<String> = alphabet.iter().map(char::to_string).collect();
    names.extend(["he", "ll", "hell", "Ġo"].map(String::from));
    let vocab: serde_json::Map<String, serde_json::Value> =
        names.iter().enumerate().map(|(id, name)| (name.clone(), id.into())).collect();
    let special = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [special(260, "<s>"), special(261, "</s>")],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": [["h", "e"], ["l", "l"], ["he", "ll"], ["Ġ", "o"]]},
    });
    let config =
        br#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "special": true}, "add_bos_token": true}"#;
    Tokenizer::from_bytes(json.to_string().as_bytes(), Some(config)).unwrap()
}

#[test]
fn special_tokens_are_parsed_and_added_only_where_asked() {
    let t = byte_level();
    let (bos, hell) = (260, 258);
    assert_eq!((t.bos(), t.eos(), t.vocab_size()), (Some(260), Some(261), 262));
    assert_eq!(t.encode("hell", false, true).unwrap(), [hell]);
    assert_eq!(t.encode("hell", true, true).unwrap(), [bos, hell]);
    assert_eq!(t.encode("<s>hell", true, true).unwrap(), [bos, hell], "no second BOS");
    assert_eq!(t.encode("<s><s>hell", true, true).unwrap(), [bos, bos, hell], "but those of the text");
    assert_eq!(t.encode("<s>hell", false, true).unwrap(), [bos, hell]);
    let plain = t.encode("<s>hell", true, false).unwrap();
    assert_eq!((plain[0], plain.len()), (bos, 5));
    assert_eq!(t.decode(&plain, true).unwrap(), "<s>hell");
    assert_eq!(t.decode(&[bos, hell], false).unwrap(), "<s>hell");
    assert!(t.decode(&[262], false).unwrap_err().to_string().contains("262"));
}

#[test]
fn a_stream_never_splits_a_character() {
    let t = byte_level();
    let text = "hello, größe 語 🙂\u{301}";
    let mut ids = t.encode(text, true, true).unwrap();
    ids.extend(t.encode("語", false, true).unwrap().into_iter().take(2));
    let (mut decoder, mut out) = (Decoder::new(&t, true), String::new());
    for id in &ids {
        out.push_str(decoder.push(*id));
        assert!(!out.contains('\u{FFFD}'));
    }
    assert_eq!(out, text);
    assert_eq!(decoder.flush(), "\u{FFFD}");
    assert_eq!(t.decode(&ids, true).unwrap(), format!("{text}\u{FFFD}"));
}
