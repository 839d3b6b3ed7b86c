//! Malformed tokenizers in the metadata of well-formed GGUF files.

use crate::gguf::{Draft, LIST, TEXT, key, list, number, text};
use crate::{Case, case, tokenizer};
use inlaid::Error;
use inlaid::format::files::{Files, Part};
use inlaid::tokenizer::Tokenizer;
use std::sync::Arc;

pub fn open(bytes: &[u8]) -> Result<(), Error> {
    let part = ("model.gguf".to_owned(), Part::Memory(Arc::new(bytes.to_vec())));
    match Tokenizer::open(&Files::named([part])?)? {
        Some(made) => tokenizer::try_out(&made),
        None => return Err(Error::Tokenizer("there is none".to_owned())),
    }
    Ok(())
}

/// What may be wrong about a tokenizer.
#[derive(Clone)]
struct Vocab {
    model: Vec<u8>,
    pre: Vec<u8>,
    tokens: Vec<u8>,
    types: Vec<u8>,
    merges: Vec<u8>,
    scores: Vec<u8>,
    more: Vec<Vec<u8>>,
}

const WORDS: [&str; 6] = ["<s>", "</s>", "a", "b", "ab", "\u{120}"];

fn named(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    key(format!("tokenizer.ggml.{name}"), kind, value)
}

fn texts(texts: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let bytes: Vec<u8> = texts.iter().flat_map(text).collect();
    list(TEXT, texts.len() as u64, &bytes)
}

fn tokens(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    named("tokens", LIST, &texts(words))
}

fn merges(pairs: &[impl AsRef<[u8]>]) -> Vec<u8> {
    named("merges", LIST, &texts(pairs))
}

fn types(types: &[i32]) -> Vec<u8> {
    let bytes: Vec<u8> = types.iter().flat_map(|n| n.to_le_bytes()).collect();
    named("token_type", LIST, &list(5, types.len() as u64, &bytes))
}

fn scores(scores: &[f32]) -> Vec<u8> {
    let bytes: Vec<u8> = scores.iter().flat_map(|x| x.to_le_bytes()).collect();
    named("scores", LIST, &list(6, scores.len() as u64, &bytes))
}

fn id(name: &str, id: u32) -> Vec<u8> {
    number(&format!("tokenizer.ggml.{name}_token_id"), id)
}

impl Vocab {
    fn byte_level() -> Vocab {
        Vocab {
            model: named("model", TEXT, &text("gpt2")),
            pre: named("pre", TEXT, &text("gpt-2")),
            tokens: tokens(&WORDS),
            types: types(&[3, 3, 1, 1, 1, 1]),
            merges: merges(&["a b"]),
            scores: Vec::new(),
            more: vec![id("bos", 0), id("eos", 1)],
        }
    }

    fn sentencepiece() -> Vocab {
        Vocab {
            model: named("model", TEXT, &text("llama")),
            pre: Vec::new(),
            tokens: tokens(&["<unk>", "<s>", "</s>", "\u{2581}", "a", "\u{2581}a", "<0x62>"]),
            types: types(&[2, 3, 3, 1, 1, 1, 6]),
            merges: Vec::new(),
            scores: scores(&[0.0, 0.0, 0.0, -1.0, -2.0, -3.0, 0.0]),
            more: vec![id("bos", 1), id("eos", 2), id("unknown", 0)],
        }
    }

    fn bytes(self) -> Vec<u8> {
        let parts = [self.model, self.pre, self.tokens, self.types, self.merges, self.scores];
        Draft::with(|draft| {
            draft.keys.extend(parts.into_iter().chain(self.more).filter(|key| !key.is_empty()));
        })
    }
}

/// A case of each kind, or of one.
struct Cases(Vec<Case>);

impl Cases {
    fn byte_level(&mut self, what: impl Into<String>, change: impl FnOnce(&mut Vocab)) {
        let mut vocab = Vocab::byte_level();
        change(&mut vocab);
        self.0.push(case(what, vocab.bytes()));
    }

    fn sentencepiece(&mut self, what: impl AsRef<str>, change: impl FnOnce(&mut Vocab)) {
        let mut vocab = Vocab::sentencepiece();
        change(&mut vocab);
        self.0.push(case(format!("sentencepiece: {}", what.as_ref()), vocab.bytes()));
    }

    fn both(&mut self, what: impl AsRef<str>, change: impl Fn(&mut Vocab)) {
        self.byte_level(what.as_ref(), &change);
        self.sentencepiece(what, change);
    }
}

pub fn valid() -> Vec<u8> {
    Vocab::byte_level().bytes()
}

/// A second file that is accepted.
pub fn valid_sentencepiece() -> Vec<u8> {
    Vocab::sentencepiece().bytes()
}

pub fn cases() -> Vec<Case> {
    let mut cases = Cases(Vec::new());
    names(&mut cases);
    lists(&mut cases);
    ids(&mut cases);
    merging(&mut cases);
    scoring(&mut cases);
    cases.0
}

fn names(cases: &mut Cases) {
    for model in ["", "GPT2", "bert", "t5", "rwkv", "llama\0", "none", "no_vocab"] {
        let model = named("model", TEXT, &text(model));
        cases.byte_level(format!("model {model:?}"), |v| v.model = model);
    }
    for pre in ["", "GPT-2", "gpt2", "gpt-2 ", "qwen3-of-tomorrow", "command-r"] {
        cases.byte_level(format!("pre-tokenizer `{pre}`"), |v| v.pre = named("pre", TEXT, &text(pre)));
    }
    cases.byte_level("a pre-tokenizer of a mebibyte", |v| {
        v.pre = named("pre", TEXT, &text("x".repeat(1 << 20)));
    });
    cases.byte_level("a pre-tokenizer that is a number", |v| v.pre = number("tokenizer.ggml.pre", 1));
    cases.byte_level("no pre-tokenizer", |v| v.pre.clear());
    cases
        .byte_level("a pre-tokenizer that is not UTF-8", |v| v.pre = named("pre", TEXT, &text(b"gpt-2\xff")));
    cases.byte_level("a model that is not UTF-8", |v| v.model = named("model", TEXT, &text(b"gpt2\xc3")));
    cases.both("a model that is a number", |v| v.model = number("tokenizer.ggml.model", 2));
    cases.both("a model that is a list", |v| v.model = named("model", LIST, &texts(&["gpt2"])));
    cases.both("a model given twice", |v| v.more.push(v.model.clone()));
}

fn lists(cases: &mut Cases) {
    cases.both("no tokens", |v| v.tokens.clear());
    cases.both("tokens that are one text", |v| v.tokens = named("tokens", TEXT, &text("a")));
    cases.both("tokens that are numbers", |v| v.tokens = named("tokens", LIST, &list(4, 6, &[0; 24])));
    cases.both("fewer types than tokens", |v| v.types = types(&[1, 1]));
    cases.both("more types than tokens", |v| v.types = types(&[1; 9]));
    cases.both("no type at all", |v| v.types = types(&[]));
    cases.both("types that are text", |v| v.types = named("token_type", LIST, &texts(&["1"; 7])));
    cases.both("types that are floats", |v| v.types = named("token_type", LIST, &list(6, 7, &[0; 28])));
    for (kind, name) in [(0, "0"), (7, "7"), (-1, "-1"), (i32::MAX, "the highest")] {
        let what = format!("a token of type {name}");
        cases.byte_level(&what, |v| v.types = types(&[3, 3, 1, 1, 1, kind]));
        cases.sentencepiece(&what, |v| v.types = types(&[2, 3, 3, 1, 1, kind, 6]));
    }
    for length in [7, 8, 1000, 1 << 32, 1 << 61, 1 << 63, u64::MAX] {
        let lie = |name: &str, kind: u32, bytes: &[u8]| named(name, LIST, &list(kind, length, bytes));
        let words: Vec<u8> = WORDS.iter().flat_map(text).collect();
        cases.both(format!("{length} tokens of six"), |v| v.tokens = lie("tokens", TEXT, &words));
        cases.both(format!("{length} types of none"), |v| v.types = lie("token_type", 5, &[]));
        cases.byte_level(format!("{length} merges of one"), |v| v.merges = lie("merges", TEXT, &text("a b")));
        cases.sentencepiece(format!("{length} scores of one"), |v| v.scores = lie("scores", 6, &[0; 4]));
    }
    for bad in [&b"\xff"[..], b"a\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\x80"] {
        cases.both(format!("a token {bad:x?}"), |v| v.tokens = tokens(&[bad, b"b", b"c", b"d", b"e", b"f"]));
    }
    let huge = "x".repeat(1 << 20);
    cases.sentencepiece("a token of a mebibyte", |v| {
        v.tokens = tokens(&["<unk>", "<s>", "</s>", "a", &huge, "b", "c"]);
    });
}

fn ids(cases: &mut Cases) {
    for name in ["bos", "eos", "unknown"] {
        for at in [7, 1 << 16, 1 << 31, u32::MAX] {
            cases.both(format!("{name} is token {at}"), |v| v.more = vec![id(name, at)]);
        }
        let key = format!("tokenizer.ggml.{name}_token_id");
        let wide = crate::gguf::key(&key, 10, &(1_u64 << 32).to_le_bytes());
        cases.both(format!("{name} is a token of 64 bits"), |v| v.more = vec![wide.clone()]);
        let below = crate::gguf::key(&key, 5, &(-2_i32).to_le_bytes());
        cases.both(format!("{name} is below zero"), |v| v.more = vec![below.clone()]);
        let words = crate::gguf::key(&key, TEXT, &text("<s>"));
        cases.both(format!("{name} is a text"), |v| v.more = vec![words.clone()]);
        let half = crate::gguf::key(&key, 6, &0.5_f32.to_le_bytes());
        cases.both(format!("{name} is a half"), |v| v.more = vec![half.clone()]);
    }
    for name in ["add_bos_token", "add_eos_token"] {
        cases.both(format!("{name} is a number"), |v| {
            v.more.push(number(&format!("tokenizer.ggml.{name}"), 1))
        });
        cases.both(format!("{name} is 2"), |v| v.more.push(named(name, 7, &[2])));
    }
    cases.sentencepiece("a space before texts, or two", |v| {
        v.more.push(number("tokenizer.ggml.add_space_prefix", 2));
    });
}

fn merging(cases: &mut Cases) {
    cases.byte_level("no merges", |v| v.merges.clear());
    cases.byte_level("merges that are one text", |v| v.merges = named("merges", TEXT, &text("a b")));
    cases.byte_level("merges that are numbers", |v| v.merges = named("merges", LIST, &list(4, 1, &[0; 4])));
    let bad: [&[u8]; 12] =
        [b"", b"a", b" ", b"ab", b"a x", b"x b", b"b a", b"a  b", b"a b c", b"ab ab", b"a \xff", b"\xc3 b"];
    for merge in bad {
        let what = format!("a merge of `{}`", merge.escape_ascii());
        cases.byte_level(what, |v| v.merges = merges(&[merge]));
    }
    let long = format!("{} {}", "a".repeat(1 << 20), "b".repeat(1 << 20));
    cases.byte_level("a merge of two mebibytes", |v| v.merges = merges(&[&long]));
    let many: Vec<String> = (0..100_000).map(|i| format!("a x{i}")).collect();
    cases.byte_level("many merges of nothing", |v| v.merges = merges(&many));
}

fn scoring(cases: &mut Cases) {
    cases.sentencepiece("no scores", |v| v.scores.clear());
    cases.sentencepiece("a score too few", |v| v.scores = scores(&[0.0; 6]));
    cases.sentencepiece("a score too many", |v| v.scores = scores(&[0.0; 8]));
    cases.sentencepiece("scores that are numbers of another kind", |v| {
        v.scores = named("scores", LIST, &list(5, 7, &[0; 28]));
    });
    cases.sentencepiece("scores that are text", |v| v.scores = named("scores", LIST, &texts(&["0"; 7])));
    cases.sentencepiece("one score for all", |v| v.scores = named("scores", 6, &[0; 4]));
    for (name, bad) in [("NaN", f32::NAN), ("infinite", f32::INFINITY), ("below all", f32::NEG_INFINITY)] {
        cases.sentencepiece(format!("a score that is {name}"), |v| {
            v.scores = scores(&[0.0, 0.0, 0.0, bad, 0.0, 0.0, 0.0]);
        });
    }
}
