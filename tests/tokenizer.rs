//! Text to tokens and back.
#![cfg(feature = "tokenizer")]

use inlaid::format::files::{Files, Part};
use inlaid::tokenizer::{Decoder, Tokenizer};
use serde_json::{Value, json};
use std::sync::Arc;

/// A byte-level tokenizer of all bytes and a few merges, with a BOS.
fn byte_level() -> Tokenizer {
    let mut alphabet: Vec<char> =
        tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let mut names: Vec<String> = alphabet.iter().map(char::to_string).collect();
    names.extend(["he", "ll", "hell", "Ġo"].map(String::from));
    let vocab: serde_json::Map<String, Value> =
        names.iter().enumerate().map(|(id, name)| (name.clone(), id.into())).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let json = json!({
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

/// What a stream gives, pushed one by one, and the pieces are whole characters by their type.
fn streamed(t: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let (mut decoder, mut out) = (Decoder::new(t, skip_special), String::new());
    ids.iter().for_each(|id| out.push_str(decoder.push(*id)));
    out.push_str(decoder.flush());
    out
}

/// A tokenizer with this decoder over names that matter to one decoder or another.
fn with_decoder(decoder: &Value) -> Vec<u8> {
    let names = [
        "▁Hello", "▁world", "▁", "▁▁", "lo", " x", "<0xE8>", "<0xAA>", "<0x9E>", "<0x41>", "<0xFF>", "##ing",
        "é", "Ġ", "ĠA", "Ã", "©", "€", "<s>", ".", "<0xG1>", "a▁b",
    ];
    let vocab: serde_json::Map<String, Value> =
        names.iter().enumerate().map(|(id, name)| ((*name).to_owned(), id.into())).collect();
    let special = json!({"id": 18, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    json!({"version": "1.0", "added_tokens": [special], "decoder": decoder,
        "model": {"type": "BPE", "vocab": vocab, "merges": []}})
    .to_string()
    .into_bytes()
}

/// Against the crate's own decoding, for random runs of tokens.
#[test]
fn decoding_is_that_of_the_crate_for_every_decoder() {
    let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let (fallback, fuse) = (json!({"type": "ByteFallback"}), json!({"type": "Fuse"}));
    let strip = |stop: u8| json!({"type": "Strip", "content": " ", "start": 1, "stop": stop});
    let sequence = |steps: &[&Value]| json!({"type": "Sequence", "decoders": steps});
    let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    let decoders = [
        Value::Null,
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        sequence(&[&replace, &fallback, &fuse, &strip(0)]),
        sequence(&[&replace, &fallback, &fuse]),
        sequence(&[&replace, &sequence(&[&fallback])]),
        sequence(&[&replace]),
        metaspace("always"),
        metaspace("first"),
        metaspace("never"),
        // Those that the crate must do itself, all tokens at once.
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        json!({"type": "CTC", "pad_token": "<s>", "word_delimiter_token": "▁", "cleanup": true}),
        sequence(&[&fuse, &replace]),
        sequence(&[&replace, &strip(0)]),
    ];
    for decoder in decoders {
        let json = with_decoder(&decoder);
        let (ours, theirs) =
            (Tokenizer::from_bytes(&json, None).unwrap(), tokenizers::Tokenizer::from_bytes(&json).unwrap());
        for n in 0..2000 {
            let number = |k: u64| inlaid::rng::uniform(n, inlaid::rng::Stream::Sample, k);
            let len = (number(0) * 8.0) as u64;
            let ids: Vec<u32> = (1..=len).map(|k| (number(k) * 22.0) as u32).collect();
            let skip = n % 2 == 0;
            let expected = theirs.decode(&ids, skip).unwrap();
            assert_eq!(ours.decode(&ids, skip).unwrap(), expected, "{decoder} of {ids:?}");
            assert_eq!(streamed(&ours, &ids, skip), expected, "{decoder} of {ids:?}, streamed");
        }
    }
}

#[test]
fn a_stream_skips_what_is_no_token_and_can_begin_again() {
    let t = byte_level();
    let mut decoder = Decoder::new(&t, true);
    assert_eq!(decoder.push(70_000), "");
    assert_eq!(decoder.push(258), "hell");
    decoder.push(t.encode("語", false, true).unwrap()[0]);
    decoder.reset();
    assert_eq!(decoder.flush(), "");
}

#[test]
fn the_config_says_which_tokens_are_special() {
    let decoder = json!({"type": "Fuse"});
    let config = br#"{"add_bos_token": false, "add_eos_token": true, "eos_token": "lo", "bos_token": "<s>",
        "added_tokens_decoder": {"30": {"content": "<new>", "special": true}}, "extra_special_tokens": ["<more>"]}"#;
    let t = Tokenizer::from_bytes(&with_decoder(&decoder), Some(config)).unwrap();
    let (lo, new, more) = (4, 22, 23);
    assert_eq!(t.encode("<new>é<more>", true, true).unwrap(), [new, 12, more, lo]);
    assert_eq!((t.bos(), t.eos_token()), (Some(18), Some("lo")));
    assert!(t.is_special(lo) && t.is_special(new) && t.is_special(more) && !t.is_special(12));
    assert_eq!((t.id_to_token(new).as_deref(), t.token_to_id("<more>")), (Some("<new>"), Some(more)));
    for wrong in [
        &b"{\"add_bos_token\": 1}"[..],
        b"{\"bos_token\": 1}",
        b"{\"bos_token\": {}}",
        b"[",
        b"{\"a\": 1, \"a\": 2}",
    ] {
        assert!(Tokenizer::from_bytes(&with_decoder(&decoder), Some(wrong)).is_err());
    }
}

#[test]
fn nonsense_is_refused_and_never_panics() {
    let whole = with_decoder(&json!({"type": "Fuse"}));
    for end in 0..whole.len() {
        assert!(Tokenizer::from_bytes(&whole[..end], None).is_err());
    }
    let with = |key: &str, value: Value| {
        let mut json: Value = serde_json::from_slice(&whole).unwrap();
        json[key] = value;
        Tokenizer::from_bytes(json.to_string().as_bytes(), None)
    };
    assert!(with("decoder", json!({"type": "Nothing"})).is_err());
    assert!(with("model", json!({"type": "BPE", "vocab": {"a": 4_000_000_000_u32}, "merges": []})).is_err());
    assert!(with("model", json!({"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]})).is_err());
    assert!(
        with(
            "pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": false})
        )
        .is_err()
    );
    // Lengths that only training wants: texts are neither filled up to them nor cut.
    let padding = json!({"strategy": {"Fixed": 4_000_000_000_u32}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "x"});
    assert_eq!(with("padding", padding).unwrap().encode("é", true, true).unwrap(), [12]);
    let truncation = json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
    assert_eq!(with("truncation", truncation).unwrap().encode("éé", true, true).unwrap(), [12, 12]);
    // The crate itself would panic where it strips more than there is.
    assert!(with("decoder", json!({"type": "Strip", "content": "é", "start": 0, "stop": 9})).is_err());
    // It does panic where one step adds characters and the next one counts them; that is an error.
    let steps = json!([{"type": "Replace", "pattern": {"Regex": "^"}, "content": "xx"}, {"type": "NFC"}]);
    let counts = with("normalizer", json!({"type": "Sequence", "normalizers": steps})).unwrap();
    assert!(counts.encode("é", false, false).is_err());
    let deep = format!("{{\"model\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Tokenizer::from_bytes(deep.as_bytes(), None).is_err());
    assert!(byte_level().encode(&"a".repeat(17 << 20), false, false).is_err());
}

/// Metadata of a GGUF file without tensors.
struct Meta(Vec<(String, Vec<u8>)>);

impl Meta {
    fn new(architecture: &str, model: &str) -> Meta {
        Meta(Vec::new()).text("general.architecture", architecture).text("tokenizer.ggml.model", model)
    }

    fn put(mut self, key: &str, kind: u32, bytes: &[u8]) -> Meta {
        let value = [&kind.to_le_bytes()[..], bytes].concat();
        self.0.retain(|(other, _)| other != key);
        self.0.push((key.to_owned(), value));
        self
    }

    fn text(self, key: &str, value: &str) -> Meta {
        self.put(key, 8, &counted(value))
    }

    fn id(self, key: &str, value: u32) -> Meta {
        self.put(&format!("tokenizer.ggml.{key}_token_id"), 4, &value.to_le_bytes())
    }

    fn flag(self, key: &str, value: bool) -> Meta {
        self.put(&format!("tokenizer.ggml.{key}"), 7, &[value.into()])
    }

    fn list(self, key: &str, kind: u32, items: &[Vec<u8>]) -> Meta {
        let head = [&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes()].concat();
        self.put(&format!("tokenizer.ggml.{key}"), 9, &[head, items.concat()].concat())
    }

    fn texts(self, key: &str, items: &[&str]) -> Meta {
        let items: Vec<Vec<u8>> = items.iter().map(|item| counted(item)).collect();
        self.list(key, 8, &items)
    }

    fn open(self) -> inlaid::Result<Option<Tokenizer>> {
        let mut file = [&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes()].concat();
        file.extend((self.0.len() as u64).to_le_bytes());
        for (key, value) in &self.0 {
            file.extend(counted(key));
            file.extend(value);
        }
        let part = Part::Memory(Arc::new(file));
        Tokenizer::open(&Files::named([("model.gguf".to_owned(), part)])?)
    }
}

fn counted(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

#[test]
fn a_gguf_file_s_byte_level_tokenizer_is_its_own() {
    let tokens = ["a", "1", "2", "Ġ", "aa", "12", "<|end|>", "<tool>", "Ġa", "ĠĠ"];
    let types = [1, 1, 1, 1, 1, 1, 3, 4, 1, 1].map(|kind: i32| kind.to_le_bytes().to_vec());
    let file = |pre: Option<&str>| {
        let meta = Meta::new("llama", "gpt2")
            .texts("tokens", &tokens)
            .list("token_type", 5, &types)
            .texts("merges", &["a a", "1 2", "Ġ a", "Ġ Ġ"])
            .id("bos", 6)
            .id("eos", 6);
        pre.map_or(Meta::new("llama", "gpt2"), |pre| meta.text("tokenizer.ggml.pre", pre))
    };
    let ids =
        |pre: &str, text: &str| file(Some(pre)).open().unwrap().unwrap().encode(text, true, true).unwrap();
    assert_eq!(ids("gpt-2", "aa12<|end|>  12"), [4, 5, 6, 3, 3, 5]);
    assert_eq!(ids("smollm", "aa12<tool>  12"), [4, 1, 2, 7, 9, 1, 2]);
    assert_eq!(ids("qwen2", "aa12 a"), [4, 1, 2, 8]);
    assert_eq!(ids("llama-bpe", "aa12 a"), [6, 4, 5, 8], "with a BOS unless the file says otherwise");
    let t = file(Some("llama-bpe"))
        .flag("add_bos_token", false)
        .flag("add_eos_token", true)
        .open()
        .unwrap()
        .unwrap();
    assert_eq!(t.encode("a", true, true).unwrap(), [0, 6]);
    assert_eq!(t.decode(&[8, 6, 7], true).unwrap(), " a<tool>");
    let said = |meta: Meta| meta.open().err().unwrap().to_string();
    assert!(said(file(Some("mystery"))).contains("pre-tokenizer `mystery`"));
    assert!(said(file(None)).contains("pre-tokenizer none"));
    assert!(said(file(Some("gpt-2")).id("bos", 10)).contains("bos_token_id"));
    assert!(said(file(Some("gpt-2")).texts("merges", &["aa"])).contains("merges"));
    assert!(said(file(Some("gpt-2")).texts("merges", &["a b"])).contains("tokenizer"));
    assert!(said(file(Some("gpt-2")).list("token_type", 5, &types[..3])).contains("types"));
    assert!(said(Meta::new("bert", "bert")).contains("`bert`"));
    let none = Meta(Vec::new()).text("general.architecture", "llama").open();
    assert!(none.unwrap().is_none());
    assert!(Meta::new("llama", "none").open().unwrap().is_none());
    assert!(Meta::new("llama", "no_vocab").open().unwrap().is_none());
}

#[test]
fn a_gguf_file_s_sentencepiece_tokenizer_is_its_own() {
    let tokens = [
        "<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "▁", "a", "b", "ab", "▁ab", "▁a", "<", "s", ">", "<s",
        "bb",
    ];
    let types = [2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1].map(|kind: i32| kind.to_le_bytes().to_vec());
    let scores: Vec<f32> =
        vec![0.0, 0.0, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -2.0, -3.0, -1.0, -9.0, -9.0, -9.0, -4.0, -5.0];
    let bytes = |scores: &[f32]| scores.iter().map(|score| score.to_le_bytes().to_vec()).collect::<Vec<_>>();
    let file = || {
        Meta::new("llama", "llama")
            .texts("tokens", &tokens)
            .list("token_type", 5, &types)
            .list("scores", 6, &bytes(&scores))
            .id("bos", 1)
            .id("eos", 2)
            .id("unknown", 0)
    };
    let t = file().open().unwrap().unwrap();
    assert_eq!(t.encode("ab", true, true).unwrap(), [1, 9]);
    assert_eq!(t.encode("<s>ab", true, true).unwrap(), [1, 9], "no second BOS");
    assert_eq!(t.encode("abb", false, true).unwrap(), [9, 7], "by the scores: first ▁a, then ▁ab, not bb");
    assert_eq!(t.encode("bbb", false, true).unwrap(), [5, 15, 7], "the first of two that score alike");
    assert_eq!(t.encode("<s>", false, false).unwrap(), [5, 14, 13], "plain text is never a control token");
    assert_eq!(t.encode("bé", false, true).unwrap(), [5, 7, 3, 4]);
    assert_eq!(t.encode("bb b", false, true).unwrap(), [5, 15, 5, 7]);
    assert_eq!(t.decode(&[5, 7, 3, 4, 10], true).unwrap(), "bé a");
    assert_eq!(t.decode(&[5, 7, 3, 10], true).unwrap(), "b\u{FFFD} a");
    let t = file().flag("add_space_prefix", false).flag("add_bos_token", false).open().unwrap().unwrap();
    assert_eq!(t.encode("ab b", true, true).unwrap(), [8, 5, 7]);
    assert_eq!(t.decode(&[10, 7], true).unwrap(), " ab");
    let said = |meta: Meta| meta.open().err().unwrap().to_string();
    assert!(said(file().list("scores", 6, &bytes(&scores[1..]))).contains("scores"));
    assert!(said(file().list("scores", 6, &bytes(&[f32::NAN; 16]))).contains("scores"));
    let long = "a".repeat(600);
    let mut tokens = tokens;
    tokens[15] = &long;
    assert!(said(file().texts("tokens", &tokens)).contains("600"));
}

/// tests/data/tokenizer/make.py says where the ids come from.
#[test]
fn smollm2_gives_the_ids_of_its_own_tokenizer() {
    let Some(path) = std::env::var_os("INLAID_SMOLLM2") else {
        println!("skipped: INLAID_SMOLLM2 does not name SmolLM2's GGUF file");
        return;
    };
    let t = Tokenizer::open(&Files::at(path).unwrap()).unwrap().unwrap();
    let golden =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tokenizer/smollm2.json")).unwrap();
    let golden: Vec<Value> = serde_json::from_slice(&golden).unwrap();
    assert_eq!(golden.len(), 1000);
    for entry in &golden {
        let line = entry[0].as_str().unwrap();
        let ids = t.encode(line, false, true).unwrap();
        if let Some(expected) = entry.get(3) {
            assert_eq!(&json!(ids), expected, "{line:?}");
        }
        assert_eq!(ids.len() as u64, entry[1], "{line:?}");
        let fnv = |h: u64, byte: u8| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let hash = ids.iter().flat_map(|id| id.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, fnv);
        assert_eq!(format!("{hash:016x}"), entry[2].as_str().unwrap(), "{line:?}: {ids:?}");
        // Byte-level tokens lose nothing.
        assert_eq!(t.decode(&ids, false).unwrap(), line);
        assert_eq!(streamed(&t, &ids, false), line);
    }
}
