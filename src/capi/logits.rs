//! Floor 6: numbers out of a session: logits and log-probabilities.

use super::args::{room, set, slice, writable};
use super::error::{argument, inlaid_error};
use super::session::{inlaid_session, using};
use crate::error::Result;
use crate::session::Session;

/// The logits after the last token: `*logits` receives a pointer to `*n` floats, one for each token of the vocabulary. It
/// is valid until the next call on this session, whatever that is.
///
/// Errors: `INLAID_ERROR_ARGUMENT` where nothing was fed yet; otherwise as of `inlaid_session_prefill`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_logits(
    session: *mut inlaid_session,
    logits: *mut *const f32,
    n: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |session: &mut Session| {
        writable("logits", logits)?;
        let found = session.logits()?;
        // SAFETY: the caller's promise, for each pointer.
        unsafe {
            set("n", n, found.len())?;
            set("logits", logits, found.as_ptr())
        }
    };
    // SAFETY: the caller's promise.
    unsafe { using(session, err, call) }
}

/// Adds `n` tokens, runs them, and writes the logits after each of them to `logits`: `n` rows of as many floats as the
/// vocabulary has tokens. `capacity` counts floats. Feed long texts in pieces.
///
/// Errors: `INLAID_ERROR_BUFFER` where there is not enough room; otherwise as of `inlaid_session_prefill`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_prefill_all(
    session: *mut inlaid_session,
    ids: *const u32,
    n: usize,
    logits: *mut f32,
    capacity: usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |session: &mut Session| {
        // SAFETY: the caller's promise.
        let ids = unsafe { slice("ids", ids, n) }?;
        let vocab = session.model().arch().vocab();
        let needed = n.checked_mul(vocab).ok_or_else(|| argument("n", format!("{n} rows are too many")))?;
        room("logits", logits, capacity, needed)?;
        let (mut at, end) = (0, needed);
        session.prefill_all(ids, |row| {
            let fits = row.len().min(end - at);
            // SAFETY: the buffer has room for `end` floats, of which `at` are written.
            unsafe { logits.add(at).copy_from_nonoverlapping(row.as_ptr(), fits) };
            at += fits;
        })
    };
    // SAFETY: the caller's promise.
    unsafe { using(session, err, call) }
}

/// The most likely next tokens, most likely first, with their log-probabilities (natural): at most `n` of them, into two
/// arrays of `n` elements. `*found` receives how many there are.
///
/// Errors: as of `inlaid_session_logits`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_top_logprobs(
    session: *mut inlaid_session,
    n: usize,
    ids: *mut u32,
    logprobs: *mut f32,
    found: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |session: &mut Session| {
        if n > 0 {
            writable("ids", ids)?;
            writable("logprobs", logprobs)?;
        }
        let vocab = session.model().arch().vocab();
        let top = session.top_logprobs(n.min(vocab))?;
        for (at, (id, logprob)) in top.iter().enumerate().take(n) {
            // SAFETY: both arrays have `n` elements.
            unsafe {
                ids.add(at).write(*id);
                logprobs.add(at).write(*logprob);
            }
        }
        // SAFETY: the caller's promise.
        unsafe { set("found", found, top.len().min(n)) }
    };
    // SAFETY: the caller's promise.
    unsafe { using(session, err, call) }
}

/// Adds `n` tokens, runs them, and writes the log-probability (natural) of each of them, given those before. The first
/// token of an empty session has none: then there is one number less. `*found` receives how many there are.
///
/// Errors: `INLAID_ERROR_BUFFER` where `capacity` numbers are too few; otherwise as of `inlaid_session_prefill`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_score(
    session: *mut inlaid_session,
    ids: *const u32,
    n: usize,
    logprobs: *mut f32,
    capacity: usize,
    found: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |session: &mut Session| -> Result<()> {
        // SAFETY: the caller's promise.
        let ids = unsafe { slice("ids", ids, n) }?;
        let needed = if session.tokens().is_empty() { n.saturating_sub(1) } else { n };
        writable("found", found)?;
        room("logprobs", logprobs, capacity, needed)?;
        let scores = session.score(ids)?;
        // SAFETY: the caller's promise, for each pointer.
        unsafe { super::args::fill("logprobs", &scores, logprobs, capacity, found) }
    };
    // SAFETY: the caller's promise.
    unsafe { using(session, err, call) }
}
