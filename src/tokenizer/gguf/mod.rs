//! Floor 5: a GGUF file's tokenizer as the `tokenizer.json` and `tokenizer_config.json` that a Hugging Face directory would
//! have, so that one code path loads both, and a converted model keeps its tokenizer. Knows the metadata keys of
//! llama.cpp.

mod pre;
mod sentencepiece;

use super::bytes;
use crate::error::{Error, Result};
use crate::format::gguf::{Gguf, List, Value};
use crate::format::{bad, shown};
use serde_json::{Map, Value as Json, json};
use std::borrow::Cow;

/// The two files.
#[derive(Clone, Debug)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer: String,
    /// `tokenizer_config.json`, the chat template included.
    pub config: String,
}

/// What a token is for (`llama_token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    /// Stands for what the vocabulary cannot say, or for nothing.
    Unknown,
    /// Special: control of the model.
    Control,
    /// Found whole in a text, before anything else.
    UserDefined,
    Unused,
    /// One byte.
    Byte,
}

/// A token of the file.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    text: &'a str,
    kind: Kind,
}

/// The metadata that both kinds of tokenizers need.
struct Vocab<'a> {
    gguf: &'a Gguf,
    tokens: Vec<Token<'a>>,
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    add_bos: bool,
    add_eos: bool,
}

/// Writes the files of the tokenizer in `gguf`; `None` where it has none.
///
/// # Errors
/// `Unsupported` for a model or pre-tokenizer that is not known, by name; `Format` for metadata that makes no sense.
pub fn from_gguf(gguf: &Gguf) -> Result<Option<TokenizerFiles>> {
    let Some(model) = gguf.str("tokenizer.ggml.model")? else { return Ok(None) };
    let pre = gguf.str("tokenizer.ggml.pre")?;
    let (tokenizer, vocab) = match model {
        "gpt2" => {
            let pre = pre::PreTokenizer::of(gguf, pre)?;
            let vocab = Vocab::read(gguf, pre.add_bos)?;
            (byte_level(&vocab, &pre)?, vocab)
        }
        "llama" => {
            let vocab = Vocab::read(gguf, true)?;
            (sentencepiece::tokenizer(&vocab)?, vocab)
        }
        // A model that is fed ids.
        "none" | "no_vocab" => return Ok(None),
        other => {
            let what = format!("tokenizer.ggml.model `{}`", shown(other));
            return Err(Error::Unsupported { file: gguf.file().to_owned(), what });
        }
    };
    Ok(Some(TokenizerFiles { tokenizer: tokenizer.to_string(), config: vocab.config()?.to_string() }))
}

impl<'a> Vocab<'a> {
    fn read(gguf: &'a Gguf, add_bos: bool) -> Result<Vocab<'a>> {
        let missing = || bad(gguf.file(), "tokenizer.ggml.tokens is missing");
        let texts = gguf.list("tokenizer.ggml.tokens")?.ok_or_else(missing)?;
        let kinds = gguf.list("tokenizer.ggml.token_type")?;
        if let Some(kinds) = kinds.filter(|kinds| kinds.len() != texts.len()) {
            let what = format!("expected {} types of tokens, found {}", texts.len(), kinds.len());
            return Err(bad(gguf.file(), what));
        }
        let mut kinds = kinds.as_ref().map(List::iter);
        let mut tokens = Vec::new();
        for (id, text) in texts.texts().enumerate() {
            let text = text.and_then(|text| std::str::from_utf8(text).ok());
            let text = text.ok_or_else(|| bad(gguf.file(), format!("token {id}: expected UTF-8 text")))?;
            let kind = kinds.as_mut().map_or(Some(Kind::Normal), |kinds| kind(kinds.next()?));
            let kind =
                kind.ok_or_else(|| bad(gguf.file(), format!("token {id}: expected a type from 1 to 6")))?;
            tokens.push(Token { text, kind });
        }
        let special = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match gguf.id(&key)? {
                Some(id) if id as usize >= tokens.len() => {
                    Err(bad(gguf.file(), format!("{key}: expected an id below {}, found {id}", tokens.len())))
                }
                id => Ok(id),
            }
        };
        let (bos, eos, unknown) = (special("bos")?, special("eos")?, special("unknown")?);
        let add_bos = gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos) && bos.is_some();
        let add_eos = gguf.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false) && eos.is_some();
        Ok(Vocab { gguf, tokens, bos, eos, unknown, add_bos, add_eos })
    }

    fn text(&self, id: u32) -> &'a str {
        self.tokens.get(id as usize).map_or("", |token| token.text)
    }

    /// `added_tokens`: those that are found whole in a text.
    fn added(&self) -> Json {
        let added = |(id, token): (usize, &Token)| {
            let unknown = self.unknown.is_some_and(|unknown| unknown as usize == id);
            let special = match token.kind {
                Kind::Control => true,
                Kind::Unknown => unknown,
                _ => false,
            };
            (special || token.kind == Kind::UserDefined).then(|| {
                json!({"id": id, "content": token.text, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": special})
            })
        };
        self.tokens.iter().enumerate().filter(|(_, token)| !token.text.is_empty()).filter_map(added).collect()
    }

    /// `post_processor`: the tokens around a text.
    fn surround(&self) -> Json {
        let (mut single, mut pair, mut special) = (Vec::new(), Vec::new(), Map::new());
        for (add, id, last) in [(self.add_bos, self.bos, false), (self.add_eos, self.eos, true)] {
            for (sequence, steps) in [("A", &mut single), ("B", &mut pair)] {
                let kind = u8::from(sequence == "B");
                if last {
                    steps.push(json!({"Sequence": {"id": sequence, "type_id": kind}}));
                }
                if let Some(id) = id.filter(|_| add) {
                    let text = self.text(id);
                    steps.push(json!({"SpecialToken": {"id": text, "type_id": kind}}));
                    special.insert(text.to_owned(), json!({"id": text, "ids": [id], "tokens": [text]}));
                }
            }
        }
        let pair: Vec<Json> = single.iter().cloned().chain(pair).collect();
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special})
    }

    /// `tokenizer_config.json`.
    fn config(&self) -> Result<Json> {
        let mut config = Map::new();
        config.insert("add_bos_token".into(), self.add_bos.into());
        config.insert("add_eos_token".into(), self.add_eos.into());
        let padding =
            self.gguf.id("tokenizer.ggml.padding_token_id")?.filter(|id| !self.text(*id).is_empty());
        let named = [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("unk_token", self.unknown),
            ("pad_token", padding),
        ];
        for (name, id) in named {
            if let Some(id) = id {
                config.insert(name.into(), self.text(id).into());
            }
        }
        config.insert("clean_up_tokenization_spaces".into(), false.into());
        if let Some(template) = self.gguf.str("tokenizer.chat_template")? {
            config.insert("chat_template".into(), template.into());
        }
        // The class that takes `tokenizer.json` as it is.
        config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
        Ok(Json::Object(config))
    }
}

fn kind(value: Value) -> Option<Kind> {
    let Value::Integer(number) = value else { return None };
    Some(match number {
        1 => Kind::Normal,
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        5 => Kind::Unused,
        6 => Kind::Byte,
        _ => return None,
    })
}

/// Byte-level BPE, with the merges that the file lists.
fn byte_level(vocab: &Vocab, pre: &pre::PreTokenizer) -> Result<Json> {
    let mut ids = Map::new();
    for (id, token) in vocab.tokens.iter().enumerate() {
        let whole = matches!(token.kind, Kind::Control | Kind::UserDefined);
        ids.insert(if whole { token.text.to_owned() } else { spelled(token.text).into_owned() }, id.into());
    }
    let file = vocab.gguf.file();
    let missing = || bad(file, "tokenizer.ggml.merges is missing");
    let merges = vocab.gguf.list("tokenizer.ggml.merges")?.ok_or_else(missing)?;
    let pair = |(n, merge): (usize, Option<&[u8]>)| {
        let merge = merge.and_then(|merge| std::str::from_utf8(merge).ok());
        let (a, b) = merge
            .and_then(|merge| merge.split_once(' '))
            .ok_or_else(|| bad(file, format!("tokenizer.ggml.merges: entry {n}: expected two tokens")))?;
        Ok(json!([a, b]))
    };
    let merges: Vec<Json> = merges.texts().enumerate().map(pair).collect::<Result<_>>()?;
    let byte_level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let steps: Vec<Json> = pre.split.iter().cloned().chain([byte_level(pre.regex)]).collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": vocab.added(),
        "normalizer": pre.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": vocab.surround(),
        "decoder": byte_level(true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": pre.ignore_merges,
            "vocab": ids,
            "merges": merges,
        },
    }))
}

/// A token in the byte alphabet: files spell some tokens in plain text.
fn spelled(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| bytes::to_byte(c).is_some()) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.bytes().map(bytes::to_char).collect())
    }
}
