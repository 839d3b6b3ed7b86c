//! Floor 6: the session handle: how it is made, forked, shared, cancelled. Knows nothing of what it is fed.

use super::args::set;
use super::error::{argument, inlaid_error};
use super::guard::{Handle, free, give, guard, hold, retain, with};
use super::model::inlaid_model;
use super::sampler::{inlaid_sampler, sampler};
use super::versioned::{Versioned, init, read};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::rules::Rules;
use crate::session::{Cancel, Overflow, Session, SessionConfig, Speculation};
use std::mem::offset_of;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// A token that finds the context full is refused with `INLAID_ERROR_CONTEXT_FULL`, and nothing changes.
pub const INLAID_OVERFLOW_STOP: i32 = 0;
/// The first `keep` tokens stay, the older half of the others goes, and the rest is computed anew at its new positions:
/// the result has the bits of a fresh session with those tokens.
pub const INLAID_OVERFLOW_DROP_OLDEST: i32 = 1;

/// How a session is made. Fill it with `inlaid_session_config_init`, then change what you need.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_session_config {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// What happens when the context is full: `INLAID_OVERFLOW_...`, default `INLAID_OVERFLOW_STOP`.
    pub overflow: i32,
    /// Tokens the session can hold; 0 (default): what the model was made for, but at most 4096.
    pub context: u32,
    /// With `INLAID_OVERFLOW_DROP_OLDEST`: tokens at the start that stay (a system prompt). Default 0.
    pub keep: u32,
    /// Tokens of a prompt that run at once; 0 (default): 512. Fewer take less memory and answer a cancel sooner; the
    /// results have the same bits.
    pub chunk: u32,
    /// Must be 0.
    pub reserved: u32,
    /// How tokens are chosen; NULL (default): greedily. Copied by the call.
    pub sampler: *const inlaid_sampler,
    /// Most tokens guessed and run at once with the next one, from 1 to 16; 0 (default): none. Guesses are kept where they
    /// are what is chosen anyway: tokens and logits have the bits of plain steps, with any sampler, in less time.
    pub speculate: u32,
    /// 0 (default): the rules of the model's generation_config.json hold (tokens that never appear or must appear, runs
    /// that do not repeat, least lengths). 1: they do not.
    pub ignore_rules: u32,
    /// With `speculate`: the model that guesses, a smaller one with the same tokens. It gets a session of its own, charged
    /// to the budget of its engine, and is kept alive. NULL (default): guesses are what followed when the last tokens stood
    /// in the conversation before, for answers that repeat much of their prompt.
    pub draft: *const inlaid_model,
}

/// Bytes of the struct before `speculate` was added.
const FIRST_SIZE: usize = offset_of!(inlaid_session_config, speculate);

// SAFETY: six words, a pointer (at byte 24), two words and a pointer.
unsafe impl Versioned for inlaid_session_config {
    const NAME: &'static str = "session config";
    const SIZES: &'static [usize] = &[FIRST_SIZE, size_of::<Self>()];

    fn defaults() -> Self {
        inlaid_session_config {
            struct_size: size_of::<Self>() as u32,
            overflow: INLAID_OVERFLOW_STOP,
            context: 0,
            keep: 0,
            chunk: 0,
            reserved: 0,
            sampler: null(),
            speculate: 0,
            ignore_rules: 0,
            draft: null(),
        }
    }
}

/// One conversation with a model. Opaque, reference-counted. One thread at a time: a call that finds it in use answers
/// `INLAID_ERROR_BUSY` at once, and so does a call from within its own callback. Different sessions, of one model too, may
/// be used from different threads.
pub struct inlaid_session {
    poisoned: AtomicBool,
    cancel: Cancel,
    session: Mutex<Session>,
}

impl Handle for inlaid_session {
    const NAME: &'static str = "session";

    fn poisoned(&self) -> &AtomicBool {
        &self.poisoned
    }
}

impl inlaid_session {
    fn new(session: Session) -> inlaid_session {
        inlaid_session {
            poisoned: AtomicBool::new(false),
            cancel: session.cancel(),
            session: Mutex::new(session),
        }
    }
}

/// Runs a call that uses a session, unless another one does. It never waits.
///
/// # Safety
/// As [`with`].
pub(super) unsafe fn using(
    session: *const inlaid_session,
    err: *mut inlaid_error,
    call: impl FnOnce(&mut Session) -> Result<()>,
) -> i32 {
    let call = |handle: &inlaid_session| call(&mut *lock(handle)?);
    // SAFETY: the caller's promise.
    unsafe { with(session, err, call) }
}

/// The session behind a handle, unless another call uses it. It never waits.
pub(super) fn lock(handle: &inlaid_session) -> Result<MutexGuard<'_, Session>> {
    if handle.poisoned.load(Relaxed) {
        return Err(Error::Poisoned);
    }
    handle.session.try_lock().map_err(|e| match e {
        TryLockError::WouldBlock => Error::Busy,
        TryLockError::Poisoned(_) => Error::Poisoned,
    })
}

/// # Safety
/// `from` is NULL or points to a struct with valid fields.
unsafe fn config_of(from: *const inlaid_session_config, model: &Model) -> Result<SessionConfig> {
    // SAFETY: the caller's promise.
    let c = unsafe { read(from) }?;
    if c.reserved != 0 {
        return Err(argument("reserved", format!("expected 0, found {}", c.reserved)));
    }
    let rules = match c.ignore_rules {
        0 => model.generation().rules.clone(),
        1 => Rules::default(),
        other => return Err(argument("ignore_rules", format!("expected 0 or 1, found {other}"))),
    };
    let overflow = match c.overflow {
        INLAID_OVERFLOW_STOP => Overflow::Stop,
        INLAID_OVERFLOW_DROP_OLDEST => Overflow::DropOldest { keep: c.keep as usize },
        other => return Err(argument("overflow", format!("expected INLAID_OVERFLOW_..., found {other}"))),
    };
    // SAFETY: the caller's promise.
    let sampler = unsafe { sampler(c.sampler) }?;
    let tokens = c.speculate as usize;
    let speculation = match (tokens, c.draft.is_null()) {
        (0, true) => Speculation::None,
        (0, false) => return Err(argument("speculate", "expected from 1 to 16 tokens with a draft model")),
        (_, true) => Speculation::Lookup { tokens },
        // SAFETY: the caller's promise.
        (_, false) => Speculation::Draft { model: unsafe { hold(c.draft) }?.model.clone(), tokens },
    };
    let (context, chunk) = (c.context as usize, c.chunk as usize);
    Ok(SessionConfig { context, overflow, chunk, sampler, speculation, rules })
}

/// Fills a config with defaults. `struct_size` is `sizeof(inlaid_session_config)`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_config_init(
    config: *mut inlaid_session_config,
    struct_size: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { guard(null_mut(), || init(config, struct_size)) }
}

/// Begins an empty conversation. Its whole context is set aside (and charged to the engine's budget) now, so that no later
/// call runs out of memory for it. `config` may be NULL: defaults. On success `*session` is a reference that the caller
/// owns; on failure it is NULL. The session keeps the model alive.
///
/// Errors: `INLAID_ERROR_ARGUMENT`, `_BUDGET`, `_MEMORY`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_new(
    model: *const inlaid_model,
    config: *const inlaid_session_config,
    session: *mut *mut inlaid_session,
    err: *mut inlaid_error,
) -> i32 {
    let call = |model: &inlaid_model| {
        // SAFETY: the caller's promise.
        let config = unsafe {
            set("session", session, null_mut())?;
            config_of(config, &model.model)?
        };
        let made = inlaid_session::new(Session::new(&model.model, config)?);
        // SAFETY: `set` found that it may be written.
        unsafe { give(session, made) };
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

/// A second conversation with the same past, which is stored once. It is as independent as a new one.
///
/// Errors: `INLAID_ERROR_BUDGET`, `_MEMORY`, `_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_fork(
    session: *mut inlaid_session,
    fork: *mut *mut inlaid_session,
    err: *mut inlaid_error,
) -> i32 {
    let call = |session: &mut Session| {
        // SAFETY: the caller's promise.
        unsafe { set("fork", fork, null_mut()) }?;
        let twin = inlaid_session::new(session.fork()?);
        // SAFETY: `set` found that it may be written.
        unsafe { give(fork, twin) };
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { using(session, err, call) }
}

/// Counts one more reference, which the caller owns: for a thread that may call `inlaid_session_cancel` while another one
/// frees the session. NULL is fine. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_retain(session: *const inlaid_session) {
    // SAFETY: the caller's promise.
    unsafe { retain(session) };
}

/// Gives back a reference. The session ends with its last reference, and not before a running call has ended. NULL is
/// fine. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_free(session: *mut inlaid_session) {
    // SAFETY: the caller's promise.
    unsafe { free(session) };
}

/// Ends the call that runs on the session, within a fraction of the time of one chunk; where none runs, the next one that
/// computes. That call answers `INLAID_ERROR_CANCELLED`, and the session is as it was before; an answer ends with
/// `INLAID_FINISH_CANCELLED`, and what was written stays. Never waits. Any thread, also from callbacks; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_cancel(session: *const inlaid_session) {
    super::guard::quiet(|| {
        // SAFETY: the caller's promise.
        if let Ok(session) = unsafe { hold(session) } {
            session.cancel.cancel();
        }
    });
}
