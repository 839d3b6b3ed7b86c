//! Floor 6: learning by steps: trainers, their steps, and what is kept of them.

use super::adapter::inlaid_adapter;
use super::args::{set, slice, string};
use super::error::{argument, inlaid_error};
use super::guard::{Handle, free, give, hold, retain, with};
use super::learning::{config_of, inlaid_train_config};
use super::model::inlaid_model;
use super::teaching;
use super::versioned::{Versioned, write};
use crate::error::{Error, Result};
use std::ffi::c_char;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, TryLockError};

/// Tokens of which the end is to be learnt. An element of an array: it never grows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_example {
    /// The tokens: a prompt and an answer.
    pub ids: *const u32,
    /// How many there are, two at least.
    pub n: usize,
    /// The first that is learnt, from 1 on: the tokens of the prompt. With `INLAID_OBJECTIVE_MASKED_TOKEN` the first that may
    /// be hidden; tokens that are special to the model's tokenizer never are.
    pub first: usize,
    /// Of rankings and preferences: the number of the prompt. Answers of one prompt follow each other, the best first.
    pub group: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Of a model that reads a source (see `inlaid_session_set_source`), the tokens that its encoder reads; `ids` are then its
    /// decoder's, which begin with `inlaid_model_first_token`. Other models have none.
    pub source: *const u32,
    /// How many there are.
    pub n_source: usize,
}

/// Its pointers followed.
#[cfg_attr(not(feature = "train"), expect(dead_code))]
pub(super) struct Example<'a> {
    pub ids: &'a [u32],
    /// Tokens that are not learnt.
    pub first: usize,
    pub source: &'a [u32],
}

/// What a step did.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_train_report {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Steps done, this one among them.
    pub step: u64,
    /// The loss before the step: a mean over tokens that count, or over prompts.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens that ran.
    pub tokens: u64,
}

// SAFETY: two words and four of eight bytes.
unsafe impl Versioned for inlaid_train_report {
    const NAME: &'static str = "report";
    const SIZES: &'static [usize] = &[size_of::<Self>()];

    fn defaults() -> Self {
        inlaid_train_report {
            struct_size: size_of::<Self>() as u32,
            reserved: 0,
            step: 0,
            loss: 0.0,
            grad_norm: 0.0,
            tokens: 0,
        }
    }
}

/// A model that learns, beside the one that is served: its sessions never see it. Opaque, reference-counted. One thread at a
/// time: a call that finds it in use answers `INLAID_ERROR_BUSY` at once; cancel, retain and free may be called from any.
pub struct inlaid_trainer {
    poisoned: AtomicBool,
    cancel: AtomicBool,
    inner: Mutex<teaching::Teacher>,
}

impl Handle for inlaid_trainer {
    const NAME: &'static str = "trainer";

    fn poisoned(&self) -> &AtomicBool {
        &self.poisoned
    }
}

/// Runs a call that uses a trainer, unless another one does. It never waits.
///
/// # Safety
/// As [`with`].
pub(super) unsafe fn teach(
    trainer: *const inlaid_trainer,
    err: *mut inlaid_error,
    call: impl FnOnce(&mut teaching::Teacher, &AtomicBool) -> Result<()>,
) -> i32 {
    let call = |handle: &inlaid_trainer| {
        let inner = handle.inner.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => Error::Busy,
            TryLockError::Poisoned(_) => Error::Poisoned,
        });
        let done = call(&mut *inner?, &handle.cancel);
        handle.cancel.store(false, Relaxed);
        done
    };
    // SAFETY: the caller's promise.
    unsafe { with(trainer, err, call) }
}

/// Hands a trainer to the caller.
///
/// # Safety
/// `out` is NULL or may be written.
pub(super) unsafe fn hand(out: *mut *mut inlaid_trainer, teacher: teaching::Teacher) -> Result<()> {
    super::args::writable("trainer", out)?;
    let trainer = inlaid_trainer {
        poisoned: AtomicBool::new(false),
        cancel: AtomicBool::new(false),
        inner: Mutex::new(teacher),
    };
    // SAFETY: just checked; the rest is the caller's promise.
    unsafe { give(out, trainer) };
    Ok(())
}

/// The caller's examples, and the numbers of their prompts.
///
/// # Safety
/// As [`slice`], for the array and those that its elements point to.
pub(super) unsafe fn examples_of<'a>(
    examples: *const inlaid_example,
    n: usize,
) -> Result<(Vec<Example<'a>>, Vec<u32>)> {
    let (mut all, mut groups) = (Vec::new(), Vec::new());
    // SAFETY: the caller's promise.
    for example in unsafe { slice("examples", examples, n) }? {
        // SAFETY: the caller's promise.
        let (ids, source) = unsafe {
            (slice("ids", example.ids, example.n)?, slice("source", example.source, example.n_source)?)
        };
        if example.first == 0 || example.first >= ids.len() || example.reserved != 0 {
            let what = "expected examples of at least one token and one to learn, and reserved to be 0";
            return Err(argument("examples", what));
        }
        all.push(Example { ids, first: example.first, source });
        groups.push(example.group);
    }
    Ok((all, groups))
}

/// Makes a trainer of a model: private copies of what learns, gradients, and an optimiser. `config` may be NULL.
///
/// Errors: `INLAID_ERROR_ARGUMENT`, `_MEMORY`, `_BUDGET`; `_UNSUPPORTED` from a library built without training. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_trainer_new(
    model: *const inlaid_model,
    config: *const inlaid_train_config,
    trainer: *mut *mut inlaid_trainer,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        // SAFETY: the caller's promise, for each pointer.
        unsafe {
            set("trainer", trainer, null_mut())?;
            let config = config_of(config)?;
            hand(trainer, teaching::Teacher::new(&handle.model, &config)?)
        }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

/// Adds a reference to a trainer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_trainer_retain(trainer: *const inlaid_trainer) {
    // SAFETY: the caller's promise.
    unsafe { retain(trainer) };
}

/// Gives back a reference; the last one ends the trainer. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_trainer_free(trainer: *const inlaid_trainer) {
    // SAFETY: the caller's promise.
    unsafe { free(trainer) };
}

/// Ends the call that uses the trainer with `INLAID_ERROR_CANCELLED`, soon; the trainer is where it was before that call. Any
/// thread, while another one uses the trainer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_trainer_cancel(trainer: *const inlaid_trainer) {
    super::guard::quiet(|| {
        // SAFETY: the caller's promise.
        if let Ok(handle) = unsafe { hold(trainer) } {
            handle.cancel.store(true, Relaxed);
        }
    });
}

/// One step of the optimiser over `n` examples, at learning rate `rate`. `report` may be NULL.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for examples that teach nothing, ids beyond the vocabulary, sources where the model reads
/// none and none where it reads them, or gradients that are not finite; `_CONTEXT_FULL` for one longer than the model can hold;
/// `_CANCELLED`, `_MEMORY`, `_BUDGET`, `_BUSY`. Nothing has been learnt then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_trainer_step(
    trainer: *mut inlaid_trainer,
    examples: *const inlaid_example,
    n: usize,
    rate: f32,
    report: *mut inlaid_train_report,
    err: *mut inlaid_error,
) -> i32 {
    let call = |teacher: &mut teaching::Teacher, cancel: &AtomicBool| {
        // SAFETY: the caller's promise, for each pointer.
        unsafe {
            let (lessons, groups) = examples_of(examples, n)?;
            let done = teacher.step(&lessons, &groups, rate, cancel)?;
            if report.is_null() { Ok(()) } else { write(report, done) }
        }
    };
    // SAFETY: the caller's promise.
    unsafe { teach(trainer, err, call) }
}

/// Writes what the trainer has become to a new directory `out`. Where that is an adapter, it is in the form of the peft
/// library (bottlenecks: of the adapters library); `source` may be NULL then. Else it is a model that opens like any other:
/// what has learned in 32-bit floats, all else as it is in `source`, the directory that the model was opened from.
///
/// Errors: `INLAID_ERROR_IO`; `_UNSUPPORTED` where the weights are in GGUF or packed; `_BUSY`. Nothing is left then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_trainer_save(
    trainer: *mut inlaid_trainer,
    source: *const c_char,
    out: *const c_char,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe {
        teach(trainer, err, |teacher, _| {
            let source = if source.is_null() { None } else { Some(string("source", source)?) };
            teacher.save(source, string("out", out)?)
        })
    }
}

/// What a trainer of an adapter has learnt so far, as an adapter of its model: give it to sessions, merge it, save it.
/// It does not change when the trainer goes on. On success `*adapter` is a reference that the caller owns; on failure it is NULL.
///
/// Errors: `INLAID_ERROR_ARGUMENT` where something else learns; `_BUDGET`, `_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_trainer_adapter(
    trainer: *mut inlaid_trainer,
    adapter: *mut *mut inlaid_adapter,
    err: *mut inlaid_error,
) -> i32 {
    let call = |teacher: &mut teaching::Teacher, _: &AtomicBool| {
        // SAFETY: the caller's promise, for each pointer.
        unsafe {
            set("adapter", adapter, null_mut())?;
            give(adapter, inlaid_adapter::new(teacher.adapter()?));
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { teach(trainer, err, call) }
}

/// Writes a checkpoint into directory `dir`: all that a trainer goes on from, with the same bits. The one before is removed
/// once this one is whole.
///
/// Errors: `INLAID_ERROR_IO`, `_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_trainer_checkpoint(
    trainer: *mut inlaid_trainer,
    dir: *const c_char,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe { teach(trainer, err, |teacher, _| teacher.checkpoint(string("dir", dir)?)) }
}

/// Brings a new trainer of the same model and config to where the newest checkpoint in `dir` was written.
///
/// Errors: `INLAID_ERROR_IO`, also where there is none; `_FORMAT` and `_TENSOR` for one of another trainer; `_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_trainer_restore(
    trainer: *mut inlaid_trainer,
    dir: *const c_char,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe { teach(trainer, err, |teacher, _| teacher.restore(string("dir", dir)?)) }
}
