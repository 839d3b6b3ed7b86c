//! Floor 6: how a session chooses tokens.

use super::args::slice;
use super::guard::guard;
use super::versioned::{Versioned, init, read};
use crate::error::Result;
use crate::sample::SamplerConfig;
use std::ptr::{null, null_mut};

/// How tokens are chosen. Fill it with `inlaid_sampler_init` (greedy), then change what you need. The settings work in
/// this order: logit bias, repetition, frequency and presence penalties, temperature, `top_k`, `top_p`, `min_p`, one draw.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_sampler {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// Divides the logits; 0 (default): always the most likely token, the lowest id among equals.
    pub temperature: f32,
    /// Only the `top_k` most likely tokens; 0 (default): all.
    pub top_k: u32,
    /// Only the most likely tokens that have this probability together, in (0, 1]; default 1.
    pub top_p: f32,
    /// Only tokens with at least this share of the highest probability, in [0, 1]; default 0.
    pub min_p: f32,
    /// Divides positive logits of tokens seen before and multiplies negative ones; 1 (default): none.
    pub repetition_penalty: f32,
    /// Taken from a token's logit once for each time it was seen; default 0.
    pub frequency_penalty: f32,
    /// Taken from a token's logit if it was seen; default 0.
    pub presence_penalty: f32,
    /// Only the last so many tokens count as seen; 0 (default): all.
    pub penalty_window: u32,
    /// Entries of `logit_bias_ids` and of `logit_bias`.
    pub n_logit_bias: u32,
    /// Tokens with a bias. Copied by the call.
    pub logit_bias_ids: *const u32,
    /// What is added to their logits; `-INFINITY` bans a token. Copied by the call.
    pub logit_bias: *const f32,
    /// The same seed, tokens and logits give the same choice, on every machine. Default 0.
    pub seed: u64,
}

// SAFETY: ten words, two pointers and a u64.
unsafe impl Versioned for inlaid_sampler {
    const NAME: &'static str = "sampler";
    const SIZES: &'static [usize] = &[size_of::<Self>()];

    fn defaults() -> Self {
        let d = SamplerConfig::default();
        inlaid_sampler {
            struct_size: size_of::<Self>() as u32,
            temperature: d.temperature,
            top_k: 0,
            top_p: d.top_p,
            min_p: d.min_p,
            repetition_penalty: d.repetition_penalty,
            frequency_penalty: d.frequency_penalty,
            presence_penalty: d.presence_penalty,
            penalty_window: 0,
            n_logit_bias: 0,
            logit_bias_ids: null(),
            logit_bias: null(),
            seed: d.seed,
        }
    }
}

/// The caller's settings; NULL: greedy.
///
/// # Safety
/// `from` is NULL or points to a struct with valid fields.
pub(super) unsafe fn sampler(from: *const inlaid_sampler) -> Result<SamplerConfig> {
    // SAFETY: the caller's promise.
    let s = unsafe { read(from) }?;
    let n = s.n_logit_bias as usize;
    // SAFETY: the caller's promise.
    let (ids, bias) =
        unsafe { (slice("logit_bias_ids", s.logit_bias_ids, n)?, slice("logit_bias", s.logit_bias, n)?) };
    Ok(SamplerConfig {
        temperature: s.temperature,
        top_k: s.top_k as usize,
        top_p: s.top_p,
        min_p: s.min_p,
        repetition_penalty: s.repetition_penalty,
        frequency_penalty: s.frequency_penalty,
        presence_penalty: s.presence_penalty,
        penalty_window: s.penalty_window as usize,
        logit_bias: ids.iter().copied().zip(bias.iter().copied()).collect(),
        seed: s.seed,
    })
}

/// Fills settings with defaults: greedy. `struct_size` is `sizeof(inlaid_sampler)`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_sampler_init(sampler: *mut inlaid_sampler, struct_size: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { guard(null_mut(), || init(sampler, struct_size)) }
}
