//! Floor 3: checked access to `generation_config.json`. Knows no family.

use super::config::Config;
use crate::error::Result;
use crate::rules::{EarlyStopping, Rules};
use serde_json::Value;

/// What a model's authors suggest for generation. A missing value is left to the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// The token that starts a text.
    pub bos_token_id: Option<u32>,
    /// The token that fills batches.
    pub pad_token_id: Option<u32>,
    /// Whether to sample at all.
    pub do_sample: Option<bool>,
    /// Softmax temperature.
    pub temperature: Option<f32>,
    /// Most likely tokens kept.
    pub top_k: Option<usize>,
    /// Probability mass kept.
    pub top_p: Option<f32>,
    /// Least probability kept, as a share of the largest.
    pub min_p: Option<f32>,
    /// Divisor of the logits of tokens seen before (Keskar et al. 2019).
    pub repetition_penalty: Option<f32>,
    /// Tokens of prompt and answer together.
    pub max_length: Option<usize>,
    /// Tokens of the answer.
    pub max_new_tokens: Option<usize>,
    /// The decoder's first token, of an encoder-decoder.
    pub decoder_start_token_id: Option<u32>,
    /// Beams of a search.
    pub num_beams: Option<usize>,
    /// The power of an answer's length that its score is divided by.
    pub length_penalty: Option<f32>,
    /// When a search ends.
    pub early_stopping: EarlyStopping,
    /// What may not and what must appear.
    pub rules: Rules,
}

impl GenerationConfig {
    /// From the object of `generation_config.json`; what it lacks comes from `config`, where older files have it.
    ///
    /// # Errors
    /// `Format` for values of the wrong type.
    pub fn read(own: Option<&Config>, config: &Config) -> Result<GenerationConfig> {
        let of = |key: &str| {
            own.filter(|own| own.object_itself().get(key).is_some_and(|v| !v.is_null())).unwrap_or(config)
        };
        let ids = |key: &str| match own.map(|own| own.ids(key)).transpose()? {
            Some(ids) if !ids.is_empty() => Ok(ids),
            _ => config.ids(key),
        };
        let id = |key: &str| ids(key).map(|ids| ids.first().copied());
        let ends = ids("eos_token_id")?;
        let out = GenerationConfig {
            bos_token_id: id("bos_token_id")?,
            pad_token_id: id("pad_token_id")?,
            decoder_start_token_id: id("decoder_start_token_id")?,
            max_length: of("max_length").maybe_usize("max_length")?,
            num_beams: of("num_beams").maybe_usize("num_beams")?,
            length_penalty: of("length_penalty").maybe_f32("length_penalty")?,
            early_stopping: early_stopping(of("early_stopping"))?,
            rules: Rules {
                ends: ends.clone(),
                min_length: of("min_length").usize_or("min_length", 0)?,
                min_new_tokens: of("min_new_tokens").usize_or("min_new_tokens", 0)?,
                no_repeat_ngram: of("no_repeat_ngram_size").usize_or("no_repeat_ngram_size", 0)?,
                forced_first: id("forced_bos_token_id")?,
                forced_last: id("forced_eos_token_id")?,
                suppress: ids("suppress_tokens")?,
                begin_suppress: ids("begin_suppress_tokens")?,
                bad_words: words(of("bad_words_ids"))?,
            },
            eos_token_ids: ends,
            ..Default::default()
        };
        let Some(own) = own else { return Ok(out) };
        Ok(GenerationConfig {
            do_sample: own.typed("do_sample", "true or false", Value::as_bool)?,
            temperature: own.maybe_f32("temperature")?,
            top_k: own.maybe_usize("top_k")?,
            top_p: own.maybe_f32("top_p")?,
            min_p: own.maybe_f32("min_p")?,
            repetition_penalty: own.maybe_f32("repetition_penalty")?,
            max_new_tokens: own.maybe_usize("max_new_tokens")?,
            ..out
        })
    }
}

fn early_stopping(c: &Config) -> Result<EarlyStopping> {
    let known = |v: &Value| match v {
        Value::Bool(true) => Some(EarlyStopping::Full),
        Value::Bool(false) => Some(EarlyStopping::Likely),
        Value::String(text) if text == "never" => Some(EarlyStopping::Never),
        _ => None,
    };
    Ok(c.typed("early_stopping", "true, false or \"never\"", known)?.unwrap_or_default())
}

/// Lists of tokens.
fn words(c: &Config) -> Result<Vec<Vec<u32>>> {
    let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
    let word = |v: &Value| v.as_array()?.iter().map(id).collect();
    let all = |v: &Value| v.as_array()?.iter().map(word).collect();
    Ok(c.typed("bad_words_ids", "lists of token ids", all)?.unwrap_or_default())
}
