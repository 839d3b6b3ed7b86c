//! Floor 6: what a session is fed with, and asked: tokens in, tokens out, moving back, times. Knows no models.

use super::args::{fill, maybe_set, set, slice, writable};
use super::error::{argument, inlaid_error};
use super::info::micros;
use super::sampler::{inlaid_sampler, sampler};
use super::session::{inlaid_session, using};
use super::versioned::{Versioned, write};
use crate::session::{Session, Timings};
use std::mem::offset_of;

/// Time spent and tokens done since a session began. Set `struct_size`, then call `inlaid_session_timings`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_timings {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Time in runs of two tokens or more.
    pub prefill_us: u64,
    /// Tokens of those.
    pub prefill_tokens: u64,
    /// Time in runs of one token, or of one token and guesses. A pass that several sessions share counts whole for each.
    pub decode_us: u64,
    /// Tokens of those; of guesses, the right ones.
    pub decode_tokens: u64,
    /// Time spent choosing tokens.
    pub sample_us: u64,
    /// Tokens chosen.
    pub sampled_tokens: u64,
    /// Time spent guessing tokens.
    pub draft_us: u64,
    /// Tokens guessed.
    pub drafted_tokens: u64,
    /// Guesses that were right.
    pub accepted_tokens: u64,
    /// Tokens whose keys and values were there already, because another session of the model began with the same ones.
    pub shared_tokens: u64,
}

/// Bytes of the struct before `draft_us` was added.
const FIRST_SIZE: usize = offset_of!(inlaid_timings, draft_us);

// SAFETY: two words and ten u64.
unsafe impl Versioned for inlaid_timings {
    const NAME: &'static str = "timings";
    const SIZES: &'static [usize] = &[FIRST_SIZE, size_of::<Self>()];

    fn defaults() -> Self {
        timings_of(Timings::default())
    }
}

fn timings_of(t: Timings) -> inlaid_timings {
    inlaid_timings {
        struct_size: size_of::<inlaid_timings>() as u32,
        reserved: 0,
        prefill_us: micros(t.prefill),
        prefill_tokens: t.prefill_tokens,
        decode_us: micros(t.decode),
        decode_tokens: t.decode_tokens,
        sample_us: micros(t.sample),
        sampled_tokens: t.sampled_tokens,
        draft_us: micros(t.draft),
        drafted_tokens: t.drafted_tokens,
        accepted_tokens: t.accepted_tokens,
        shared_tokens: t.shared_tokens,
    }
}

/// Adds `n` tokens and runs them, in chunks.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for ids beyond the vocabulary, `_CONTEXT_FULL`, `_CANCELLED`, `_MEMORY`, `_BUDGET`,
/// `_BUSY`; the session is then as it was before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_prefill(
    session: *mut inlaid_session,
    ids: *const u32,
    n: usize,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe { using(session, err, |session| session.prefill(slice("ids", ids, n)?)) }
}

/// Adds a token that the host chose itself. It runs with the next call that needs logits.
///
/// Errors: `INLAID_ERROR_ARGUMENT`, `_CONTEXT_FULL`, `_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_accept(
    session: *mut inlaid_session,
    id: u32,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { using(session, err, |session| session.accept(id)) }
}

/// Chooses the next token by the session's sampler, adds it and writes it to `*id`. Allocates nothing after the first.
/// The model's end tokens are returned like any other.
///
/// Errors: `INLAID_ERROR_ARGUMENT` where nothing was fed yet; otherwise as of `inlaid_session_prefill`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_step(
    session: *mut inlaid_session,
    id: *mut u32,
    err: *mut inlaid_error,
) -> i32 {
    let call = |session: &mut Session| {
        writable("id", id)?;
        // SAFETY: the caller's promise.
        unsafe { set("id", id, session.step()?) }
    };
    // SAFETY: the caller's promise.
    unsafe { using(session, err, call) }
}

/// Forgets the tokens from position `len` on.
///
/// Errors: `INLAID_ERROR_ARGUMENT` where the session holds fewer, `_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_rewind(
    session: *mut inlaid_session,
    len: usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |session: &mut Session| {
        let held = session.tokens().len();
        if len > held {
            return Err(argument("len", format!("expected at most the {held} tokens held, found {len}")));
        }
        session.rewind(len);
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { using(session, err, call) }
}

/// Makes `ids` the conversation: what the cache already holds of its beginning stays, the rest is forgotten, and the
/// remainder runs with the next call that needs logits. `*reused` receives the number of tokens that stayed; it may be
/// NULL.
///
/// Errors: `INLAID_ERROR_ARGUMENT`, `_CONTEXT_FULL`, `_BUSY`; the session is then as it was before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_resume(
    session: *mut inlaid_session,
    ids: *const u32,
    n: usize,
    reused: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |session: &mut Session| {
        // SAFETY: the caller's promise.
        let stayed = session.resume(unsafe { slice("ids", ids, n) }?)?;
        // SAFETY: the caller's promise.
        unsafe { maybe_set("reused", reused, stayed) }
    };
    // SAFETY: the caller's promise.
    unsafe { using(session, err, call) }
}

/// The tokens of the conversation. `*n` receives their number; with `ids` NULL and `capacity` 0 nothing else is written.
///
/// Errors: `INLAID_ERROR_BUFFER` where `capacity` ids are too few, `_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_tokens(
    session: *mut inlaid_session,
    ids: *mut u32,
    capacity: usize,
    n: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe { using(session, err, |session| fill("ids", session.tokens(), ids, capacity, n)) }
}

/// The number of tokens of the conversation.
///
/// Errors: `INLAID_ERROR_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_len(
    session: *mut inlaid_session,
    n: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe { using(session, err, |session| set("n", n, session.tokens().len())) }
}

/// The number of tokens that the session can hold.
///
/// Errors: `INLAID_ERROR_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_context(
    session: *mut inlaid_session,
    n: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe { using(session, err, |session| set("n", n, session.context())) }
}

/// Chooses tokens by other settings from now on; NULL: greedily.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for a setting out of its range, `_BUSY`; the settings are then as before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_set_sampler(
    session: *mut inlaid_session,
    settings: *const inlaid_sampler,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe { using(session, err, |session| session.set_sampler(sampler(settings)?)) }
}

/// Time spent and tokens done since the session began (a fork begins anew).
///
/// Errors: `INLAID_ERROR_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_timings(
    session: *mut inlaid_session,
    timings: *mut inlaid_timings,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe { using(session, err, |session| write(timings, timings_of(session.timings()))) }
}
