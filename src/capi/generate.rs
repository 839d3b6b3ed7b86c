//! Floor 6: answers as streamed text, and turns of a conversation in one call.

use super::args::{maybe_set, slice, string, text};
use super::engine::User;
use super::error::inlaid_error;
use super::guard::guard;
use super::model::flag;
use super::session::{inlaid_session, using};
use super::speech;
use super::tokens::{inlaid_template_config, rendered};
use super::versioned::{Versioned, init, read};
use crate::error::Result;
use crate::session::Session;
use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::ptr::{null, null_mut};

/// Why an answer ended: `max_tokens` were chosen.
pub const INLAID_FINISH_LENGTH: i32 = 1;
/// Why an answer ended: an end token of the model or of the host.
pub const INLAID_FINISH_END: i32 = 2;
/// Why an answer ended: a stop string.
pub const INLAID_FINISH_STOP: i32 = 3;
/// Why an answer ended: the callback said so.
pub const INLAID_FINISH_CALLBACK: i32 = 4;
/// Why an answer ended: somebody called cancel; what was written stays.
pub const INLAID_FINISH_CANCELLED: i32 = 5;
/// Why an answer ended: the context is full and the session's policy is to stop.
pub const INLAID_FINISH_CONTEXT: i32 = 6;

/// Receives an answer as it grows: each token's id with the text that became certain with it, `len` bytes of UTF-8 that
/// are valid until the function returns, not NUL-terminated. Only whole characters; no text (`len` 0) while a character is
/// unfinished or a stop string may have begun. Non-zero ends the answer.
///
/// Called on the thread of the call, no lock held; calls on the same session answer `INLAID_ERROR_BUSY`, but for cancel,
/// retain and free. It must return normally (no exception, no `longjmp`).
pub type inlaid_token_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, text: *const c_char, len: usize, id: u32) -> i32>;

/// When an answer ends. Fill it with `inlaid_generate_config_init`, then change what you need. All arrays are copied by
/// the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_generate_config {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// Most tokens of the answer; default 256.
    pub max_tokens: u32,
    /// 1: go on after the model's own end tokens. Default 0.
    pub ignore_end: i32,
    /// Entries of `stop` (default 0).
    pub n_stop: u32,
    /// Texts that end the answer, and are not part of it; UTF-8.
    pub stop: *const *const c_char,
    /// Bytes of each of them; NULL (default): they are NUL-terminated.
    pub stop_len: *const usize,
    /// Tokens that end the answer beside those of the model.
    pub stop_ids: *const u32,
    /// Entries of `stop_ids` (default 0).
    pub n_stop_ids: usize,
}

// SAFETY: four words, three pointers and a size.
unsafe impl Versioned for inlaid_generate_config {
    const NAME: &'static str = "generate config";
    const SIZES: &'static [usize] = &[size_of::<Self>()];

    fn defaults() -> Self {
        inlaid_generate_config {
            struct_size: size_of::<Self>() as u32,
            max_tokens: 256,
            ignore_end: 0,
            n_stop: 0,
            stop: null(),
            stop_len: null(),
            stop_ids: null(),
            n_stop_ids: 0,
        }
    }
}

/// What the caller wants, in Rust's words.
#[cfg_attr(not(feature = "tokenizer"), expect(dead_code))]
pub(super) struct Wish {
    pub max_tokens: usize,
    pub stop: Vec<String>,
    pub stop_ids: Vec<u32>,
    pub ignore_end: bool,
}

/// # Safety
/// `from` is NULL or points to a struct with valid fields.
unsafe fn wish(from: *const inlaid_generate_config) -> Result<Wish> {
    // SAFETY: the caller's promise.
    let c = unsafe { read(from) }?;
    let n = c.n_stop as usize;
    // SAFETY: the caller's promise, for each array.
    let (texts, stop_ids) =
        unsafe { (slice("stop", c.stop, n)?, slice("stop_ids", c.stop_ids, c.n_stop_ids)?.to_vec()) };
    // SAFETY: as above.
    let lens = if c.stop_len.is_null() { &[] } else { unsafe { slice("stop_len", c.stop_len, n) }? };
    let mut stop = Vec::new();
    for (i, at) in texts.iter().enumerate() {
        // SAFETY: as above, for each text.
        let text = unsafe { lens.get(i).map_or_else(|| string("stop", *at), |len| text("stop", *at, *len)) };
        stop.push(text?.to_owned());
    }
    Ok(Wish {
        max_tokens: c.max_tokens as usize,
        stop,
        stop_ids,
        ignore_end: flag("ignore_end", c.ignore_end)?,
    })
}

/// Writes an answer into the caller's function.
///
/// # Safety
/// Every pointer is NULL or what the header says.
unsafe fn answer(
    session: &mut Session,
    wish: Wish,
    (each, user): (inlaid_token_fn, User),
    reason: *mut i32,
    n_tokens: *mut usize,
) -> Result<()> {
    let (why, n) = speech::answer(session, wish, &mut |id, text| {
        // SAFETY: the caller's function, with the arguments that the header promises it.
        let go_on =
            each.is_none_or(|each| unsafe { each(user.0, text.as_ptr().cast(), text.len(), id) } == 0);
        if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    // SAFETY: the caller's promise.
    unsafe {
        maybe_set("reason", reason, why)?;
        maybe_set("n_tokens", n_tokens, n)
    }
}

/// Fills a config with defaults. `struct_size` is `sizeof(inlaid_generate_config)`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_generate_config_init(
    config: *mut inlaid_generate_config,
    struct_size: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { guard(null_mut(), || init(config, struct_size)) }
}

/// Writes an answer to what the session holds: chooses tokens until one of the reasons to stop, and hands each to `each`
/// (which may be NULL: read them with `inlaid_session_tokens`). `config` may be NULL: defaults. `*reason` receives
/// `INLAID_FINISH_...` and `*n_tokens` the number of tokens, a closing end token included; both may be NULL. The tokens
/// stay in the session.
///
/// Errors: `INLAID_ERROR_TOKENIZER` where the model has none; `_ARGUMENT` for an empty stop string; otherwise as of
/// `inlaid_session_step`, but for a cancel and a full context, which end the answer and are no error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_generate(
    session: *mut inlaid_session,
    config: *const inlaid_generate_config,
    each: inlaid_token_fn,
    user: *mut c_void,
    reason: *mut i32,
    n_tokens: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let each = (each, User(user));
    // SAFETY: the caller's promise, for each pointer.
    unsafe { using(session, err, |session| answer(session, wish(config)?, each, reason, n_tokens)) }
}

/// One turn of a conversation: renders `messages` (a JSON list, `len` bytes; see `inlaid_chat_render`) by the model's chat
/// template, makes the result the session's conversation, reusing what the cache holds of it, and writes the answer as
/// `inlaid_generate` does. For the next turn, append the answer and the new message to the list and call again.
///
/// Errors: those of `inlaid_chat_render`, `inlaid_tokenize`, `inlaid_session_resume` and `inlaid_generate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_chat(
    session: *mut inlaid_session,
    messages: *const c_char,
    len: usize,
    template: *const inlaid_template_config,
    config: *const inlaid_generate_config,
    each: inlaid_token_fn,
    user: *mut c_void,
    reason: *mut i32,
    n_tokens: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let each = (each, User(user));
    let call = |session: &mut Session| {
        // SAFETY: the caller's promise, for each pointer.
        let (wish, prompt) = unsafe { (wish(config)?, rendered(session.model(), messages, len, template)?) };
        let ids = speech::encode(session.model(), &prompt, false, true)?;
        session.resume(&ids)?;
        // SAFETY: as above.
        unsafe { answer(session, wish, each, reason, n_tokens) }
    };
    // SAFETY: the caller's promise.
    unsafe { using(session, err, call) }
}
