//! Floor 6: the answers of the calls that read texts in a build without the feature `tokenizer`.

use super::encode::{Pair, Reading, inlaid_mark};
use crate::error::{Error, Result};
use crate::model::Model;

fn lacking<T>() -> Result<T> {
    Err(Error::Unsupported { file: "this build".to_owned(), what: "the feature `tokenizer`".to_owned() })
}

pub(super) fn width(model: &Model) -> usize {
    let arch = model.arch();
    arch.encoder.as_ref().unwrap_or(arch.last()).d_model
}

pub(super) fn embed(_: &Model, _: &[Pair], how: Reading) -> Result<Vec<f32>> {
    let Reading { rows: _, normalize: _, truncate: _, progress: _ } = how;
    lacking()
}

pub(super) fn classify(_: &Model, _: &[Pair], _: Reading) -> Result<(Vec<f32>, Vec<f32>)> {
    lacking()
}

pub(super) fn guesses(_: &Model, _: &[Pair], _: usize, _: Reading) -> Result<Vec<inlaid_mark>> {
    lacking()
}

pub(super) fn tags(_: &Model, _: &[Pair], _: Reading) -> Result<Vec<inlaid_mark>> {
    lacking()
}
