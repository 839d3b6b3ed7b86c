//! Floor 6: whole texts through a model: states, vectors, classes, hidden tokens. Knows ids; what turns text into them is in
//! `reading`.

use super::args::{fill, fill_text, room, set, slice, text};
use super::error::{argument, inlaid_error};
use super::guard::{guard, with};
use super::model::{flag, inlaid_model, inlaid_progress_fn, telling};
use super::reading;
use super::versioned::{Versioned, init, read};
use crate::arch::Rows;
use crate::encode::{self, Ask, Text};
use crate::error::{Error, Result};
use crate::format::source::Progress;
use crate::model::Model;
use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;

/// Vectors as the model's files say; without a word there, the mean, and of a decoder the last token's state.
pub const INLAID_POOLING_AUTO: i32 = 0;
/// The mean of all tokens' states.
pub const INLAID_POOLING_MEAN: i32 = 1;
/// The first token's state.
pub const INLAID_POOLING_FIRST: i32 = 2;
/// The last token's state.
pub const INLAID_POOLING_LAST: i32 = 3;

/// The states of all tokens.
pub const INLAID_ENCODE_HIDDEN: i32 = 0;
/// One state per text, as `pooling` says.
pub const INLAID_ENCODE_POOLED: i32 = 1;
/// What the model's head says: of every token (a masked language model, a tagger), or once per text (a classifier). Of a model
/// with an encoder and a decoder that writes answers, a session says it (`inlaid_session_set_source`).
pub const INLAID_ENCODE_HEAD: i32 = 2;

/// How texts are read. Fill it with `inlaid_encode_config_init`, then change what you need.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_encode_config {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// Which states make a text's vector, `INLAID_POOLING_...`, default `INLAID_POOLING_AUTO`.
    pub pooling: i32,
    /// Whether vectors are divided by their length: 0 (default) as the model's files say, else not; 1 yes; 2 no.
    pub normalize: i32,
    /// 1: texts that are longer than the model takes lose their end. 0 (default): they are an error.
    pub truncate: i32,
    /// Told texts done and texts in all, on the thread of the call; non-zero ends it with `INLAID_ERROR_CANCELLED`. May be
    /// NULL.
    pub progress: inlaid_progress_fn,
    /// The first argument of `progress`.
    pub progress_user: *mut c_void,
}

// SAFETY: four words and two pointers.
unsafe impl Versioned for inlaid_encode_config {
    const NAME: &'static str = "encode config";
    const SIZES: &'static [usize] = &[size_of::<Self>()];

    fn defaults() -> Self {
        inlaid_encode_config {
            struct_size: size_of::<Self>() as u32,
            pooling: INLAID_POOLING_AUTO,
            normalize: 0,
            truncate: 0,
            progress: None,
            progress_user: null_mut(),
        }
    }
}

/// A text, or two that belong together. An element of an array: it never grows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_text {
    /// UTF-8.
    pub text: *const c_char,
    /// Its bytes.
    pub len: usize,
    /// The text that belongs to it (the second sentence of a pair, or where an answer stands), or NULL.
    pub second: *const c_char,
    /// Its bytes.
    pub second_len: usize,
}

/// A guess for a hidden token, or the class of a token. An element of an array: it never grows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_mark {
    /// The token.
    pub id: u32,
    /// Of a class: its number; see `inlaid_model_label`. Of a guess: which mask of the text, from 0.
    pub label: u32,
    /// First character of the token in its text. Of a guess: 0.
    pub start: u32,
    /// One after its last.
    pub end: u32,
    /// How likely it is, from 0 to 1.
    pub probability: f32,
}

/// What the C struct says, for the calls behind it.
pub(super) struct Reading<'a> {
    pub rows: Option<Rows>,
    /// What only calls that read text ask.
    #[cfg_attr(not(feature = "tokenizer"), expect(dead_code))]
    pub normalize: Option<bool>,
    #[cfg_attr(not(feature = "tokenizer"), expect(dead_code))]
    pub truncate: bool,
    pub progress: Option<Progress<'a>>,
}

/// A text of the caller, and what belongs to it.
pub(super) type Pair<'a> = (&'a str, Option<&'a str>);

/// Hands `call` what the caller configured.
///
/// # Safety
/// `from` is NULL or points to a struct with valid fields.
unsafe fn reading(from: *const inlaid_encode_config, call: impl FnOnce(Reading) -> Result<()>) -> Result<()> {
    // SAFETY: the caller's promise.
    let c = unsafe { read(from) }?;
    let rows = match c.pooling {
        INLAID_POOLING_AUTO => None,
        INLAID_POOLING_MEAN => Some(Rows::Mean),
        INLAID_POOLING_FIRST => Some(Rows::First),
        INLAID_POOLING_LAST => Some(Rows::Last),
        other => return Err(argument("pooling", format!("expected INLAID_POOLING_..., found {other}"))),
    };
    let normalize = match c.normalize {
        0 => None,
        1 => Some(true),
        2 => Some(false),
        other => return Err(argument("normalize", format!("expected 0, 1 or 2, found {other}"))),
    };
    let truncate = flag("truncate", c.truncate)?;
    let mut tell = telling(c.progress, c.progress_user);
    let progress = tell.as_mut().map(|tell| tell as &mut dyn FnMut(u64, u64) -> ControlFlow<()>);
    call(Reading { rows, normalize, truncate, progress })
}

/// The caller's texts.
///
/// # Safety
/// `texts` is NULL or points to `n` structs with valid fields.
unsafe fn pairs<'a>(texts: *const inlaid_text, n: usize) -> Result<Vec<Pair<'a>>> {
    // SAFETY: the caller's promise, for each pointer.
    unsafe {
        let each = |t: &inlaid_text| {
            let own = text("text", t.text, t.len)?;
            let second =
                if t.second.is_null() { None } else { Some(text("second", t.second, t.second_len)?) };
            Ok((own, second))
        };
        slice("texts", texts, n)?.iter().map(each).collect()
    }
}

/// Floats that `n` texts take.
fn floats(n: usize, width: usize) -> Result<usize> {
    n.checked_mul(width).ok_or_else(|| argument("n", format!("{n} texts are too many")))
}

/// Fills `*config`, of `struct_size` bytes, with the defaults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_encode_config_init(
    config: *mut inlaid_encode_config,
    struct_size: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { guard(null_mut(), || init(config, struct_size)) }
}

/// One vector for each of `n` texts: `n * *dim` floats, one text after the other. A text has the same bits alone and among
/// others. With `vectors` NULL and `capacity` 0 only `*dim` is written. `config` may be NULL.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for a text without tokens or with more than the model takes, `_BUFFER`, `_TOKENIZER`,
/// `_CANCELLED`, `_MEMORY`, `_BUDGET`. Any thread; calls on one model take turns, in pieces of some hundred tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_embed(
    model: *const inlaid_model,
    texts: *const inlaid_text,
    n: usize,
    config: *const inlaid_encode_config,
    vectors: *mut f32,
    capacity: usize,
    dim: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        // SAFETY: the caller's promise, for each pointer.
        unsafe {
            let width = handle.model.arch().first().state_cols();
            set("dim", dim, width)?;
            if vectors.is_null() && capacity == 0 {
                return Ok(());
            }
            let needed = floats(n, width)?;
            room("vectors", vectors, capacity, needed)?;
            let texts = pairs(texts, n)?;
            reading(config, |how| {
                let values = reading::embed(&handle.model, &texts, how)?;
                vectors.copy_from_nonoverlapping(values.as_ptr(), values.len().min(needed));
                Ok(())
            })
        }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

/// The classes of each of `n` texts: `n * *classes` logits, and as many probabilities (each may be NULL), one text after the
/// other, in the order of the classes' numbers. A reward model has one class, whose logit is the reward. With both NULL and
/// `capacity` 0 only `*classes` is written. `config` may be NULL.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for a model that does not classify; otherwise as of `inlaid_embed`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_classify(
    model: *const inlaid_model,
    texts: *const inlaid_text,
    n: usize,
    config: *const inlaid_encode_config,
    logits: *mut f32,
    probabilities: *mut f32,
    capacity: usize,
    classes: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        // SAFETY: the caller's promise, for each pointer.
        unsafe {
            let width = handle.model.arch().head.n;
            set("classes", classes, width)?;
            if logits.is_null() && probabilities.is_null() && capacity == 0 {
                return Ok(());
            }
            let needed = floats(n, width)?;
            for out in [logits, probabilities].into_iter().filter(|out| !out.is_null()) {
                room("logits", out, capacity, needed)?;
            }
            let texts = pairs(texts, n)?;
            reading(config, |how| {
                let (values, likely) = reading::classify(&handle.model, &texts, how)?;
                for (out, values) in [(logits, values), (probabilities, likely)] {
                    if !out.is_null() {
                        out.copy_from_nonoverlapping(values.as_ptr(), values.len().min(needed));
                    }
                }
                Ok(())
            })
        }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

/// The `top` most likely tokens for each mask of a text, most likely first, mask after mask. `*n` receives how many there
/// are; with `guesses` NULL and `capacity` 0 nothing else is written.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for a model that was not trained to fill masks, or a text without one; otherwise as of
/// `inlaid_embed`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_fill(
    model: *const inlaid_model,
    text: *const inlaid_text,
    top: usize,
    config: *const inlaid_encode_config,
    guesses: *mut inlaid_mark,
    capacity: usize,
    n: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        // SAFETY: the caller's promise, for each pointer.
        unsafe {
            let texts = pairs(text, 1)?;
            reading(config, |how| {
                fill("guesses", &reading::guesses(&handle.model, &texts, top, how)?, guesses, capacity, n)
            })
        }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

/// The tokens of a text with where each stands and its most likely class; those that the tokenizer adds are left out. `*n`
/// receives their number; with `marks` NULL and `capacity` 0 nothing else is written.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for a model that does not classify tokens; otherwise as of `inlaid_embed`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_tag(
    model: *const inlaid_model,
    text: *const inlaid_text,
    config: *const inlaid_encode_config,
    marks: *mut inlaid_mark,
    capacity: usize,
    n: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        // SAFETY: the caller's promise, for each pointer.
        unsafe {
            let texts = pairs(text, 1)?;
            reading(config, |how| {
                fill("marks", &reading::tags(&handle.model, &texts, how)?, marks, capacity, n)
            })
        }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

/// What class `label` is called, closed with a NUL; `*len` receives its length without it.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for a number that no class has, `_BUFFER`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_model_label(
    model: *const inlaid_model,
    label: u32,
    name: *mut c_char,
    capacity: usize,
    len: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        let classes = handle.model.arch().head.n;
        if label as usize >= classes {
            return Err(argument("label", format!("expected a number below {classes}, found {label}")));
        }
        // SAFETY: the caller's promise.
        unsafe { fill_text("name", &handle.model.label(label as usize), name, capacity, len) }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

/// Runs `n` texts, given as ids one after the other with the length of each in `lens`, and writes what is wanted of them
/// (`INLAID_ENCODE_...`): `*rows` rows of `*cols` floats, one text after the other. With `out` NULL and `capacity` 0 only
/// the numbers are written, and nothing runs where they are known without. `config` may be NULL; `truncate` and `normalize`
/// have no meaning here.
///
/// Errors: as of `inlaid_embed`, and `INLAID_ERROR_CONTEXT_FULL` for a text that is longer than the model can hold. Any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_encode(
    model: *const inlaid_model,
    ids: *const u32,
    lens: *const usize,
    n: usize,
    wanted: i32,
    config: *const inlaid_encode_config,
    out: *mut f32,
    capacity: usize,
    rows: *mut usize,
    cols: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        // SAFETY: the caller's promise, for each pointer.
        unsafe {
            let lens = slice("lens", lens, n)?;
            let total = lens.iter().try_fold(0usize, |sum, len| sum.checked_add(*len));
            let total = total.ok_or_else(|| argument("lens", "lengths that can be added"))?;
            let mut rest = slice("ids", ids, total)?;
            let take = |len: &usize| {
                let (own, after) = rest.split_at(*len);
                rest = after;
                Text { ids: own, types: &[] }
            };
            let texts: Vec<Text> = lens.iter().map(take).collect();
            reading(config, |how| {
                let ask = ask(&handle.model, wanted, how.rows)?;
                let found = encode::shape(&handle.model, &texts, ask);
                set("rows", rows, found[0])?;
                set("cols", cols, found[1])?;
                if out.is_null() && capacity == 0 {
                    return Ok(());
                }
                let needed =
                    found[0].checked_mul(found[1]).ok_or(argument("n", "rows that can be counted"))?;
                room("out", out, capacity, needed)?;
                let (mut at, never, mut progress) = (0, AtomicBool::new(false), how.progress);
                encode::run(&handle.model, &texts, ask, &never, &mut progress, &mut |_, row, _| {
                    let fits = row.len().min(needed - at);
                    out.add(at).copy_from_nonoverlapping(row.as_ptr(), fits);
                    at += fits;
                })
            })
        }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

fn ask(model: &Model, wanted: i32, rows: Option<Rows>) -> Result<Ask<'static>> {
    match wanted {
        INLAID_ENCODE_HIDDEN => Ok(Ask::Hidden),
        INLAID_ENCODE_POOLED => Ok(Ask::Pooled(rows.unwrap_or(model.pooling().rows))),
        INLAID_ENCODE_HEAD => Ok(Ask::Head),
        other => Err(Error::Argument {
            name: "wanted",
            what: format!("expected INLAID_ENCODE_..., found {other}"),
        }),
    }
}
