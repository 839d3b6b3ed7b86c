//! Floor 6: learning by steps: what a trainer is made with, its steps, and what is kept of it.

use super::adapter::inlaid_adapter;
use super::args::{set, slice, string};
use super::error::{argument, inlaid_error};
use super::guard::{Handle, free, give, guard, hold, retain, with};
use super::model::inlaid_model;
use super::teaching;
use super::versioned::{Versioned, init, read, write};
use crate::error::{Error, Result};
use std::ffi::c_char;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, TryLockError};

/// Every parameter learns: private copies in 32-bit floats.
pub const INLAID_LEARN_ALL: i32 = 0;
/// The parameters whose tensors' names contain one of `targets` learn.
pub const INLAID_LEARN_NAMED: i32 = 1;
/// Low-rank additions to linears learn (LoRA); the weights stay as they are, of whatever type.
pub const INLAID_LEARN_LORA: i32 = 2;

/// Cross-entropy of next tokens: supervised fine-tuning, or the language itself.
pub const INLAID_OBJECTIVE_NEXT_TOKEN: i32 = 0;
/// A reward model's loss on ranked answers, of a model with one output.
pub const INLAID_OBJECTIVE_REWARD: i32 = 1;
/// Preferences without a reward model (DPO).
pub const INLAID_OBJECTIVE_DPO: i32 = 2;

/// Cross-entropy of tokens that are hidden in whole texts, of a masked language model (BERT).
pub const INLAID_OBJECTIVE_MASKED_TOKEN: i32 = 3;

/// How a trainer learns. Fill it with `inlaid_train_config_init`, then change what you need. Arrays are copied by the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_train_config {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// What is minimised, `INLAID_OBJECTIVE_...`, default `_NEXT_TOKEN`. `inlaid_ppo_new` does not look at it.
    pub objective: i32,
    /// What learns, `INLAID_LEARN_...`, default `_ALL`.
    pub learn: i32,
    /// With `INLAID_LEARN_LORA`: the inner width of an addition; default 8.
    pub lora_rank: u32,
    /// With `INLAID_LEARN_LORA`: an addition is multiplied by this over its rank; default 16.
    pub lora_alpha: f32,
    /// Decays of the optimiser's (AdamW) means of gradients and of their squares; default 0.9 and 0.999.
    pub beta1: f32,
    /// See `beta1`.
    pub beta2: f32,
    /// Added to the root of the corrected mean of squares, as PyTorch does; default 1e-8.
    pub epsilon: f32,
    /// Weight decay of matrices; default 0.
    pub weight_decay: f32,
    /// Gradients with a larger norm are scaled down to it; 0: none are. Default 1.
    pub clip: f32,
    /// Share of each target that is spread over all tokens; default 0.
    pub smoothing: f32,
    /// With `INLAID_OBJECTIVE_DPO`: how much staying near the model that it was counts; default 0.1.
    pub dpo_beta: f32,
    /// Most tokens that run at once, unless one example has more; default 2048.
    pub pass_tokens: u32,
    /// Entries of `targets` (default 0).
    pub n_targets: u32,
    /// Parts of names of tensors, NUL-terminated; with `INLAID_LEARN_LORA`, none means every linear but the head.
    pub targets: *const *const c_char,
    /// Decides what is random. Default 0.
    pub seed: u64,
    /// With `INLAID_OBJECTIVE_MASKED_TOKEN`: the share of each text's tokens that are to be guessed, at least one; in the place
    /// of 8 of 10 of them stands the mask, of 1 a random token. Drawn anew in each step; default 0.15.
    pub mask_share: f32,
    /// The token that stands for one that is hidden; -1 (default): what the model's tokenizer says.
    pub mask_token: i32,
    /// 1: blocks are computed again for their gradients: less memory, about a third more time, the same bits. Default 0.
    pub recompute: i32,
    /// Must be 0.
    pub reserved: u32,
}

// SAFETY: fourteen words, a pointer, a u64 and four words.
unsafe impl Versioned for inlaid_train_config {
    const NAME: &'static str = "train config";
    const SIZES: &'static [usize] = &[size_of::<Self>()];

    fn defaults() -> Self {
        inlaid_train_config {
            struct_size: size_of::<Self>() as u32,
            objective: INLAID_OBJECTIVE_NEXT_TOKEN,
            learn: INLAID_LEARN_ALL,
            lora_rank: 8,
            lora_alpha: 16.0,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip: 1.0,
            smoothing: 0.0,
            dpo_beta: 0.1,
            pass_tokens: 2048,
            n_targets: 0,
            targets: null(),
            seed: 0,
            mask_share: 0.15,
            mask_token: -1,
            recompute: 0,
            reserved: 0,
        }
    }
}

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

/// The caller's config, and its targets.
///
/// # Safety
/// `from` is NULL or points to a struct with valid fields.
pub(super) unsafe fn config_of(
    from: *const inlaid_train_config,
) -> Result<(inlaid_train_config, Vec<String>)> {
    // SAFETY: the caller's promise, for the struct and its array.
    unsafe {
        let c = read(from)?;
        if c.reserved != 0 {
            return Err(argument("reserved", format!("expected 0, found {}", c.reserved)));
        }
        let names = slice("targets", c.targets, c.n_targets as usize)?;
        let targets = names.iter().map(|name| string("targets", *name).map(str::to_owned));
        Ok((c, targets.collect::<Result<_>>()?))
    }
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

/// Fills `*config`, of `struct_size` bytes, with the defaults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_train_config_init(
    config: *mut inlaid_train_config,
    struct_size: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { guard(null_mut(), || init(config, struct_size)) }
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
            let (config, targets) = config_of(config)?;
            hand(trainer, teaching::Teacher::new(&handle.model, &config, targets)?)
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

/// Writes what the trainer has become to a new directory `out`. With `INLAID_LEARN_LORA` that is an adapter in the form of the
/// peft library; `source` may be NULL then. Else it is a model that opens like any other: what has learned in 32-bit floats,
/// all else as it is in `source`, the directory that the model was opened from.
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

/// What a trainer with `INLAID_LEARN_LORA` has learnt so far, as an adapter of its model: give it to sessions, merge it, save it.
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
