//! Floor 5: hidden tokens guessed (Devlin et al. 2019; Taylor 1953). Knows no tensors.

use super::{Call, Input, encode_all, expect, run};
use crate::arch::Task;
use crate::encode::Ask;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::sample::top_logprobs;

/// A guess for a hidden token.
#[derive(Clone, Debug, PartialEq)]
pub struct Filled {
    /// The token.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Its probability.
    pub probability: f32,
}

/// The `n` most likely tokens for each mask of each of `inputs`, most likely first.
///
/// # Errors
/// `Argument` for a model that was not trained to fill masks, or a text without one; otherwise as [`embed`](super::embed()).
pub fn fill(model: &Model, inputs: &[Input], n: usize, mut call: Call) -> Result<Vec<Vec<Vec<Filled>>>> {
    expect(model, Task::MaskedLm)?;
    let tokenizer = model.tokenizer()?;
    let none = || Error::Tokenizer("the tokenizer has no token for what is hidden".to_owned());
    let mask = tokenizer.mask().ok_or_else(none)?;
    let encoded = encode_all(model, inputs, call.truncate)?;
    let places = |ids: &[u32]| (0..).zip(ids).filter(|(_, id)| **id == mask).map(|(at, _)| at).collect();
    let masks: Vec<Vec<u32>> = encoded.iter().map(|encoded| places(&encoded.ids)).collect();
    if let Some(i) = masks.iter().position(Vec::is_empty) {
        let name = tokenizer.id_to_token(mask).unwrap_or_default();
        return Err(Error::Argument { name: "texts", what: format!("text {i} has no {name}") });
    }
    let mut out = Vec::new();
    run(model, &encoded, Ask::HeadAt(&masks), &mut call, &mut |_, rows, vocab| {
        let guess = |(id, logprob): (u32, f32)| Filled {
            id,
            text: tokenizer.decode(&[id], false).unwrap_or_default().trim().to_owned(),
            probability: libm::expf(logprob),
        };
        let rows = rows.chunks_exact(vocab.max(1));
        out.push(rows.map(|row| top_logprobs(row, n).into_iter().map(guess).collect()).collect());
    })?;
    Ok(out)
}
