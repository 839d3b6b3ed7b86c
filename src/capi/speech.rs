//! Floor 6: text and tokens for the C calls, with the feature `tokenizer`.

use super::generate::*;
use crate::error::{Error, Result};
use crate::generate::{Finish, GenerateConfig, generate};
use crate::model::Model;
use crate::session::Session;
use std::ops::ControlFlow;

/// Whether the model has a tokenizer.
pub(super) fn has(model: &Model) -> bool {
    model.tokenizer().is_ok()
}

/// The token that begins a text.
pub(super) fn bos(model: &Model) -> Option<u32> {
    model.tokenizer().ok()?.bos()
}

/// The tokens of a text.
pub(super) fn encode(model: &Model, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
    model.tokenizer()?.encode(text, add_special, parse_special)
}

/// The text of tokens.
pub(super) fn decode(model: &Model, ids: &[u32], skip_special: bool) -> Result<String> {
    model.tokenizer()?.decode(ids, skip_special)
}

/// What a token is called.
pub(super) fn name(model: &Model, id: u32) -> Result<String> {
    let tokenizer = model.tokenizer()?;
    let none =
        || Error::Tokenizer(format!("expected ids of the {} tokens, found {id}", tokenizer.vocab_size()));
    tokenizer.id_to_token(id).ok_or_else(none)
}

/// The token of a name.
pub(super) fn id(model: &Model, name: &str) -> Result<u32> {
    let none = || Error::Tokenizer(format!("no token is called `{}`", crate::format::shown(name)));
    model.tokenizer()?.token_to_id(name).ok_or_else(none)
}

/// Writes an answer; returns why it ended and its number of tokens.
pub(super) fn answer(
    session: &mut Session,
    wish: Wish,
    each: &mut dyn FnMut(u32, &str) -> ControlFlow<()>,
) -> Result<(i32, usize)> {
    let Wish { max_tokens, stop, stop_ids, ignore_end } = wish;
    let done = generate(session, &GenerateConfig { max_tokens, stop, stop_ids, ignore_end }, each)?;
    let reason = match done.finish {
        Finish::Length => INLAID_FINISH_LENGTH,
        Finish::End => INLAID_FINISH_END,
        Finish::Stop => INLAID_FINISH_STOP,
        Finish::Callback => INLAID_FINISH_CALLBACK,
        Finish::Cancelled => INLAID_FINISH_CANCELLED,
        Finish::Context => INLAID_FINISH_CONTEXT,
    };
    Ok((reason, done.ids.len()))
}
