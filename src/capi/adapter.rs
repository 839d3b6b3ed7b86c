//! Floor 6: the adapter handle: read, described, saved; and what models and sessions do with adapters.

use super::args::{set, slice, string};
use super::error::{argument, inlaid_error};
use super::guard::{Handle, free, give, hold, retain, with};
use super::model::inlaid_model;
use super::session::{inlaid_session, using};
use super::versioned::{Versioned, write};
use crate::adapter::{Adapter, Kind};
use crate::error::Result;
use crate::format::files::Files;
use std::ffi::c_char;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Products of two narrow matrices beside the model's own (LoRA, DoRA), whole modules, biases.
pub const INLAID_ADAPTER_LORA: i32 = 0;
/// Factors of keys, values and inner activations (IA3).
pub const INLAID_ADAPTER_IA3: i32 = 1;
/// Vectors before the tokens' own (prompt tuning).
pub const INLAID_ADAPTER_PROMPT: i32 = 2;
/// Keys and values before the tokens' own (prefix tuning).
pub const INLAID_ADAPTER_PREFIX: i32 = 3;

/// Small MLPs behind the halves of blocks (bottleneck adapters of the adapters library).
pub const INLAID_ADAPTER_BOTTLENECK: i32 = 4;

/// What an adapter is. Set `struct_size`, then call `inlaid_adapter_get_info`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_adapter_info {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// `INLAID_ADAPTER_...`.
    pub kind: i32,
    /// The largest rank of its products; 0 without any.
    pub rank: u32,
    /// Vectors that it puts before a text: they take room of a session's context.
    pub virtual_tokens: u32,
    /// Modules that it changes.
    pub modules: u64,
    /// Numbers that it has.
    pub parameters: u64,
}

// SAFETY: four words and two u64.
unsafe impl Versioned for inlaid_adapter_info {
    const NAME: &'static str = "adapter info";
    const SIZES: &'static [usize] = &[size_of::<Self>()];

    fn defaults() -> Self {
        inlaid_adapter_info {
            struct_size: size_of::<Self>() as u32,
            kind: INLAID_ADAPTER_LORA,
            rank: 0,
            virtual_tokens: 0,
            modules: 0,
            parameters: 0,
        }
    }
}

/// An adapter of one model, in the form of the peft library. Opaque, immutable, reference-counted; all its calls may be made
/// from many threads at once, and any number of sessions may use it. Who uses it keeps it alive.
pub struct inlaid_adapter {
    poisoned: AtomicBool,
    adapter: Arc<Adapter>,
}

impl inlaid_adapter {
    pub(super) fn new(adapter: Arc<Adapter>) -> inlaid_adapter {
        inlaid_adapter { poisoned: AtomicBool::new(false), adapter }
    }
}

impl Handle for inlaid_adapter {
    const NAME: &'static str = "adapter";

    fn poisoned(&self) -> &AtomicBool {
        &self.poisoned
    }
}

/// The adapters of a call with their weights.
///
/// # Safety
/// `adapters` and `weights` are NULL or point to `n` values; the adapters are NULL or live handles.
unsafe fn list(
    adapters: *const *const inlaid_adapter,
    weights: *const f32,
    n: usize,
) -> Result<Vec<(Arc<Adapter>, f32)>> {
    // SAFETY: the caller's promise.
    let adapters = unsafe { slice("adapters", adapters, n) }?;
    let weights = match weights.is_null() {
        true => &[][..],
        // SAFETY: the caller's promise.
        false => unsafe { slice("weights", weights, n) }?,
    };
    let one = |(i, adapter): (usize, &*const inlaid_adapter)| {
        // SAFETY: the caller's promise.
        let adapter =
            unsafe { hold(*adapter) }.map_err(|_| argument("adapters", format!("number {i} is NULL")))?;
        Ok((adapter.adapter.clone(), weights.get(i).copied().unwrap_or(1.0)))
    };
    adapters.iter().enumerate().map(one).collect()
}

/// Reads an adapter of `model`: a directory with `adapter_config.json` and `adapter_model.safetensors` as peft writes it.
/// Every tensor must be one that the settings name, in a shape that the model asks for; settings that change what is
/// computed and are not understood are refused by name. On success `*adapter` is a reference that the caller owns; on failure
/// it is NULL. It can be used with this model alone, which it does not keep alive.
///
/// Errors: `INLAID_ERROR_IO`, `_FORMAT`, `_TENSOR`, `_UNSUPPORTED`, `_BUDGET`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_adapter_open(
    model: *const inlaid_model,
    path: *const c_char,
    adapter: *mut *mut inlaid_adapter,
    err: *mut inlaid_error,
) -> i32 {
    let call = |model: &inlaid_model| {
        // SAFETY: the caller's promise.
        let path = unsafe {
            set("adapter", adapter, null_mut())?;
            string("path", path)?
        };
        let read = model.model.adapter(&Files::at(path)?)?;
        // SAFETY: `set` found that it may be written.
        unsafe { give(adapter, inlaid_adapter::new(read)) };
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

/// Says what an adapter is. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_adapter_get_info(
    adapter: *const inlaid_adapter,
    info: *mut inlaid_adapter_info,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_adapter| {
        let adapter = &handle.adapter;
        let found = inlaid_adapter_info {
            kind: match adapter.config().kind {
                Kind::Lora => INLAID_ADAPTER_LORA,
                Kind::Ia3 => INLAID_ADAPTER_IA3,
                Kind::PromptTuning => INLAID_ADAPTER_PROMPT,
                Kind::PrefixTuning => INLAID_ADAPTER_PREFIX,
                Kind::Bottleneck => INLAID_ADAPTER_BOTTLENECK,
            },
            rank: adapter.rank() as u32,
            virtual_tokens: adapter.config().virtual_tokens as u32,
            modules: adapter.modules().len() as u64,
            parameters: adapter.parameters(),
            ..inlaid_adapter_info::defaults()
        };
        // SAFETY: the caller's promise.
        unsafe { write(info, found) }
    };
    // SAFETY: the caller's promise.
    unsafe { with(adapter, err, call) }
}

/// Writes an adapter to the directory `path`, which is made where it is not there, in a form that peft reads as its own.
/// Each of its two files is there whole or not at all.
///
/// Errors: `INLAID_ERROR_IO` (a full disk is one). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_adapter_save(
    adapter: *const inlaid_adapter,
    path: *const c_char,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_adapter| {
        // SAFETY: the caller's promise.
        let path = unsafe { string("path", path) }?;
        handle.adapter.save(Path::new(path))
    };
    // SAFETY: the caller's promise.
    unsafe { with(adapter, err, call) }
}

/// Counts one more reference, which the caller owns. NULL is fine. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_adapter_retain(adapter: *const inlaid_adapter) {
    // SAFETY: the caller's promise.
    unsafe { retain(adapter) };
}

/// Gives back a reference. The adapter ends with its last reference, and after the last session that uses it. NULL is fine.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_adapter_free(adapter: *mut inlaid_adapter) {
    // SAFETY: the caller's promise.
    unsafe { free(adapter) };
}

/// Gives a session these adapters, in place of those before; with `n` 0 it has none. `weights` says how much each counts:
/// what an adapter changes is multiplied by its weight; NULL: 1 each. The tokens stay and run anew with the next call that
/// computes, as if the session had had these adapters all along. Other sessions of the model keep theirs, and all can step in
/// one batch.
///
/// Errors: `INLAID_ERROR_ARGUMENT` (adapters of another model, weights that are no numbers, two prompts), `_CONTEXT_FULL`,
/// `_BUDGET`, `_MEMORY`, `_BUSY`: the session is then as it was before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_session_set_adapters(
    session: *mut inlaid_session,
    adapters: *const *const inlaid_adapter,
    weights: *const f32,
    n: usize,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { using(session, err, |session| session.set_adapters(&list(adapters, weights, n)?)) }
}

/// Gives these adapters to whatever names none: sessions that are made from now on, texts, beams; with `n` 0 none. Sessions
/// that are there keep what they have. Arguments as of `inlaid_session_set_adapters`.
///
/// Errors: `INLAID_ERROR_ARGUMENT`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_model_attach(
    model: *const inlaid_model,
    adapters: *const *const inlaid_adapter,
    weights: *const f32,
    n: usize,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { with(model, err, |model: &inlaid_model| model.model.attach(&list(adapters, weights, n)?)) }
}

/// Adds these adapters into private copies of the matrices that they change, in place of what was merged before: they cost
/// no time per token then. 16-bit weights are rounded once more. The call waits for a run that goes on; sessions of the
/// model compute what they hold anew with their next call. Arguments as of `inlaid_session_set_adapters`.
///
/// Errors: `INLAID_ERROR_UNSUPPORTED` (quantised weights, prompts, prefixes, bottlenecks: attach), `_ARGUMENT`, `_TENSOR`,
/// `_BUDGET`, `_MEMORY`: nothing changes then. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_model_merge(
    model: *const inlaid_model,
    adapters: *const *const inlaid_adapter,
    weights: *const f32,
    n: usize,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { with(model, err, |model: &inlaid_model| model.model.merge(&list(adapters, weights, n)?)) }
}

/// Drops the copies: the model is exactly what its files say again. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_model_unmerge(model: *const inlaid_model, err: *mut inlaid_error) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { with(model, err, |model: &inlaid_model| model.model.unmerge()) }
}
