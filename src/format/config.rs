//! Floor 3: checked access to `config.json` and `generation_config.json`. Knows no family.
//!
//! A config remembers which of its keys were asked for, so that a family can refuse what it did not understand instead of
//! running a model wrongly.

use super::{bad, json, shown};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Keys that older versions of the transformers library write into every config: how to generate or what to return,
/// never what the model computes.
const ABOUT_OUTPUT: &[&str] = &[
    "bad_words_ids",
    "begin_suppress_tokens",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "torchscript",
    "typical_p",
    "unsloth_version",
];

/// A JSON object with typed access.
#[derive(Clone, Debug)]
pub struct Config {
    file: String,
    /// Where a nested object is, with a dot at its end: `rope_scaling.`
    at: String,
    map: Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl Config {
    /// The object written in `text`, called `file` in messages.
    ///
    /// # Errors
    /// `Format` for anything else.
    pub fn parse(file: &str, text: &[u8]) -> Result<Config> {
        Config::new(file, json::parse(file, text)?)
    }

    /// An object made elsewhere.
    ///
    /// # Errors
    /// `Format` where `value` is not an object.
    pub fn new(file: &str, value: Value) -> Result<Config> {
        match value {
            Value::Object(map) => {
                Ok(Config { file: file.to_owned(), at: String::new(), map, read: RefCell::default() })
            }
            other => Err(bad(file, format!("expected an object, found {}", kind(&other)))),
        }
    }

    /// The file's name for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The whole object; nothing of it counts as read.
    pub fn object_itself(&self) -> &Map<String, Value> {
        &self.map
    }

    /// A `Format` error about this file.
    pub fn bad(&self, what: &str) -> Error {
        bad(&self.file, what)
    }

    /// The value of `key`, which counts as read.
    pub fn raw(&self, key: &str) -> Option<&Value> {
        let value = self.map.get(key)?;
        self.read.borrow_mut().insert(key.to_owned());
        Some(value)
    }

    /// As `raw`, with null for absent.
    fn given(&self, key: &str) -> Option<&Value> {
        self.raw(key).filter(|value| !value.is_null())
    }

    pub(super) fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.given(key) else { return Ok(None) };
        let refuse = || self.bad(&format!("{}{key}: expected {expected}, found {}", self.at, brief(value)));
        read(value).map(Some).ok_or_else(refuse)
    }

    fn missing(&self, key: &str) -> Error {
        self.bad(&format!("{}{key} is missing", self.at))
    }

    /// A count.
    ///
    /// # Errors
    /// `Format` where it is absent, null or not a whole number that fits.
    pub fn usize(&self, key: &str) -> Result<usize> {
        self.maybe_usize(key)?.ok_or_else(|| self.missing(key))
    }

    /// A count, `default` where absent or null.
    ///
    /// # Errors
    /// `Format` where it is not a whole number that fits.
    pub fn usize_or(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.maybe_usize(key)?.unwrap_or(default))
    }

    /// A count, `None` where absent or null.
    ///
    /// # Errors
    /// As `usize_or`.
    pub fn maybe_usize(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// A number.
    ///
    /// # Errors
    /// `Format` where it is absent, null, not a number or not finite in f32.
    pub fn f32(&self, key: &str) -> Result<f32> {
        self.maybe_f32(key)?.ok_or_else(|| self.missing(key))
    }

    /// A number, `default` where absent or null.
    ///
    /// # Errors
    /// `Format` where it is not a number or not finite in f32.
    pub fn f32_or(&self, key: &str, default: f32) -> Result<f32> {
        Ok(self.maybe_f32(key)?.unwrap_or(default))
    }

    /// A number, `None` where absent or null.
    ///
    /// # Errors
    /// As `f32_or`.
    pub fn maybe_f32(&self, key: &str) -> Result<Option<f32>> {
        let finite = |v: &Value| v.as_f64().map(|n| n as f32).filter(|n| n.is_finite());
        self.typed(key, "a finite number", finite)
    }

    /// A list of numbers.
    ///
    /// # Errors
    /// `Format` where it is absent, null, or holds anything but numbers that are finite in f32.
    pub fn f32s(&self, key: &str) -> Result<Vec<f32>> {
        let finite = |v: &Value| v.as_f64().map(|n| n as f32).filter(|n| n.is_finite());
        let all = |v: &Value| v.as_array()?.iter().map(finite).collect();
        self.typed(key, "a list of finite numbers", all)?.ok_or_else(|| self.missing(key))
    }

    /// A switch, `default` where absent or null.
    ///
    /// # Errors
    /// `Format` where it is not true or false.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A name.
    ///
    /// # Errors
    /// `Format` where it is absent, null, not a string or a long one.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.typed(key, NAME, name)?.ok_or_else(|| self.missing(key))
    }

    /// A name, `default` where absent or null.
    ///
    /// # Errors
    /// `Format` where it is not a string or a long one.
    pub fn str_or<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str> {
        Ok(self.typed(key, NAME, name)?.unwrap_or(default))
    }

    /// A nested object, `None` where absent or null. It keeps its own account of what was read.
    ///
    /// # Errors
    /// `Format` where it is not an object.
    pub fn object(&self, key: &str) -> Result<Option<Config>> {
        let map = self.typed(key, "an object", Value::as_object)?;
        let at = format!("{}{key}.", self.at);
        Ok(map.map(|map| Config { file: self.file.clone(), at, map: map.clone(), read: RefCell::default() }))
    }

    /// A sliding window: `default` where absent, none where null.
    ///
    /// # Errors
    /// `Format` where it is not a positive whole number.
    pub fn window(&self, key: &str, default: Option<u32>) -> Result<Option<u32>> {
        if self.raw(key).is_none() {
            return Ok(default);
        }
        let positive = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
        self.typed(key, "a positive whole number or null", positive)
    }

    /// A token id or a list of them; empty where absent or null.
    ///
    /// # Errors
    /// `Format` for anything else.
    pub fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = |v: &Value| match v {
            Value::Array(list) => list.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        };
        Ok(self.typed(key, "a token id or a list of them", ids)?.unwrap_or_default())
    }

    /// Refuses every key that nobody read, is not in `ignorable`, and does not say "nothing": null, false, or empty.
    ///
    /// # Errors
    /// `Unsupported`, naming the first such key and its value.
    pub fn finish(&self, ignorable: &[&str]) -> Result<()> {
        let read = self.read.borrow();
        let known = |key: &str| read.contains(key) || ignorable.contains(&key) || ABOUT_OUTPUT.contains(&key);
        // Feed-forward in pieces of 0 positions is the library's way to say: not in pieces.
        let neutral = |key: &str, v: &Value| nothing(v) || (key == "chunk_size_feed_forward" && *v == 0);
        match self.map.iter().find(|(key, value)| !known(key) && !neutral(key, value)) {
            None => Ok(()),
            Some((key, value)) => {
                let what = format!("{}{} = {}", self.at, shown(key), brief(value));
                Err(Error::Unsupported { file: self.file.clone(), what })
            }
        }
    }
}

/// What [`name`] expects.
const NAME: &str = "a string of at most 256 bytes";

/// A string that is short enough for a message.
fn name(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| text.len() <= 256)
}

/// Whether a value switches nothing on.
fn nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a switch",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value for a message: containers by their kind alone.
pub(crate) fn brief(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", shown(text)),
        Value::Array(_) | Value::Object(_) => kind(value).to_owned(),
        other => other.to_string(),
    }
}
