//! Floor 6: the answers of the calls that read texts in a build without the feature `tokenizer`.

use super::encode::{Pair, Reading, inlaid_mark};
use super::speech::lacking;
use crate::error::Result;
use crate::model::Model;

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
