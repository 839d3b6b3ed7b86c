//! Floor 6: texts for the C calls of `encode`, with the feature `tokenizer`.

use super::encode::{Pair, Reading, inlaid_mark};
use crate::error::Result;
use crate::model::Model;
use crate::task::{self, Call, EmbedConfig, Input};

fn inputs<'a>(texts: &[Pair<'a>]) -> Vec<Input<'a>> {
    texts.iter().map(|(text, second)| Input { text, second: *second }).collect()
}

fn call(how: Reading) -> Call {
    Call { truncate: how.truncate, cancel: None, progress: how.progress }
}

/// Vectors, one after the other.
pub(super) fn embed(model: &Model, texts: &[Pair], how: Reading) -> Result<Vec<f32>> {
    let config = EmbedConfig { rows: how.rows, normalize: how.normalize };
    Ok(task::embed(model, &inputs(texts), &config, call(how))?.values)
}

/// Logits and probabilities in the order of the classes' numbers.
pub(super) fn classify(model: &Model, texts: &[Pair], how: Reading) -> Result<(Vec<f32>, Vec<f32>)> {
    let mut all = task::classify(model, &inputs(texts), call(how))?;
    all.iter_mut().for_each(|classes| classes.sort_by_key(|class| class.id));
    Ok(all.iter().flatten().map(|class| (class.logit, class.probability)).unzip())
}

/// Guesses for the masks of one text.
pub(super) fn guesses(model: &Model, text: &[Pair], top: usize, how: Reading) -> Result<Vec<inlaid_mark>> {
    let all = task::fill(model, &inputs(text), top, call(how))?;
    let masks = all.iter().flatten().enumerate();
    let marks = masks.flat_map(|(mask, guesses)| {
        guesses.iter().map(move |guess| inlaid_mark {
            id: guess.id,
            label: mask as u32,
            start: 0,
            end: 0,
            probability: guess.probability,
        })
    });
    Ok(marks.collect())
}

/// The tokens of one text.
pub(super) fn tags(model: &Model, text: &[Pair], how: Reading) -> Result<Vec<inlaid_mark>> {
    let all = task::tag(model, &inputs(text), call(how))?;
    let marks = all.iter().flatten().map(|tag| inlaid_mark {
        id: tag.id,
        label: tag.class as u32,
        start: tag.span.0 as u32,
        end: tag.span.1 as u32,
        probability: tag.probability,
    });
    Ok(marks.collect())
}
