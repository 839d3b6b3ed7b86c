//! Floor 5: what `tokenizer_config.json` says of special tokens. Knows the names of its keys.

use super::CONFIG;
use crate::error::{Error, Result};
use crate::format::json;
use serde_json::Value;
use std::collections::HashMap;
use tokenizers::tokenizer::{AddedToken, Tokenizer as Crate};

/// Keys that name one special token each.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Keys that list more of them: the name that newer files use, and the older one.
const LISTS: [&str; 2] = ["extra_special_tokens", "additional_special_tokens"];

/// A token with its id.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub content: String,
    pub id: u32,
}

/// The tokens around every text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub before: Option<u32>,
    pub after: Option<u32>,
}

/// The config, and what became of it once the tokenizer was there.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub bos: Option<Named>,
    pub eos: Option<Named>,
    pub mask: Option<Named>,
    /// Tokens around a text, where the config says so itself; else `tokenizer.json` says it.
    pub ends: Option<Ends>,
    add_bos: Option<bool>,
    add_eos: Option<bool>,
    bos_name: Option<String>,
    eos_name: Option<String>,
    mask_name: Option<String>,
    /// Tokens that must be in the vocabulary, in the order of their ids or of the keys.
    tokens: Vec<AddedToken>,
}

impl Settings {
    /// Reads the config's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Settings> {
        let config = json::parse(CONFIG, bytes)?;
        let mut out = Settings {
            add_bos: flag(&config, "add_bos_token")?,
            add_eos: flag(&config, "add_eos_token")?,
            ..Settings::default()
        };
        if let Some(Value::Object(listed)) = config.get("added_tokens_decoder") {
            let mut listed: Vec<(u32, &Value)> =
                listed.iter().filter_map(|(id, token)| Some((id.parse().ok()?, token))).collect();
            listed.sort_unstable_by_key(|(id, _)| *id);
            for (_, token) in listed {
                out.tokens.extend(token_of("added_tokens_decoder", token)?);
            }
        }
        for key in NAMED {
            let Some(mut token) = config.get(key).map_or(Ok(None), |value| token_of(key, value))? else {
                continue;
            };
            match key {
                "bos_token" => out.bos_name = Some(token.content.clone()),
                "eos_token" => out.eos_name = Some(token.content.clone()),
                "mask_token" => out.mask_name = Some(token.content.clone()),
                _ => {}
            }
            token.special = true;
            out.want(token);
        }
        for key in LISTS {
            if let Some(Value::Array(list)) = config.get(key) {
                for value in list {
                    if let Some(mut token) = token_of(key, value)? {
                        token.special = true;
                        out.want(token);
                    }
                }
            }
        }
        Ok(out)
    }

    /// Adds a token unless it is there; one that is there and has a special name is special.
    fn want(&mut self, token: AddedToken) {
        match self.tokens.iter_mut().find(|other| other.content == token.content) {
            Some(other) => other.special = true,
            None => self.tokens.push(token),
        }
    }

    /// Gives the tokenizer the tokens that it lacks, and looks up the ids.
    pub fn apply(&mut self, inner: &mut Crate) -> tokenizers::Result<()> {
        let known: HashMap<String, AddedToken> = inner
            .get_added_tokens_decoder()
            .into_values()
            .map(|token| (token.content.clone(), token))
            .collect();
        let wanted = std::mem::take(&mut self.tokens).into_iter().filter_map(|token| {
            // What `tokenizer.json` says of a token stands, but that a token with a special name is special.
            match known.get(&token.content) {
                Some(there) if there.special || !token.special => None,
                Some(there) => Some(there.clone().special(true)),
                None => Some(token),
            }
        });
        inner.add_tokens(wanted.collect::<Vec<_>>())?;
        let named = |name: &Option<String>| {
            let content = name.clone()?;
            let id = inner.token_to_id(&content)?;
            Some(Named { content, id })
        };
        self.bos = named(&self.bos_name);
        self.eos = named(&self.eos_name);
        // Files without a config still have a token of this name.
        let usual = ["[MASK]", "<mask>"].into_iter().find(|name| inner.token_to_id(name).is_some());
        self.mask = named(&self.mask_name.clone().or(usual.map(str::to_owned)));
        if self.add_bos.is_some() || self.add_eos.is_some() {
            let id = |token: &Option<Named>, add: Option<bool>| {
                token.as_ref().filter(|_| add == Some(true)).map(|token| token.id)
            };
            self.ends =
                Some(Ends { before: id(&self.bos, self.add_bos), after: id(&self.eos, self.add_eos) });
        }
        Ok(())
    }
}

fn flag(config: &Value, key: &str) -> Result<Option<bool>> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(wrong(key, "true or false", other)),
    }
}

/// A token, given by its name or as an object that also says how it is found in a text.
fn token_of(key: &str, value: &Value) -> Result<Option<AddedToken>> {
    match value {
        Value::Null => Ok(None),
        Value::String(name) if name.is_empty() => Ok(None),
        Value::String(name) => Ok(Some(AddedToken::from(name.clone(), true))),
        Value::Object(fields) => {
            let Some(Value::String(name)) = fields.get("content") else {
                return Err(wrong(key, "an object with `content`", value));
            };
            let is = |field| fields.get(field).and_then(Value::as_bool);
            let special = is("special").unwrap_or(false);
            let token = AddedToken::from(name.clone(), special)
                .single_word(is("single_word").unwrap_or(false))
                .lstrip(is("lstrip").unwrap_or(false))
                .rstrip(is("rstrip").unwrap_or(false))
                .normalized(is("normalized").unwrap_or(!special));
            Ok((!name.is_empty()).then_some(token))
        }
        other => Err(wrong(key, "a token's name", other)),
    }
}

fn wrong(key: &str, expected: &str, found: &Value) -> Error {
    let found = crate::format::shown(&found.to_string());
    crate::format::bad(CONFIG, format!("`{key}`: expected {expected}, found {found}"))
}
