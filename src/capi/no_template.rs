//! Floor 6: the answers of the conversation calls in a build without the feature `chat-template`.

use crate::error::{Error, Result};
use crate::model::Model;
use serde_json::Value as Json;

pub(super) fn has(_: &Model) -> bool {
    false
}

pub(super) fn render(
    _: &Model,
    _: &Json,
    _: Option<&Json>,
    _: Option<&Json>,
    _: bool,
    _: Option<u64>,
) -> Result<String> {
    Err(Error::Unsupported { file: "this build".to_owned(), what: "the feature `chat-template`".to_owned() })
}
