//! Floor 5: classes of whole texts. Knows no tokens.

use super::{Call, Input, encode_all, expect, run, softmax};
use crate::arch::Task;
use crate::encode::Ask;
use crate::error::Result;
use crate::model::Model;

/// A class of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Its number.
    pub id: usize,
    /// Its name.
    pub label: String,
    /// Its logit; of a model with one class, the score that it was trained to give (a reward, say).
    pub logit: f32,
    /// Its probability: classes exclude each other, unless the model's files say otherwise. Of one class: of its being so.
    pub probability: f32,
}

/// All classes of each of `inputs`, most likely first.
///
/// # Errors
/// `Argument` for a model that does not classify; otherwise as [`embed`](super::embed()).
pub fn classify(model: &Model, inputs: &[Input], mut call: Call) -> Result<Vec<Vec<Class>>> {
    expect(model, Task::Classify)?;
    let encoded = encode_all(model, inputs, call.truncate)?;
    let mut out = Vec::new();
    run(model, &encoded, Ask::Head, &mut call, &mut |_, logits, _| {
        let apart = logits.len() == 1 || model.task().multi_label;
        let sigmoid = |x: &f32| 1.0 / (1.0 + libm::expf(-x));
        let probabilities = if apart { logits.iter().map(sigmoid).collect() } else { softmax(logits) };
        let class = |(id, (logit, probability)): (usize, (&f32, f32))| Class {
            id,
            label: model.label(id),
            logit: *logit,
            probability,
        };
        let mut classes: Vec<Class> = logits.iter().zip(probabilities).enumerate().map(class).collect();
        classes.sort_by(|a, b| b.logit.total_cmp(&a.logit));
        out.push(classes);
    })?;
    Ok(out)
}
