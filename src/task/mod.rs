//! Floor 5: what models do for people with texts: vectors, classes, hidden words, marks on tokens, answers, scores. Knows
//! text and what a model says of ids, and no tensors.

mod classify;
mod embed;
mod fill;
mod score;
mod span;
mod tag;

pub use classify::{Class, classify};
pub use embed::{EmbedConfig, Embeddings, embed};
pub use fill::{Filled, fill};
pub use score::{Score, score};
pub use span::{Answer, answer};
pub use tag::{Tag, tag};

use crate::arch::Task;
use crate::encode::{self, Ask, Text};
use crate::error::{Error, Result};
use crate::format::source::Progress;
use crate::model::Model;
use crate::tokenizer::Encoded;
use std::sync::atomic::AtomicBool;

/// A text, or two that belong together: a question and where its answer stands, two sentences to compare.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The text.
    pub text: &'a str,
    /// The one that belongs to it.
    pub second: Option<&'a str>,
}

impl<'a> Input<'a> {
    /// A text alone.
    #[must_use]
    pub fn new(text: &'a str) -> Input<'a> {
        Input { text, second: None }
    }
}

/// How a call over many texts is run.
#[derive(Default)]
pub struct Call<'a> {
    /// Texts that are too long lose their end. Without, they are an error.
    pub truncate: bool,
    /// Set by another thread to end the call with `Cancelled`.
    pub cancel: Option<&'a AtomicBool>,
    /// Told texts done and texts in all; `Break` cancels.
    pub progress: Option<Progress<'a>>,
}

/// Most tokens of a text.
fn most_tokens(model: &Model) -> usize {
    let most = model.arch().max_positions;
    model.task().max_tokens.map_or(most, |own| own.min(most))
}

/// The tokens of every input, within what the model can hold.
fn encode_all(model: &Model, inputs: &[Input], truncate: bool) -> Result<Vec<Encoded>> {
    let (tokenizer, most) = (model.tokenizer()?, most_tokens(model));
    let one = |(i, input): (usize, &Input)| {
        let mut encoded = tokenizer.encode_pair(input.text, input.second)?;
        let found = encoded.ids.len();
        if found == 0 {
            return Err(Error::Argument { name: "texts", what: format!("text {i} has no tokens") });
        }
        if found > most && !truncate {
            let what =
                format!("text {i} has {found} tokens, the model takes {most}: shorten it, or let it be cut");
            return Err(Error::Argument { name: "texts", what });
        }
        cut(&mut encoded, most);
        Ok(encoded)
    };
    inputs.iter().enumerate().map(one).collect()
}

/// Takes tokens from the end of the longer text, so that what was added around stays.
fn cut(encoded: &mut Encoded, most: usize) {
    while encoded.ids.len() > most {
        let count = |text| encoded.texts.iter().filter(|t| **t == Some(text)).count();
        let longer = usize::from(count(1) > count(0));
        let last = encoded.texts.iter().rposition(|text| *text == Some(longer));
        let at = last.unwrap_or(encoded.ids.len() - 1);
        encoded.ids.remove(at);
        encoded.types.remove(at);
        encoded.spans.remove(at);
        encoded.texts.remove(at);
    }
}

/// Runs encoded inputs, and hands `each` the number of one, its rows and how long a row is.
fn run(
    model: &Model,
    inputs: &[Encoded],
    ask: Ask,
    call: &mut Call,
    each: &mut dyn FnMut(usize, &[f32], usize),
) -> Result<()> {
    let typed = model.arch().last().embed.types > 0;
    let types = |e: &'_ Encoded| if typed { e.types.len() } else { 0 };
    let texts: Vec<Text> = inputs.iter().map(|e| Text { ids: &e.ids, types: &e.types[..types(e)] }).collect();
    let never = AtomicBool::new(false);
    encode::run(model, &texts, ask, call.cancel.unwrap_or(&never), &mut call.progress, each)
}

/// That the model was trained for a task.
fn expect(model: &Model, task: Task) -> Result<()> {
    let found = model.arch().head.task;
    if found == task && model.has_head() {
        return Ok(());
    }
    let what = format!("expected a model for {}, found one for {}", task.name(), found.name());
    Err(Error::Argument { name: "model", what })
}

/// Probabilities of classes that exclude each other.
fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|x| libm::exp(f64::from(x - max))).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| (weight / sum) as f32).collect()
}

/// The largest of `values`, with its number; of equals the first.
fn largest(values: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (i, value) in values.iter().enumerate() {
        if *value > best.1 {
            best = (i, *value);
        }
    }
    best
}
