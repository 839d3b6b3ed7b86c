//! Floor 5: answers that stand in a text (Rajpurkar et al. 2016). Knows no tensors.

use super::{Call, Input, encode_all, expect, run, softmax};
use crate::arch::Task;
use crate::encode::Ask;
use crate::error::{Error, Result};
use crate::model::Model;

/// Most tokens of an answer.
const LONGEST: usize = 30;

/// Where an answer stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// First character in the second text, and the one after the last.
    pub span: (usize, usize),
    /// The probabilities of its first and its last token, multiplied.
    pub probability: f32,
}

/// The most likely answer to each question (the first text) in its second text; none where that has no tokens.
///
/// # Errors
/// `Argument` for a model that does not answer questions, or a question without a text; otherwise as
/// [`embed`](super::embed()).
pub fn answer(model: &Model, inputs: &[Input], mut call: Call) -> Result<Vec<Option<Answer>>> {
    expect(model, Task::Span)?;
    if let Some(i) = inputs.iter().position(|input| input.second.is_none()) {
        let what = format!("question {i} comes without the text that its answer stands in");
        return Err(Error::Argument { name: "texts", what });
    }
    let encoded = encode_all(model, inputs, call.truncate)?;
    let mut out = Vec::new();
    run(model, &encoded, Ask::Head, &mut call, &mut |i, rows, _| {
        let own: Vec<usize> =
            (0..encoded[i].ids.len()).filter(|at| encoded[i].texts[*at] == Some(1)).collect();
        let column = |c: usize| softmax(&own.iter().map(|at| rows[2 * at + c]).collect::<Vec<f32>>());
        let (starts, ends) = (column(0), column(1));
        let pairs = (0..own.len()).flat_map(|s| (s..own.len().min(s + LONGEST)).map(move |e| (s, e)));
        let best = pairs.max_by(|a, b| (starts[a.0] * ends[a.1]).total_cmp(&(starts[b.0] * ends[b.1])));
        out.push(best.map(|(s, e)| {
            let span = (encoded[i].spans[own[s]].0, encoded[i].spans[own[e]].1);
            let text = inputs[i].second.unwrap_or_default();
            Answer {
                text: text.chars().skip(span.0).take(span.1.saturating_sub(span.0)).collect(),
                span,
                probability: starts[s] * ends[e],
            }
        }));
    })?;
    Ok(out)
}
