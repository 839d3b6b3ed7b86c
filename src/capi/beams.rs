//! Floor 6: answers of encoder-decoders, and beam search. Knows ids.

use super::args::{room, set, slice};
use super::error::{argument, inlaid_error};
use super::guard::{guard, with};
use super::model::inlaid_model;
use super::session::{inlaid_session, using};
use super::versioned::{Versioned, init, read};
use crate::beam::{self, BeamConfig, Hypothesis, Prompt};
use crate::error::Result;
use crate::model::Model;
use crate::rules::EarlyStopping;
use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;

/// As the model's files say; without a word there, `INLAID_STOP_LIKELY`.
pub const INLAID_STOP_AUTO: i32 = 0;
/// The search ends when no beam is better, at its present length, than the worst answer.
pub const INLAID_STOP_LIKELY: i32 = 1;
/// The search ends when there are as many answers as beams.
pub const INLAID_STOP_FULL: i32 = 2;
/// The search ends when no beam can become better.
pub const INLAID_STOP_NEVER: i32 = 3;

/// How to search. Fill it with `inlaid_beam_config_init`, then change what you need.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_beam_config {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// Beams, from 1 to 64; 0 (default): as the model's files say, else 4.
    pub beams: u32,
    /// Most tokens of an answer; default 128.
    pub max_tokens: u32,
    /// When to stop, `INLAID_STOP_...`, default `INLAID_STOP_AUTO`.
    pub early_stopping: i32,
    /// An answer's log-probability is divided by its length to this power; NaN (default): as the model's files say, else 1.
    pub length_penalty: f32,
    /// As of `inlaid_session_config`.
    pub ignore_rules: u32,
}

// SAFETY: six words.
unsafe impl Versioned for inlaid_beam_config {
    const NAME: &'static str = "beam config";
    const SIZES: &'static [usize] = &[size_of::<Self>()];

    fn defaults() -> Self {
        inlaid_beam_config {
            struct_size: size_of::<Self>() as u32,
            beams: 0,
            max_tokens: 128,
            early_stopping: INLAID_STOP_AUTO,
            length_penalty: f32::NAN,
            ignore_rules: 0,
        }
    }
}

/// An answer of a search: `len` of the ids that the call wrote, from `at` on. An element of an array: it never grows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_answer {
    /// The answer's first id among all that were written.
    pub at: usize,
    /// Its ids, a closing end token included.
    pub len: usize,
    /// Its log-probability over its length to the power of the penalty.
    pub score: f32,
    /// Unused.
    pub reserved: u32,
}

/// Fills `*config`, of `struct_size` bytes, with the defaults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_beam_config_init(config: *mut inlaid_beam_config, struct_size: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { guard(null_mut(), || init(config, struct_size)) }
}

/// The token that a decoder beside an encoder begins every answer with.
///
/// Errors: `INLAID_ERROR_UNSUPPORTED` where the model's files name none. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_model_first_token(
    model: *const inlaid_model,
    id: *mut u32,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { with(model, err, |handle: &inlaid_model| set("id", id, handle.model.first_token()?)) }
}

/// Gives a session of an encoder-decoder the `n` ids that its answer is about: runs the encoder over them and forgets all
/// tokens of the session. Feed the decoder's first token next (`inlaid_model_first_token`), then step.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for a model without an encoder, no ids, or ids beyond its vocabulary, `_CONTEXT_FULL` for
/// more than the model can hold, `_CANCELLED`, `_MEMORY`, `_BUDGET`, `_BUSY`; the session is then as it was before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_set_source(
    session: *mut inlaid_session,
    ids: *const u32,
    n: usize,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe { using(session, err, |session| session.set_source(slice("ids", ids, n)?)) }
}

/// The most likely answers as a whole (beam search). `source` is the text of an encoder-decoder, empty otherwise; `prompt` is
/// what the decoder begins with, and may be empty beside a source. Writes the answers, best first, to `answers` (room for as
/// many as there are beams) and their ids, one answer after the other, to `ids` (room for `beams * max_tokens`). `*n`
/// receives how many answers there are. `config` may be NULL.
///
/// Errors: `INLAID_ERROR_ARGUMENT`, `_BUFFER`, `_CONTEXT_FULL`, `_MEMORY`, `_BUDGET`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_beam_search(
    model: *const inlaid_model,
    source: *const u32,
    n_source: usize,
    prompt: *const u32,
    n_prompt: usize,
    config: *const inlaid_beam_config,
    answers: *mut inlaid_answer,
    n_answers: usize,
    ids: *mut u32,
    n_ids: usize,
    n: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        // SAFETY: the caller's promise, for each pointer.
        unsafe {
            let config = config_of(&handle.model, &read(config)?)?;
            let (source, own) = (slice("source", source, n_source)?, slice("prompt", prompt, n_prompt)?);
            let first = match (own.is_empty(), source.is_empty()) {
                (true, false) => &[handle.model.first_token()?][..],
                _ => own,
            };
            let needed = config.beams.saturating_mul(config.max_tokens);
            room("answers", answers, n_answers, config.beams)?;
            room("ids", ids, n_ids, needed)?;
            let (prompt, never) = (Prompt { source, ids: first }, AtomicBool::new(false));
            let found = beam::search(&handle.model, &[prompt], &config, &never, &mut None)?;
            let found = found.into_iter().next().unwrap_or_default();
            set("n", n, found.len())?;
            put(&found, answers, ids);
            Ok(())
        }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

/// # Safety
/// There is room for all of `found`.
unsafe fn put(found: &[Hypothesis], answers: *mut inlaid_answer, ids: *mut u32) {
    let mut at = 0;
    for (i, one) in found.iter().enumerate() {
        let len = one.ids.len();
        // SAFETY: the caller's promise.
        unsafe {
            ids.add(at).copy_from_nonoverlapping(one.ids.as_ptr(), len);
            answers.add(i).write(inlaid_answer { at, len, score: one.score, reserved: 0 });
        }
        at += len;
    }
}

fn config_of(model: &Model, c: &inlaid_beam_config) -> Result<BeamConfig> {
    let own = model.generation();
    let mut rules = own.rules.clone();
    match c.ignore_rules {
        0 => {}
        1 => rules = crate::rules::Rules { ends: rules.ends, ..Default::default() },
        other => return Err(argument("ignore_rules", format!("expected 0 or 1, found {other}"))),
    }
    let early_stopping = match c.early_stopping {
        INLAID_STOP_AUTO => own.early_stopping,
        INLAID_STOP_LIKELY => EarlyStopping::Likely,
        INLAID_STOP_FULL => EarlyStopping::Full,
        INLAID_STOP_NEVER => EarlyStopping::Never,
        other => return Err(argument("early_stopping", format!("expected INLAID_STOP_..., found {other}"))),
    };
    let given = Some(c.length_penalty).filter(|penalty| !penalty.is_nan());
    if given.is_some_and(|penalty| !penalty.is_finite()) {
        return Err(argument("length_penalty", "expected a finite number"));
    }
    Ok(BeamConfig {
        beams: if c.beams == 0 { own.num_beams.unwrap_or(4).clamp(1, 64) } else { c.beams as usize },
        max_tokens: c.max_tokens as usize,
        length_penalty: given.or(own.length_penalty).unwrap_or(1.0),
        early_stopping,
        rules,
    })
}
