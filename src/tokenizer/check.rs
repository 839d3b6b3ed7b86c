//! Floor 5: what a `tokenizer.json` must not say because the `tokenizers` crate would panic on it, or end the process.
//! Knows that crate's weak places by their fields, and judges nothing else: the crate itself says what makes no sense.
//!
//! A panic of the crate is contained, but whoever shares our runtime gets a line on standard error first. And a word of a
//! million bytes in a Unigram vocabulary is a tree of that depth, which is freed by recursion: no panic, an abort.

use super::{FILE, charsmap, refuse};
use crate::error::Result;
use crate::format::{bad, json, shown};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;

/// Longest token of a Unigram vocabulary in bytes. SentencePiece makes none beyond a tenth of this.
const MAX_UNIGRAM: usize = 512;

/// Checks the bytes of a `tokenizer.json`.
///
/// # Errors
/// `Format` where they are not JSON of the outer shape of a tokenizer; `Tokenizer` for what the crate cannot take.
pub(super) fn check(json: &[u8]) -> Result<()> {
    let file: File = serde_json::from_slice(json).map_err(|e| bad(FILE, e.to_string()))?;
    if let Some(model) = &file.model {
        model.check()?;
    }
    let mut templates = 0;
    for part in [&file.normalizer, &file.pre_tokenizer, &file.post_processor, &file.decoder] {
        component(&part.0, &mut templates)?;
    }
    Ok(())
}

/// A file. Its parts other than the model are small, and are kept whole.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    normalizer: json::Small,
    #[serde(default)]
    pre_tokenizer: json::Small,
    #[serde(default)]
    post_processor: json::Small,
    #[serde(default)]
    decoder: json::Small,
    model: Option<Model>,
}

/// A model of tokens: of its vocabulary and merges only the sizes.
#[derive(Deserialize)]
struct Model {
    vocab: Option<Vocab>,
    merges: Option<Merges>,
    continuing_subword_prefix: Option<String>,
}

impl Model {
    /// The crate writes what a merge makes into a buffer of the longest token, without the prefix of the right side.
    fn check(&self) -> Result<()> {
        let vocab = self.vocab.as_ref().unwrap_or(&Vocab { longest: 0, listed: false });
        if vocab.listed && vocab.longest > MAX_UNIGRAM {
            let longest = vocab.longest;
            return refuse(format!(
                "{FILE}: expected tokens of at most {MAX_UNIGRAM} bytes, found {longest}"
            ));
        }
        let Some(merges) = &self.merges else { return Ok(()) };
        let prefix = self.continuing_subword_prefix.as_deref().unwrap_or_default();
        if merges.right.as_ref().is_some_and(|right| !right.starts_with(prefix)) {
            let prefix = shown(prefix);
            return refuse(format!(
                "{FILE}: expected merges with tokens that begin with `{prefix}`, found others"
            ));
        }
        let (longest, made) = (vocab.longest, merges.joined.saturating_sub(prefix.len()));
        if made > longest {
            let expected = format!("expected merges into tokens, which have at most {longest} bytes");
            return refuse(format!("{FILE}: {expected}, found one into {made}"));
        }
        Ok(())
    }
}

/// Looks at a part of the pipeline and all within it. Parts are told apart by their fields, as the crate does where their
/// `type` is missing or another than it knows. It would also take a list of their values.
fn component(part: &Value, templates: &mut usize) -> Result<()> {
    let fields = match part {
        Value::Null => return Ok(()),
        Value::Object(fields) => fields,
        other => {
            let found = shown(&other.to_string());
            return refuse(format!("{FILE}: expected an object as a part of the pipeline, found {found}"));
        }
    };
    if let Some(stop) = fields.get("stop").filter(|stop| stop.as_u64() != Some(0)) {
        return refuse(format!("{FILE}: a decoder that strips ends (`stop`: {stop}) is not supported"));
    }
    if fields.get("length").is_some_and(|length| length.as_u64() == Some(0)) {
        return refuse(format!("{FILE}: expected words of a fixed `length` above 0, found 0"));
    }
    if let Some(table) = fields.get("precompiled_charsmap").and_then(Value::as_str)
        && let Some(wrong) = charsmap::wrong(table)
    {
        return refuse(format!("{FILE}: `precompiled_charsmap`: {wrong}"));
    }
    if let Some(single) = fields.get("single") {
        *templates += 1;
        template(single, fields.get("special_tokens"), *templates)?;
    }
    let within = ["normalizers", "pretokenizers", "processors", "decoders"].into_iter();
    let mut parts = within.filter_map(|key| fields.get(key)?.as_array()).flatten();
    parts.try_for_each(|part| component(part, templates))
}

/// `TemplateProcessing`: what is put around a text.
fn template(single: &Value, tokens: Option<&Value>, count: usize) -> Result<()> {
    if count > 1 {
        return refuse(format!("{FILE}: expected one template of tokens around a text, found several"));
    }
    for piece in single.as_array().into_iter().flatten() {
        if piece["Sequence"]["id"] == "A" {
            continue;
        }
        let Some(id) = piece["SpecialToken"]["id"].as_str() else {
            let piece = shown(&piece.to_string());
            return refuse(format!(
                "{FILE}: expected the text or a special token in `single`, found {piece}"
            ));
        };
        let token = tokens.and_then(|tokens| tokens.get(id));
        let len = |field| token.and_then(|token| token[field].as_array()).map(Vec::len);
        if len("ids").is_none() || len("ids") != len("tokens") {
            let id = shown(id);
            let what = format!("`single` names `{id}`, which `special_tokens` does not explain");
            return refuse(format!("{FILE}: {what}"));
        }
    }
    Ok(())
}

/// The tokens of a model: names with ids, or a list.
struct Vocab {
    /// Bytes of the longest.
    longest: usize,
    listed: bool,
}

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Vocab;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
                let mut longest = 0;
                while let Some((Text(name), IgnoredAny)) = map.next_entry()? {
                    longest = longest.max(name.len());
                }
                Ok(Vocab { longest, listed: false })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocab, A::Error> {
                let mut longest = 0;
                while let Some((Text(name), IgnoredAny)) = seq.next_element()? {
                    longest = longest.max(name.len());
                }
                Ok(Vocab { longest, listed: true })
            }
        }
        d.deserialize_any(Walk)
    }
}

/// All merges of a model.
struct Merges {
    /// Most bytes of the two sides of one merge together.
    joined: usize,
    /// What all right sides begin with; `None` without merges.
    right: Option<String>,
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Merges;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merges, A::Error> {
                let mut merges = Merges { joined: 0, right: None };
                while let Some(merge) = seq.next_element::<Merge>()? {
                    match &merge {
                        Merge::Pair(left, right) => merges.add(&left.0, &right.0),
                        Merge::Line(line) if line.0.starts_with("#version") => {}
                        Merge::Line(line) => {
                            if let Some((left, right)) = line.0.split_once(' ') {
                                merges.add(left, right);
                            }
                        }
                    }
                }
                Ok(merges)
            }
        }
        d.deserialize_seq(Walk)
    }
}

impl Merges {
    fn add(&mut self, left: &str, right: &str) {
        self.joined = self.joined.max(left.len() + right.len());
        let Some(common) = &mut self.right else {
            self.right = Some(right.to_owned());
            return;
        };
        let same = common.char_indices().zip(right.chars()).find(|((_, a), b)| a != b);
        let len = same.map_or(common.len().min(right.len()), |((at, _), _)| at);
        common.truncate(len);
    }
}

/// A merge, as newer and older files write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge<'a> {
    Pair(#[serde(borrow)] Text<'a>, #[serde(borrow)] Text<'a>),
    Line(#[serde(borrow)] Text<'a>),
}

/// Text that is looked at where it lies, unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
