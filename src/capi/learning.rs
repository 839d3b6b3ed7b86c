//! Floor 6: what a trainer is made with. Knows no learning.

use super::args::{slice, string};
use super::error::argument;
use super::guard::guard;
use super::versioned::{Versioned, init, read};
use crate::error::Result;
use std::ffi::c_char;
use std::ptr::{null, null_mut};

/// Every parameter learns: private copies in 32-bit floats.
pub const INLAID_LEARN_ALL: i32 = 0;
/// The parameters whose tensors' names contain one of `targets` learn.
pub const INLAID_LEARN_NAMED: i32 = 1;
/// Low-rank additions to linears learn (LoRA); the weights stay as they are, of whatever type.
pub const INLAID_LEARN_LORA: i32 = 2;
/// The same, and magnitudes of rows apart from their directions (DoRA).
pub const INLAID_LEARN_DORA: i32 = 3;
/// Factors of what linears return or read learn (IA3).
pub const INLAID_LEARN_IA3: i32 = 4;
/// Vectors before a text learn, in the place of tokens' own (prompt tuning).
pub const INLAID_LEARN_PROMPT: i32 = 5;
/// Keys and values before a text learn, in every block (prefix tuning).
pub const INLAID_LEARN_PREFIX: i32 = 6;
/// Small MLPs behind the halves of blocks learn (bottleneck adapters).
pub const INLAID_LEARN_BOTTLENECK: i32 = 7;
/// Biases of linears and norms learn (BitFit), those whose names contain one of `targets`, or all.
pub const INLAID_LEARN_BIASES: i32 = 8;

/// Behind attention and MLP, before the residual (Houlsby et al. 2019).
pub const INLAID_BOTTLENECK_BOTH: i32 = 0;
/// Behind the MLP alone, where its sum with the residual is read (Pfeiffer et al. 2020).
pub const INLAID_BOTTLENECK_MLP: i32 = 1;

/// SiLU behind both halves, ReLU behind the MLP alone.
pub const INLAID_ACTIVATION_DEFAULT: i32 = 0;
/// Rectified linear.
pub const INLAID_ACTIVATION_RELU: i32 = 1;
/// `x sigmoid(x)`, also called swish.
pub const INLAID_ACTIVATION_SILU: i32 = 2;
/// GELU by the error function.
pub const INLAID_ACTIVATION_GELU: i32 = 3;
/// GELU by tanh.
pub const INLAID_ACTIVATION_GELU_TANH: i32 = 4;
/// The hyperbolic tangent.
pub const INLAID_ACTIVATION_TANH: i32 = 5;

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
    /// With `INLAID_LEARN_LORA` and `_DORA`: the inner width of an addition; default 8.
    pub lora_rank: u32,
    /// With `INLAID_LEARN_LORA` and `_DORA`: an addition is multiplied by this over its rank; default 16.
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
    /// Parts of names of tensors, NUL-terminated; none means, with `INLAID_LEARN_LORA` and `_DORA`, every linear but the head,
    /// with `_IA3` keys, values and the ends of MLPs, and with `_BIASES` all.
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
    /// With `INLAID_LEARN_IA3` and `targets`: parts of the names of those among them whose inputs are scaled, not their
    /// outputs; NUL-terminated.
    pub feedforward: *const *const c_char,
    /// With `INLAID_LEARN_PROMPT`: tokens whose vectors the prompt begins as, from the first on again where there are too few;
    /// none: random ones.
    pub prompt: *const u32,
    /// Entries of `feedforward` (default 0).
    pub n_feedforward: u32,
    /// Entries of `prompt` (default 0).
    pub n_prompt: u32,
    /// With `INLAID_LEARN_PROMPT` and `_PREFIX`: how many vectors, or keys and values, come before a text; default 20.
    pub virtual_tokens: u32,
    /// With `INLAID_LEARN_BOTTLENECK`: the inner width; 0, the default: a sixteenth of the model's.
    pub bottleneck_width: u32,
    /// With `INLAID_LEARN_BOTTLENECK`: `INLAID_BOTTLENECK_...`, default `_BOTH`.
    pub bottleneck_place: i32,
    /// With `INLAID_LEARN_BOTTLENECK`: `INLAID_ACTIVATION_...`, default `_DEFAULT`.
    pub bottleneck_activation: i32,
}

// SAFETY: fourteen words, a pointer, a u64, four words, two pointers (at byte 88) and six words.
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
            feedforward: null(),
            prompt: null(),
            n_feedforward: 0,
            n_prompt: 0,
            virtual_tokens: 20,
            bottleneck_width: 0,
            bottleneck_place: INLAID_BOTTLENECK_BOTH,
            bottleneck_activation: INLAID_ACTIVATION_DEFAULT,
        }
    }
}

/// A config, its arrays followed.
#[cfg_attr(not(feature = "train"), expect(dead_code))]
pub(super) struct TrainConfig {
    pub fields: inlaid_train_config,
    pub targets: Vec<String>,
    pub feedforward: Vec<String>,
    pub prompt: Vec<u32>,
}

/// The caller's config.
///
/// # Safety
/// `from` is NULL or points to a struct with valid fields.
pub(super) unsafe fn config_of(from: *const inlaid_train_config) -> Result<TrainConfig> {
    // SAFETY: the caller's promise, for the struct and its arrays.
    unsafe {
        let c = read(from)?;
        if c.reserved != 0 {
            return Err(argument("reserved", format!("expected 0, found {}", c.reserved)));
        }
        let names = |name: &'static str, from, n: u32| -> Result<Vec<String>> {
            let all = slice(name, from, n as usize)?;
            all.iter().map(|one: &*const c_char| string(name, *one).map(str::to_owned)).collect()
        };
        Ok(TrainConfig {
            targets: names("targets", c.targets, c.n_targets)?,
            feedforward: names("feedforward", c.feedforward, c.n_feedforward)?,
            prompt: slice("prompt", c.prompt, c.n_prompt as usize)?.to_vec(),
            fields: c,
        })
    }
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
