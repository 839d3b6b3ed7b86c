//! Floor 6: one step of several sessions at once.

use super::args::{slice, writable};
use super::error::{argument, inlaid_error};
use super::guard::{guard, hold};
use super::session::{inlaid_session, lock};
use super::status::{INLAID_ERROR_INTERNAL, INLAID_OK, status};
use crate::error::{Error, Result};
use crate::session::Session;
use crate::session::batch::{Seat, Stepped, step};
use std::sync::{Arc, MutexGuard};

/// In place of an id: no token was chosen.
pub const INLAID_NO_TOKEN: u32 = 0xFFFF_FFFF;

/// Most sessions of a batch.
const MOST: usize = 1024;

/// So many sessions are stepped without an allocation.
const FEW: usize = 64;

type Held = Option<Arc<inlaid_session>>;
type Place<'a> = Option<MutexGuard<'a, Session>>;

impl Seat for Place<'_> {
    fn session(&mut self) -> Option<&mut Session> {
        self.as_deref_mut()
    }
}

/// Where results go.
struct Out {
    ids: *mut u32,
    statuses: *mut i32,
}

impl Out {
    /// Writes the result of session `i`.
    ///
    /// # Safety
    /// `ids` has an element `i`, and `statuses` too unless it is NULL.
    unsafe fn set(&self, i: usize, id: Option<u32>, status: i32) {
        // SAFETY: the caller's promise.
        unsafe {
            self.ids.add(i).write(id.unwrap_or(INLAID_NO_TOKEN));
            if !self.statuses.is_null() {
                self.statuses.add(i).write(status);
            }
        }
    }
}

/// Refuses what no batch can be made of, and takes a reference to each session.
///
/// # Safety
/// Each pointer is NULL or a live session.
unsafe fn hold_all(sessions: &[*mut inlaid_session], held: &mut [Held]) -> Result<()> {
    for (i, session) in sessions.iter().enumerate() {
        if let Some(first) = sessions[..i].iter().position(|other| other == session) {
            return Err(argument(
                "sessions",
                format!("expected each once, found number {first} again at {i}"),
            ));
        }
        // SAFETY: the caller's promise.
        held[i] = Some(unsafe { hold(*session) }?);
    }
    Ok(())
}

/// Steps the sessions in `held`; where that worked, returns the first error of one of them.
fn step_all<'a>(
    held: &'a [Held],
    places: &mut [Place<'a>],
    results: &mut [Stepped],
    rows: usize,
    set: &dyn Fn(usize, Option<u32>, i32),
) -> Result<Option<Error>> {
    for (i, session) in held.iter().enumerate() {
        match session.as_deref().map(lock) {
            Some(Ok(session)) => places[i] = Some(session),
            Some(Err(e)) => results[i] = Err(e),
            None => {}
        }
    }
    step(places, rows, results)?;
    let mut first = None;
    for (i, result) in results.iter_mut().enumerate() {
        match std::mem::replace(result, Ok(None)) {
            Ok(id) => set(i, id, INLAID_OK),
            Err(e) => {
                set(i, None, status(&e));
                first = first.or(Some(e));
            }
        }
    }
    Ok(first)
}

/// # Safety
/// As [`hold_all`].
unsafe fn batch(
    sessions: &[*mut inlaid_session],
    rows: usize,
    set: &dyn Fn(usize, Option<u32>, i32),
) -> Result<Option<Error>> {
    let n = sessions.len();
    if n <= FEW {
        let mut held = [const { None }; FEW];
        let (mut places, mut results) = ([const { None }; FEW], [const { Ok(None) }; FEW]);
        // SAFETY: the caller's promise.
        unsafe { hold_all(sessions, &mut held[..n]) }?;
        return step_all(&held[..n], &mut places[..n], &mut results[..n], rows, set);
    }
    let mut held: Vec<Held> = (0..n).map(|_| None).collect();
    let mut places: Vec<Place> = (0..n).map(|_| None).collect();
    let mut results: Vec<Stepped> = (0..n).map(|_| Ok(None)).collect();
    // SAFETY: the caller's promise.
    unsafe { hold_all(sessions, &mut held) }?;
    step_all(&held, &mut places, &mut results, rows, set)
}

/// Chooses the next token of each of `n` sessions of one model in one pass over its weights, which costs little more than
/// the step of one, and adds it. Each session gets the bits of `inlaid_session_step`. Tokens that have not run yet, of
/// prompts too (see `inlaid_session_resume`, `_accept`), run before, all sessions in one pass; where prompts that wait
/// begin alike, whole pages of 64 tokens are computed once.
///
/// With `max_rows` 0 as many passes are made as the longest waiting prompt takes. Otherwise about so many tokens run, at
/// least one of each session, and a session whose prompt is not through yet gets no token: call again. That keeps the
/// others' steps short.
///
/// `ids[i]` receives the token of `sessions[i]`, or `INLAID_NO_TOKEN`; `statuses[i]`, unless `statuses` is NULL, its status:
/// `INLAID_OK`, also where no token was chosen yet; `INLAID_ERROR_BUSY` where another call uses it;
/// `_CONTEXT_FULL`, `_CANCELLED` (a cancel is seen between passes), `_POISONED`, `_ARGUMENT` where nothing was fed yet. Such a
/// session is as `inlaid_session_step` would leave it, and does not disturb the others. The call returns the first of these
/// errors in the order of the sessions. Speculation pauses in a batch. Up to 64 sessions are stepped without an allocation,
/// once their number has been seen.
///
/// Errors of the whole call, after which no session has changed and each status is the call's: `INLAID_ERROR_ARGUMENT` for
/// a session that is NULL or named twice, sessions of different models, or more than 1024; `_MEMORY`, `_BUDGET`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_batch_step(
    sessions: *const *mut inlaid_session,
    n: usize,
    max_rows: usize,
    ids: *mut u32,
    statuses: *mut i32,
    err: *mut inlaid_error,
) -> i32 {
    let call = || {
        if n > MOST {
            return Err(argument("n", format!("expected at most {MOST} sessions, found {n}")));
        }
        if n == 0 {
            return Ok(());
        }
        writable("ids", ids)?;
        if !statuses.is_null() {
            writable("statuses", statuses)?;
        }
        let out = Out { ids, statuses };
        // SAFETY: the caller's arrays have `n` elements each, or are NULL.
        let set = |i, id, status| unsafe { out.set(i, id, status) };
        (0..n).for_each(|i| set(i, None, INLAID_ERROR_INTERNAL)); // what stays where a panic ends the call
        // SAFETY: the caller's promise, for the array and each session.
        let done = unsafe { slice("sessions", sessions, n).and_then(|all| batch(all, max_rows, &set)) };
        if let Err(e) = &done {
            (0..n).for_each(|i| set(i, None, status(e)));
        }
        done?.map_or(Ok(()), Err)
    };
    // SAFETY: the caller's promise.
    unsafe { guard(err, call) }
}
