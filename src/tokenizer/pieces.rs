//! Floor 5: what each token adds to a text, worked out once, so that decoding neither allocates nor looks up names. Knows
//! the decoders of `tokenizer.json`.

use super::bytes;
use crate::error::Error;
use serde_json::Value;
use tokenizers::tokenizer::Tokenizer as Crate;

/// How the pieces of tokens become text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rule {
    /// They are bytes of UTF-8, one after the other.
    Bytes,
    /// They are text with spaces between.
    Spaced,
    /// They are text; runs of byte tokens become characters where the whole run is UTF-8.
    Text {
        /// So many of these characters are taken off the start of the whole.
        strip: Option<(char, usize)>,
    },
    /// They are text; in the first token this character means nothing, elsewhere it is a space already.
    Words {
        /// The character, unless it is a space in the first token too.
        first: Option<char>,
    },
    /// The crate needs all tokens at once.
    Whole,
}

/// The pieces of all tokens.
pub(super) struct Pieces {
    pub rule: Rule,
    bytes: Vec<u8>,
    /// Where each token's piece ends in `bytes`.
    ends: Vec<u32>,
    flags: Vec<u8>,
    tokens: usize,
}

const EXISTS: u8 = 1;
const SPECIAL: u8 = 2;
/// The piece is one byte of a character (`<0xE2>`).
const BYTE: u8 = 4;

/// A token's piece.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Piece<'a> {
    /// Bytes of text.
    Plain(&'a [u8]),
    /// One byte of a run.
    Byte(u8),
    /// A special token's text.
    Special(&'a [u8]),
    /// There is no such token.
    None,
}

impl Pieces {
    /// Works out all pieces of a tokenizer with at most `most` ids.
    pub fn new(inner: &Crate, most: usize) -> tokenizers::Result<Pieces> {
        let steps = inner.get_decoder().map(serde_json::to_value).transpose()?;
        let recipe = Recipe::new(steps.as_ref());
        let tokens = inner.get_vocab_size(true);
        let len = ids(inner, tokens);
        if len > most {
            let what = format!("expected ids below {most}, found {}", len - 1);
            return Err(Box::new(Error::Tokenizer(what)));
        }
        let mut out = Pieces {
            rule: recipe.rule.clone(),
            bytes: Vec::new(),
            ends: Vec::new(),
            flags: Vec::new(),
            tokens,
        };
        for id in 0..len as u32 {
            let mut flags = 0;
            if let Some(token) = inner.id_to_token(id) {
                flags |= EXISTS;
                if inner.get_added_vocabulary().is_special_token(&token) {
                    flags |= SPECIAL;
                }
                if recipe.append(&token, &mut out.bytes) {
                    flags |= BYTE;
                }
            }
            out.flags.push(flags);
            out.ends.push(u32::try_from(out.bytes.len())?);
        }
        Ok(out)
    }

    /// The piece of token `id`.
    pub fn get(&self, id: u32) -> Piece<'_> {
        let at = id as usize;
        let (Some(&flags), Some(&end)) = (self.flags.get(at), self.ends.get(at)) else { return Piece::None };
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let bytes = self.bytes.get(start as usize..end as usize).unwrap_or_default();
        match bytes {
            _ if flags & EXISTS == 0 => Piece::None,
            _ if flags & SPECIAL != 0 => Piece::Special(bytes),
            [byte] if flags & BYTE != 0 => Piece::Byte(*byte),
            _ => Piece::Plain(bytes),
        }
    }

    /// Whether there is a token `id`.
    pub fn has(&self, id: u32) -> bool {
        self.flags.get(id as usize).is_some_and(|flags| flags & EXISTS != 0)
    }

    /// Whether token `id` is special.
    pub fn is_special(&self, id: u32) -> bool {
        self.flags.get(id as usize).is_some_and(|flags| flags & SPECIAL != 0)
    }

    /// Whether decoding needs all tokens at once.
    pub fn whole(&self) -> bool {
        self.rule == Rule::Whole
    }

    /// Tokens that there are.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

/// One more than the highest id.
fn ids(inner: &Crate, tokens: usize) -> usize {
    // Mostly the ids have no holes; else all names must be listed.
    let dense = (0..tokens as u32).rev().all(|id| inner.id_to_token(id).is_some());
    if dense { tokens } else { inner.get_vocab(true).values().max().map_or(0, |max| *max as usize + 1) }
}

/// What is done to a token's name.
struct Recipe {
    rule: Rule,
    replace: Vec<(String, String)>,
    fallback: bool,
}

impl Recipe {
    /// From the `decoder` of `tokenizer.json`.
    fn new(decoder: Option<&Value>) -> Recipe {
        let mut recipe = Recipe { rule: Rule::Spaced, replace: Vec::new(), fallback: false };
        let Some(decoder) = decoder else { return recipe };
        let mut steps = Vec::new();
        flatten(decoder, &mut steps);
        recipe.rule = recipe.read(&steps).unwrap_or(Rule::Whole);
        recipe
    }

    /// The rule of `steps`; `None` for those that only the crate knows.
    fn read(&mut self, mut steps: &[&Value]) -> Option<Rule> {
        match steps {
            [only] if kind(only) == "ByteLevel" => return Some(Rule::Bytes),
            [only] if kind(only) == "Metaspace" => {
                let mark = one_char(only.get("replacement")?)?;
                let never = only.get("prepend_scheme")?.as_str()? == "never";
                self.replace.push((mark.to_string(), " ".to_owned()));
                return Some(Rule::Words { first: (!never).then_some(mark) });
            }
            _ => {}
        }
        while let [step, rest @ ..] = steps
            && kind(step) == "Replace"
        {
            let pattern = step.get("pattern")?.get("String")?.as_str()?;
            self.replace.push((pattern.to_owned(), step.get("content")?.as_str()?.to_owned()));
            steps = rest;
        }
        if let [step, rest @ ..] = steps
            && kind(step) == "ByteFallback"
        {
            self.fallback = true;
            steps = rest;
        }
        match steps {
            [] => Some(Rule::Text { strip: None }),
            [fuse] if kind(fuse) == "Fuse" => Some(Rule::Text { strip: None }),
            [fuse, strip] if kind(fuse) == "Fuse" && kind(strip) == "Strip" => {
                let number = |key| strip.get(key).and_then(Value::as_u64);
                let start = usize::try_from(number("start")?).ok()?;
                (number("stop")? == 0)
                    .then_some(Rule::Text { strip: Some((one_char(strip.get("content")?)?, start)) })
            }
            _ => None,
        }
    }

    /// Appends a token's piece; true for a byte token.
    fn append(&self, token: &str, out: &mut Vec<u8>) -> bool {
        if self.rule == Rule::Bytes {
            let start = out.len();
            for c in token.chars() {
                let Some(byte) = bytes::to_byte(c) else {
                    // A token outside the alphabet, as added ones may be, is text.
                    out.truncate(start);
                    out.extend_from_slice(token.as_bytes());
                    break;
                };
                out.push(byte);
            }
            return false;
        }
        let mut text = std::borrow::Cow::Borrowed(token);
        for (pattern, content) in self.replace.iter().filter(|(pattern, _)| !pattern.is_empty()) {
            if text.contains(pattern.as_str()) {
                text = text.replace(pattern.as_str(), content).into();
            }
        }
        if let Some(byte) = byte_token(&text).filter(|_| self.fallback) {
            out.push(byte);
            return true;
        }
        out.extend_from_slice(text.as_bytes());
        false
    }
}

/// The byte that `<0xE2>` stands for.
fn byte_token(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2).then(|| u8::from_str_radix(hex, 16).ok())?
}

fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn one_char(value: &Value) -> Option<char> {
    let mut chars = value.as_str()?.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// The steps of nested sequences, in order.
fn flatten<'a>(step: &'a Value, out: &mut Vec<&'a Value>) {
    match step.get("decoders").and_then(Value::as_array) {
        Some(steps) if kind(step) == "Sequence" => steps.iter().for_each(|step| flatten(step, out)),
        _ => out.push(step),
    }
}
