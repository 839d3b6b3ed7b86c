//! Floor 6: the model handle: opening, planning, counting.

use super::args::{set, string};
use super::engine::{User, inlaid_engine};
use super::error::{argument, inlaid_error};
use super::guard::{Handle, free, give, guard, retain, with};
use super::info::{inlaid_memory_plan, plan_of};
use super::parts::{files, inlaid_part};
use super::versioned::{Versioned, init, read, write};
use crate::error::Result;
use crate::format::files::Files;
use crate::model::{Model, ModelConfig};
use crate::pack::Hold;
use kernels::attention::Cache;
use std::ffi::{CString, c_char, c_void};
use std::mem::offset_of;
use std::ops::ControlFlow;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The library chooses: f32, the most exact one.
pub const INLAID_TYPE_AUTO: i32 = 0;
/// IEEE 754 binary32.
pub const INLAID_TYPE_F32: i32 = 1;
/// IEEE 754 binary16.
pub const INLAID_TYPE_F16: i32 = 2;
/// The upper half of a binary32.
pub const INLAID_TYPE_BF16: i32 = 3;
/// 8 bits and a scale: for cached keys and values one f32 scale for each position of a head.
pub const INLAID_TYPE_Q8: i32 = 4;

/// The library chooses: where the budget has room, quantised weights and all those of a model with an encoder as
/// `INLAID_WEIGHTS_PACKED`; the rest as `INLAID_WEIGHTS_MAPPED`.
pub const INLAID_WEIGHTS_AUTO: i32 = 0;
/// Weights are used where they lie: no copy is made.
pub const INLAID_WEIGHTS_MAPPED: i32 = 1;
/// Weights are copied once into an interleaved layout, in the type they have: the same bits as mapped, faster.
pub const INLAID_WEIGHTS_PACKED: i32 = 2;
/// Weights are quantised to 8 bits (8.5 with scales) and packed.
pub const INLAID_WEIGHTS_Q8: i32 = 3;
/// Weights are quantised to 4 bits (4.5 with scales and minima), those of the head and of tables of tokens to 6, and packed.
pub const INLAID_WEIGHTS_Q4: i32 = 4;

/// Told while a model is opened: bytes done and bytes in all. Non-zero cancels: the open call answers
/// `INLAID_ERROR_CANCELLED`. Called on the thread of the call, no lock held; it must return normally.
pub type inlaid_progress_fn = Option<unsafe extern "C" fn(user: *mut c_void, done: u64, total: u64) -> i32>;

/// How a model is opened. Fill it with `inlaid_model_config_init`, then change what you need.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_model_config {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// Type of cached keys and values, `INLAID_TYPE_...`, default `INLAID_TYPE_AUTO`.
    pub cache_type: i32,
    /// 0 (default): weights are used where they lie, in mapped files or the caller's memory; opening takes no time and
    /// little private memory. A mapped file that another process truncates ends this one with SIGBUS, which no library
    /// can prevent. 1: everything is copied into private memory, files may change or vanish afterwards, and the checksums
    /// of a packed file are verified.
    pub copy: i32,
    /// 1: the tokenizer and the chat template are left out, for hosts that feed ids. Default 0.
    pub no_tokenizer: i32,
    /// Told while loading; may be NULL.
    pub progress: inlaid_progress_fn,
    /// The first argument of `progress`.
    pub progress_user: *mut c_void,
    /// How weights are held, `INLAID_WEIGHTS_...`, default `INLAID_WEIGHTS_AUTO`. A file that was written packed is mapped
    /// and stays as it is.
    pub weights: i32,
    /// Must be 0.
    pub reserved: i32,
}

// SAFETY: four words, two pointers and two words.
unsafe impl Versioned for inlaid_model_config {
    const NAME: &'static str = "model config";
    const SIZES: &'static [usize] = &[offset_of!(Self, weights), size_of::<Self>()];

    fn defaults() -> Self {
        inlaid_model_config {
            struct_size: size_of::<Self>() as u32,
            cache_type: INLAID_TYPE_AUTO,
            copy: 0,
            no_tokenizer: 0,
            progress: None,
            progress_user: null_mut(),
            weights: INLAID_WEIGHTS_AUTO,
            reserved: 0,
        }
    }
}

/// An open model: weights, tokenizer, chat template. Opaque, immutable, reference-counted; all its calls may be made from
/// many threads at once. Its sessions keep it alive.
pub struct inlaid_model {
    poisoned: AtomicBool,
    pub(super) model: Arc<Model>,
    /// The family's name for C.
    pub(super) family: CString,
}

impl Handle for inlaid_model {
    const NAME: &'static str = "model";

    fn poisoned(&self) -> &AtomicBool {
        &self.poisoned
    }
}

impl inlaid_model {
    pub(super) fn new(model: Arc<Model>) -> inlaid_model {
        let family = CString::new(model.arch().family).unwrap_or_default();
        inlaid_model { poisoned: AtomicBool::new(false), model, family }
    }
}

/// A flag of the header: 0 or 1.
pub(super) fn flag(name: &'static str, value: i32) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(argument(name, format!("expected 0 or 1, found {other}"))),
    }
}

/// The caller's progress function in Rust's words.
pub(super) fn telling(
    progress: inlaid_progress_fn,
    user: *mut c_void,
) -> Option<impl FnMut(u64, u64) -> ControlFlow<()>> {
    let user = User(user);
    progress.map(|tell| {
        move |done, total| {
            // SAFETY: the caller's function, with the arguments that the header promises it.
            let go_on = unsafe { tell(user.0, done, total) } == 0;
            if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        }
    })
}

/// Calls `open` with the caller's config in Rust's words.
fn configured<T>(c: &inlaid_model_config, open: impl FnOnce(ModelConfig) -> Result<T>) -> Result<T> {
    let cache = match c.cache_type {
        INLAID_TYPE_AUTO => None,
        INLAID_TYPE_F32 => Some(Cache::F32),
        INLAID_TYPE_F16 => Some(Cache::F16),
        INLAID_TYPE_BF16 => Some(Cache::BF16),
        INLAID_TYPE_Q8 => Some(Cache::Q8),
        other => return Err(argument("cache_type", format!("expected INLAID_TYPE_..., found {other}"))),
    };
    let weights = match c.weights {
        INLAID_WEIGHTS_AUTO => Hold::Auto,
        INLAID_WEIGHTS_MAPPED => Hold::Mapped,
        INLAID_WEIGHTS_PACKED => Hold::Packed,
        INLAID_WEIGHTS_Q8 => Hold::Q8,
        INLAID_WEIGHTS_Q4 => Hold::Q4,
        other => return Err(argument("weights", format!("expected INLAID_WEIGHTS_..., found {other}"))),
    };
    if c.reserved != 0 {
        return Err(argument("reserved", format!("expected 0, found {}", c.reserved)));
    }
    let mut tell = telling(c.progress, c.progress_user);
    open(ModelConfig {
        cache,
        weights,
        importance: None,
        copy: flag("copy", c.copy)?,
        no_tokenizer: flag("no_tokenizer", c.no_tokenizer)?,
        progress: tell.as_mut().map(|tell| tell as &mut dyn FnMut(u64, u64) -> ControlFlow<()>),
    })
}

/// Files at a path of the caller.
///
/// # Safety
/// As [`string`].
unsafe fn at(path: *const c_char) -> Result<Files> {
    // SAFETY: the caller's promise.
    Files::at(unsafe { string("path", path) }?)
}

/// Opens what `files` finds, and hands it out.
///
/// # Safety
/// Every pointer is NULL or what the header says.
unsafe fn open(
    engine: *const inlaid_engine,
    files: impl FnOnce() -> Result<(Files, Arc<AtomicBool>)>,
    config: *const inlaid_model_config,
    model: *mut *mut inlaid_model,
    err: *mut inlaid_error,
) -> i32 {
    let call = |engine: &inlaid_engine| {
        // SAFETY: the caller's promise.
        let config = unsafe {
            set("model", model, null_mut())?;
            read(config)?
        };
        let (files, taken) = files()?;
        let opened = configured(&config, |config| Model::open(&engine.engine, &files, config))?;
        taken.store(true, Relaxed);
        // SAFETY: `set` found that it may be written.
        unsafe { give(model, inlaid_model::new(opened)) };
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { with(engine, err, call) }
}

/// Says what opening what `files` finds would take.
///
/// # Safety
/// Every pointer is NULL or what the header says.
unsafe fn plan(
    engine: *const inlaid_engine,
    files: impl FnOnce() -> Result<Files>,
    config: *const inlaid_model_config,
    plan: *mut inlaid_memory_plan,
    err: *mut inlaid_error,
) -> i32 {
    let call = |engine: &inlaid_engine| {
        // SAFETY: the caller's promise.
        let config = unsafe { read(config) }?;
        let files = files()?;
        let found = configured(&config, |config| Model::plan(&engine.engine, &files, &config))?;
        // SAFETY: the caller's promise.
        unsafe { write(plan, plan_of(found)) }
    };
    // SAFETY: the caller's promise.
    unsafe { with(engine, err, call) }
}

/// Fills a config with defaults. `struct_size` is `sizeof(inlaid_model_config)`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_model_config_init(
    config: *mut inlaid_model_config,
    struct_size: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { guard(null_mut(), || init(config, struct_size)) }
}

/// Opens a model: a Hugging Face directory, a `.safetensors` file with its `config.json` beside it, an index of shards, or
/// a `.gguf` file. `path` is UTF-8, NUL-terminated. `config` may be NULL: defaults. On success `*model` is a reference that
/// the caller owns; on failure it is NULL. The model keeps the engine alive.
///
/// Errors: `INLAID_ERROR_IO`, `_FORMAT`, `_TENSOR`, `_UNSUPPORTED` for files that cannot be run rightly, `_TOKENIZER`,
/// `_TEMPLATE`, `_BUDGET`, `_MEMORY`, `_CANCELLED`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_model_open(
    engine: *const inlaid_engine,
    path: *const c_char,
    config: *const inlaid_model_config,
    model: *mut *mut inlaid_model,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe { open(engine, || Ok((at(path)?, Arc::default())), config, model, err) }
}

/// Opens a model whose `n_parts` files are in the caller's memory or in open files; otherwise as `inlaid_model_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_model_open_parts(
    engine: *const inlaid_engine,
    parts: *const inlaid_part,
    n_parts: usize,
    config: *const inlaid_model_config,
    model: *mut *mut inlaid_model,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe { open(engine, || files(parts, n_parts), config, model, err) }
}

/// Says what opening a model with this config would take; nothing stays open, and no weight is read. Arguments and errors
/// as of `inlaid_model_open`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_model_plan(
    engine: *const inlaid_engine,
    path: *const c_char,
    config: *const inlaid_model_config,
    memory: *mut inlaid_memory_plan,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe { plan(engine, || at(path), config, memory, err) }
}

/// As `inlaid_model_plan`, for parts. No `release` is called. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_model_plan_parts(
    engine: *const inlaid_engine,
    parts: *const inlaid_part,
    n_parts: usize,
    config: *const inlaid_model_config,
    memory: *mut inlaid_memory_plan,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe { plan(engine, || Ok(files(parts, n_parts)?.0), config, memory, err) }
}

/// Counts one more reference, which the caller owns. NULL is fine. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_model_retain(model: *const inlaid_model) {
    // SAFETY: the caller's promise.
    unsafe { retain(model) };
}

/// Gives back a reference. The model ends with its last reference, and after its last session. NULL is fine. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_model_free(model: *mut inlaid_model) {
    // SAFETY: the caller's promise.
    unsafe { free(model) };
}
