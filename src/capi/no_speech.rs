//! Floor 6: the answers of the text calls in a build without the feature `tokenizer`.

use super::generate::Wish;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::session::Session;
use std::ops::ControlFlow;

/// What every call here answers.
pub(super) fn lacking<T>() -> Result<T> {
    Err(Error::Unsupported { file: "this build".to_owned(), what: "the feature `tokenizer`".to_owned() })
}

pub(super) fn has(_: &Model) -> bool {
    false
}

pub(super) fn bos(_: &Model) -> Option<u32> {
    None
}

pub(super) fn encode(_: &Model, _: &str, _: bool, _: bool) -> Result<Vec<u32>> {
    lacking()
}

pub(super) fn decode(_: &Model, _: &[u32], _: bool) -> Result<String> {
    lacking()
}

pub(super) fn name(_: &Model, _: u32) -> Result<String> {
    lacking()
}

pub(super) fn id(_: &Model, _: &str) -> Result<u32> {
    lacking()
}

pub(super) fn answer(
    _: &mut Session,
    _: Wish,
    _: &mut dyn FnMut(u32, &str) -> ControlFlow<()>,
) -> Result<(i32, usize)> {
    lacking()
}
