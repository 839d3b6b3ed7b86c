//! Floor 5: SentencePiece vocabularies of the BPE kind: tokens with scores, no merges. Knows the vocabulary of a GGUF file.

use super::{Kind, Vocab};
use crate::error::{Error, Result};
use crate::format::bad;
use crate::format::gguf::Value;
use serde_json::{Map, Value as Json, json};
use std::cmp::Ordering;
use std::collections::HashMap;

/// How SentencePiece writes a space.
const SPACE: &str = "\u{2581}";
/// Longest token in bytes: the search for merges takes time with its square.
const MAX_TOKEN: usize = 512;
/// Most merges: ten times as many as any model has.
const MAX_MERGES: usize = 1 << 22;

/// BPE with merges that give back the scores' order, and bytes for what the vocabulary cannot say.
///
/// Every text begins with a space, and so does every piece between special tokens, as SentencePiece and llama.cpp have it.
pub(super) fn tokenizer(vocab: &Vocab) -> Result<Json> {
    let prefix = vocab.gguf.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let normalizer = if prefix {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]})
    } else {
        replace
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let ids: Map<String, Json> =
        vocab.tokens.iter().enumerate().map(|(id, token)| (token.text.to_owned(), id.into())).collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": vocab.added(),
        "normalizer": normalizer,
        "pre_tokenizer": null,
        "post_processor": vocab.surround(),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": vocab.unknown.map(|id| vocab.text(id)),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": ids,
            "merges": merges(vocab)?,
        },
    }))
}

/// A merge of two tokens into a third.
#[derive(Clone, Copy)]
struct Merge {
    left: u32,
    right: u32,
    /// Characters of the left token.
    chars: u32,
    score: f32,
}

/// All ways to join two tokens into one that there is, those with the best scores first, as `transformers` orders them.
/// Only text is joined: control tokens, say, are never made from it.
fn merges(vocab: &Vocab) -> Result<Vec<Json>> {
    let file = vocab.gguf.file();
    let scores =
        vocab.gguf.list("tokenizer.ggml.scores")?.filter(|scores| scores.len() == vocab.tokens.len());
    let scores = scores.ok_or_else(|| bad(file, "tokenizer.ggml.scores: expected one score a token"))?;
    let text = |kind| matches!(kind, Kind::Normal | Kind::UserDefined);
    let ids: HashMap<&str, u32> = (0..)
        .zip(&vocab.tokens)
        .filter(|(_, token)| text(token.kind))
        .map(|(id, token)| (token.text, id))
        .collect();
    let mut found: Vec<Merge> = Vec::new();
    for (token, score) in vocab.tokens.iter().zip(scores.iter()) {
        let score = match score {
            Value::Float(score) if score.is_finite() => score as f32,
            _ => return Err(bad(file, "tokenizer.ggml.scores: expected finite numbers")),
        };
        if token.text.len() > MAX_TOKEN {
            let what = format!("expected tokens of at most {MAX_TOKEN} bytes, found {}", token.text.len());
            return Err(bad(file, what));
        }
        if !text(token.kind) {
            continue;
        }
        let start = found.len();
        for (chars, (at, _)) in (0..).zip(token.text.char_indices()).skip(1) {
            let (left, right) = token.text.split_at(at);
            if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
                found.push(Merge { left, right, chars, score });
            }
        }
        found[start..].sort_unstable_by_key(|merge| (merge.left, merge.right));
        if found.len() > MAX_MERGES {
            let what = format!("vocabulary with more than {MAX_MERGES} merges");
            return Err(Error::Unsupported { file: file.to_owned(), what });
        }
    }
    let length = |id: u32| vocab.text(id).chars().count();
    found.sort_by(|a, b| {
        let (longer, shorter) = (b.chars.cmp(&a.chars), || length(b.right).cmp(&length(a.right)));
        b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal).then(longer).then_with(shorter)
    });
    Ok(found.iter().map(|merge| json!([vocab.text(merge.left), vocab.text(merge.right)])).collect())
}
