//! Floor 6: text into tokens and back, and conversations into text.

use super::args::{fill, fill_text, set, text};
use super::error::{argument, inlaid_error};
use super::guard::{guard, with};
use super::model::{flag, inlaid_model};
use super::versioned::{Versioned, init, read};
use super::{speech, template};
use crate::error::Result;
use crate::model::Model;
use serde_json::Value as Json;
use std::ffi::c_char;
use std::ptr::{null, null_mut};

/// `inlaid_tokenize`: add the tokens that the model wants around a text (its BOS, say); never a second BOS.
pub const INLAID_ADD_SPECIAL: u32 = 1;
/// `inlaid_tokenize`: names of special tokens in the text ("<|im_end|>") are those tokens. Leave it out for text that a
/// user typed.
pub const INLAID_PARSE_SPECIAL: u32 = 2;
/// `inlaid_detokenize`: leave special tokens out.
pub const INLAID_SKIP_SPECIAL: u32 = 4;

/// What a conversation is rendered with. Fill it with `inlaid_template_config_init`, then change what you need.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_template_config {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// 1 (default): end with the beginning of the model's answer.
    pub add_generation_prompt: i32,
    /// Seconds since 1970 for templates that write the date; 0 (default): now.
    pub now_s: u64,
    /// Functions that the model may call: a JSON list of objects, `tools_len` bytes; NULL (default): none.
    pub tools: *const c_char,
    /// Bytes of `tools`.
    pub tools_len: usize,
    /// Further variables of the template: a JSON object, `extra_len` bytes; NULL (default): none.
    pub extra: *const c_char,
    /// Bytes of `extra`.
    pub extra_len: usize,
}

// SAFETY: two words, a u64, two pointers and two sizes.
unsafe impl Versioned for inlaid_template_config {
    const NAME: &'static str = "template config";
    const SIZES: &'static [usize] = &[size_of::<Self>()];

    fn defaults() -> Self {
        inlaid_template_config {
            struct_size: size_of::<Self>() as u32,
            add_generation_prompt: 1,
            now_s: 0,
            tools: null(),
            tools_len: 0,
            extra: null(),
            extra_len: 0,
        }
    }
}

/// Refuses bits that a function does not know.
fn known(flags: u32, of: u32) -> Result<()> {
    if flags & !of == 0 {
        Ok(())
    } else {
        Err(argument("flags", format!("expected bits of {of}, found {flags}")))
    }
}

/// The caller's JSON; `None` for NULL.
///
/// # Safety
/// As [`text`].
unsafe fn json(name: &'static str, from: *const c_char, len: usize) -> Result<Option<Json>> {
    if from.is_null() && len == 0 {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let value = serde_json::from_str(unsafe { text(name, from, len) }?);
    value.map(Some).map_err(|e| argument(name, format!("expected JSON: {e}")))
}

/// The text of a conversation.
///
/// # Safety
/// Every pointer is NULL or what the header says.
pub(super) unsafe fn rendered(
    model: &Model,
    messages: *const c_char,
    len: usize,
    config: *const inlaid_template_config,
) -> Result<String> {
    // SAFETY: the caller's promise.
    let (messages, config) = unsafe { (json("messages", messages, len)?, read(config)?) };
    // SAFETY: the caller's promise.
    let (tools, extra) = unsafe {
        (json("tools", config.tools, config.tools_len)?, json("extra", config.extra, config.extra_len)?)
    };
    let prompt = flag("add_generation_prompt", config.add_generation_prompt)?;
    let now = (config.now_s > 0).then_some(config.now_s);
    template::render(model, &messages.unwrap_or_default(), tools.as_ref(), extra.as_ref(), prompt, now)
}

/// The tokens of `text`, which is `len` bytes of UTF-8. `flags`: `INLAID_ADD_SPECIAL | INLAID_PARSE_SPECIAL` or fewer.
/// `*n` receives their number; with `ids` NULL and `capacity` 0 nothing else is written.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for text that is not UTF-8, naming the offset; `_TOKENIZER`; `_BUFFER` where `capacity`
/// ids are too few. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_tokenize(
    model: *const inlaid_model,
    text: *const c_char,
    len: usize,
    flags: u32,
    ids: *mut u32,
    capacity: usize,
    n: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        known(flags, INLAID_ADD_SPECIAL | INLAID_PARSE_SPECIAL)?;
        // SAFETY: the caller's promise.
        let text = unsafe { self::text("text", text, len) }?;
        let (add, parse) = (flags & INLAID_ADD_SPECIAL != 0, flags & INLAID_PARSE_SPECIAL != 0);
        let found = speech::encode(&handle.model, text, add, parse)?;
        // SAFETY: the caller's promise.
        unsafe { fill("ids", &found, ids, capacity, n) }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

/// The text of `n` tokens: UTF-8, closed with a NUL; bytes that are no UTF-8 become U+FFFD. `flags`:
/// `INLAID_SKIP_SPECIAL` or 0. `*len` receives its bytes without the NUL; with `text` NULL and `capacity` 0 nothing else is
/// written.
///
/// Errors: `INLAID_ERROR_TOKENIZER` for an id without a token; `_BUFFER` where `capacity` is not above `*len`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_detokenize(
    model: *const inlaid_model,
    ids: *const u32,
    n: usize,
    flags: u32,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        known(flags, INLAID_SKIP_SPECIAL)?;
        // SAFETY: the caller's promise.
        let ids = unsafe { super::args::slice("ids", ids, n) }?;
        let found = speech::decode(&handle.model, ids, flags & INLAID_SKIP_SPECIAL != 0)?;
        // SAFETY: the caller's promise.
        unsafe { fill_text("text", &found, text, capacity, len) }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

/// What token `id` is called in the vocabulary. The name is not the token's text: "\u0120the" may stand for " the";
/// `inlaid_detokenize` gives texts. Buffer and errors as of `inlaid_detokenize`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_token_name(
    model: *const inlaid_model,
    id: u32,
    name: *mut c_char,
    capacity: usize,
    len: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        let found = speech::name(&handle.model, id)?;
        // SAFETY: the caller's promise.
        unsafe { fill_text("name", &found, name, capacity, len) }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

/// The id of the token that the vocabulary calls `name` (`len` bytes of UTF-8): "<|im_end|>", say.
///
/// Errors: `INLAID_ERROR_TOKENIZER` where there is none. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_token_id(
    model: *const inlaid_model,
    name: *const c_char,
    len: usize,
    id: *mut u32,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        // SAFETY: the caller's promise.
        let found = speech::id(&handle.model, unsafe { text("name", name, len) }?)?;
        // SAFETY: the caller's promise.
        unsafe { set("id", id, found) }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

/// Fills a config with defaults. `struct_size` is `sizeof(inlaid_template_config)`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_template_config_init(
    config: *mut inlaid_template_config,
    struct_size: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { guard(null_mut(), || init(config, struct_size)) }
}

/// A conversation as the text that the model was trained on, by its chat template. `messages` is a JSON list, `len` bytes:
/// `[{"role": "user", "content": "Hello"}]`. `config` may be NULL: defaults. Tokenize the result with
/// `INLAID_PARSE_SPECIAL` alone: it may begin with the BOS. Buffer as of `inlaid_detokenize`.
///
/// A template is a program within the model. Its work is bounded, but a hostile one can take all memory by doubling a
/// list: do not render those of models that you do not trust.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for what is not JSON, or not a list of objects; `_TEMPLATE` where the model has no
/// template or it refuses the conversation; `_BUFFER`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_chat_render(
    model: *const inlaid_model,
    messages: *const c_char,
    len: usize,
    config: *const inlaid_template_config,
    text: *mut c_char,
    capacity: usize,
    text_len: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        // SAFETY: the caller's promise.
        let found = unsafe { rendered(&handle.model, messages, len, config) }?;
        // SAFETY: the caller's promise.
        unsafe { fill_text("text", &found, text, capacity, text_len) }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}
