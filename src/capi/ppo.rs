//! Floor 6: learning from rewards, in pieces that fit between a host's other work.

use super::args::{fill, set, slice};
use super::error::inlaid_error;
use super::guard::{guard, with};
use super::learning::{config_of, inlaid_train_config};
use super::model::inlaid_model;
use super::teaching;
use super::train::{examples_of, hand, inlaid_example, inlaid_trainer, teach};
use super::versioned::{Versioned, init, read, write};
use crate::error::Result;
use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;

/// There is more to do: call `inlaid_ppo_advance` again.
pub const INLAID_PPO_MORE: i32 = 0;
/// Answers are drawn: say what they are worth with `inlaid_ppo_set_rewards`.
pub const INLAID_PPO_REWARDS: i32 = 1;
/// The round is done.
pub const INLAID_PPO_DONE: i32 = 2;

/// How a policy learns from rewards. Fill it with `inlaid_ppo_config_init` (the published defaults), then change what you need.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_ppo_config {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// Most tokens of an answer; default 64.
    pub max_tokens: u32,
    /// Times that each answer is learnt from; default 4.
    pub epochs: u32,
    /// Answers of a minibatch, a step of the optimiser each; default 4.
    pub minibatch: u32,
    /// Learning rate; default 1e-5.
    pub rate: f32,
    /// What logits are divided by, in drawing and learning; default 1.
    pub temperature: f32,
    /// Weight of a token's divergence from the model that is served, at first; default 0.05.
    pub kl_coef: f32,
    /// Divergence of an answer, in nats, that the weight is moved towards; 0 (default): the weight stays.
    pub kl_target: f32,
    /// Answers over which an error of the divergence counts once; default 10000.
    pub kl_horizon: f32,
    /// Discount of later rewards; default 1.
    pub gamma: f32,
    /// Share of later errors in advantages; default 0.95.
    pub lam: f32,
    /// How far a ratio counts; default 0.2.
    pub clip_policy: f32,
    /// How far a value may move; default 0.2.
    pub clip_value: f32,
    /// Weight of the values' loss; default 0.1.
    pub vf_coef: f32,
    /// Weight of the entropy; default 0.
    pub entropy_coef: f32,
    /// 1: rewards are brought to variance 1 first. Default 0.
    pub whiten_rewards: i32,
    /// Weight of the loss of pretraining, where `inlaid_ppo_set_mix` gives some; default 27.8.
    pub mix_coef: f32,
    /// Examples of pretraining in each minibatch; default 4.
    pub mix_batch: u32,
}

// SAFETY: eighteen words.
unsafe impl Versioned for inlaid_ppo_config {
    const NAME: &'static str = "ppo config";
    const SIZES: &'static [usize] = &[size_of::<Self>()];

    fn defaults() -> Self {
        inlaid_ppo_config {
            struct_size: size_of::<Self>() as u32,
            max_tokens: 64,
            epochs: 4,
            minibatch: 4,
            rate: 1e-5,
            temperature: 1.0,
            kl_coef: 0.05,
            kl_target: 0.0,
            kl_horizon: 10_000.0,
            gamma: 1.0,
            lam: 0.95,
            clip_policy: 0.2,
            clip_value: 0.2,
            vf_coef: 0.1,
            entropy_coef: 0.0,
            whiten_rewards: 0,
            mix_coef: 27.8,
            mix_batch: 4,
        }
    }
}

/// What a round of answers and updates did.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_ppo_stats {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Rounds done.
    pub round: u64,
    /// Mean reward of an answer.
    pub reward: f64,
    /// Mean divergence of an answer from the served model, in nats.
    pub kl: f64,
    /// Weight of the divergence in this round.
    pub kl_coef: f64,
    /// Mean of the policy's loss.
    pub policy_loss: f64,
    /// Mean of the values' loss.
    pub value_loss: f64,
    /// Mean entropy of a token, where it has a weight.
    pub entropy: f64,
    /// Share of tokens whose ratio was clipped.
    pub clip_fraction: f64,
    /// Mean divergence from the policy that drew.
    pub approx_kl: f64,
    /// Share of the returns' variance that values explained.
    pub explained_variance: f64,
    /// Mean tokens of an answer.
    pub tokens: f64,
    /// Mean norm of a gradient before clipping.
    pub grad_norm: f64,
    /// Mean loss of the pretraining that was mixed in, in nats a token, without its weight; 0 where there was none.
    pub mix_loss: f64,
}

// SAFETY: two words and thirteen of eight bytes.
unsafe impl Versioned for inlaid_ppo_stats {
    const NAME: &'static str = "stats";
    const SIZES: &'static [usize] = &[size_of::<Self>()];

    fn defaults() -> Self {
        inlaid_ppo_stats {
            struct_size: size_of::<Self>() as u32,
            reserved: 0,
            round: 0,
            reward: 0.0,
            kl: 0.0,
            kl_coef: 0.0,
            policy_loss: 0.0,
            value_loss: 0.0,
            entropy: 0.0,
            clip_fraction: 0.0,
            approx_kl: 0.0,
            explained_variance: 0.0,
            tokens: 0.0,
            grad_norm: 0.0,
            mix_loss: 0.0,
        }
    }
}

/// Fills `*config`, of `struct_size` bytes, with the defaults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_ppo_config_init(config: *mut inlaid_ppo_config, struct_size: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { guard(null_mut(), || init(config, struct_size)) }
}

/// Makes a trainer that learns from rewards (PPO). Both configs may be NULL. The reference that it is kept near is the model as
/// it is served, which costs no memory.
///
/// Errors: as `inlaid_trainer_new`; `INLAID_ERROR_UNSUPPORTED` for a model that writes no text by itself. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_ppo_new(
    model: *const inlaid_model,
    learn: *const inlaid_train_config,
    config: *const inlaid_ppo_config,
    trainer: *mut *mut inlaid_trainer,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        // SAFETY: the caller's promise, for each pointer.
        unsafe {
            set("trainer", trainer, null_mut())?;
            let (learn, config) = (config_of(learn)?, read(config)?);
            hand(trainer, teaching::Teacher::ppo(&handle.model, &learn, &config)?)
        }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}

/// Mixes pretraining into what the policy learns from now on: beside every minibatch some of these `n` examples are learnt, so
/// that it forgets less of the language (PPO-ptx). Their ids are copied, `group` is not looked at; 0 examples end it. They are
/// no part of a checkpoint: give the same ones to a trainer that goes on.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for examples that teach nothing, ids beyond the vocabulary, or a trainer that does not learn
/// from rewards; `_CONTEXT_FULL` for one longer than the model can hold; `_BUSY`. Nothing has changed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_ppo_set_mix(
    trainer: *mut inlaid_trainer,
    examples: *const inlaid_example,
    n: usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |teacher: &mut teaching::Teacher, _: &AtomicBool| -> Result<()> {
        // SAFETY: the caller's promise.
        teacher.set_mix(&unsafe { examples_of(examples, n) }?.0)
    };
    // SAFETY: the caller's promise.
    unsafe { teach(trainer, err, call) }
}

/// Begins a round: an answer will be drawn to each of `n` prompts. Prompt i is the `lens[i]` ids that follow those before it in
/// `ids`; of a model that reads a source, its encoder reads them. What another round left is dropped.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for no prompts, empty ones, or a trainer that does not learn from rewards; `_CONTEXT_FULL`,
/// `_MEMORY`, `_BUDGET`, `_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_ppo_begin(
    trainer: *mut inlaid_trainer,
    ids: *const u32,
    lens: *const usize,
    n: usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |teacher: &mut teaching::Teacher, _: &AtomicBool| {
        // SAFETY: the caller's promise, for each pointer.
        unsafe {
            let lens = slice("lens", lens, n)?;
            let total = lens.iter().try_fold(0_usize, |sum, len| sum.checked_add(*len)).unwrap_or(usize::MAX);
            let mut rest = slice("ids", ids, total)?;
            let prompts = lens.iter().map(|len| {
                let (own, others) = rest.split_at(*len);
                rest = others;
                own.to_vec()
            });
            teacher.begin(&prompts.collect::<Vec<_>>())
        }
    };
    // SAFETY: the caller's promise.
    unsafe { teach(trainer, err, call) }
}

/// Works on the round for about `budget_us` microseconds, at least one piece: a token of every answer, a look at the reference,
/// or a minibatch. `*progress` receives `INLAID_PPO_...`.
///
/// Errors: `INLAID_ERROR_ARGUMENT` where no round was begun, or gradients are not finite; `_CANCELLED`, `_MEMORY`, `_BUDGET`,
/// `_BUSY`. The piece is done again by the next call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_ppo_advance(
    trainer: *mut inlaid_trainer,
    budget_us: u64,
    progress: *mut i32,
    err: *mut inlaid_error,
) -> i32 {
    let call = |teacher: &mut teaching::Teacher, cancel: &AtomicBool| {
        let done = teacher.advance(budget_us, cancel)?;
        // SAFETY: the caller's promise.
        unsafe { set("progress", progress, done) }
    };
    // SAFETY: the caller's promise.
    unsafe { teach(trainer, err, call) }
}

/// The ids of answer `i` of the round, once `INLAID_PPO_REWARDS` was reported; a closing end token among them.
///
/// Errors: `INLAID_ERROR_ARGUMENT` where there is no such answer (yet), `_BUFFER`, `_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_ppo_answer(
    trainer: *mut inlaid_trainer,
    i: usize,
    ids: *mut u32,
    capacity: usize,
    n: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |teacher: &mut teaching::Teacher, _: &AtomicBool| {
        // SAFETY: the caller's promise, for each pointer.
        unsafe { fill("ids", teacher.answer(i)?, ids, capacity, n) }
    };
    // SAFETY: the caller's promise.
    unsafe { teach(trainer, err, call) }
}

/// Says what each of the `n` answers of the round is worth.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for another number of rewards than answers, one that is not finite, or where none are waited
/// for; `_BUSY`. The round is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_ppo_set_rewards(
    trainer: *mut inlaid_trainer,
    rewards: *const f32,
    n: usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |teacher: &mut teaching::Teacher, _: &AtomicBool| -> Result<()> {
        // SAFETY: the caller's promise.
        teacher.set_rewards(unsafe { slice("rewards", rewards, n) }?)
    };
    // SAFETY: the caller's promise.
    unsafe { teach(trainer, err, call) }
}

/// What the last round did.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for a trainer that does not learn from rewards, `_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_ppo_get_stats(
    trainer: *mut inlaid_trainer,
    stats: *mut inlaid_ppo_stats,
    err: *mut inlaid_error,
) -> i32 {
    let call = |teacher: &mut teaching::Teacher, _: &AtomicBool| {
        // SAFETY: the caller's promise.
        unsafe { write(stats, teacher.stats()?) }
    };
    // SAFETY: the caller's promise.
    unsafe { teach(trainer, err, call) }
}
