//! Floor 6: what a model is and takes, as structs of the header.

use super::error::inlaid_error;
use super::guard::with;
use super::model::{INLAID_TYPE_BF16, INLAID_TYPE_F16, INLAID_TYPE_F32, INLAID_TYPE_Q8, inlaid_model};
use super::versioned::{Versioned, write};
use super::{args, speech, template};
use crate::arch::Task;
use crate::model::MemoryPlan;
use kernels::attention::Cache;
use std::ffi::c_char;
use std::mem::offset_of;
use std::ptr::null;
use std::time::Duration;

/// What opening a model and talking to it takes. Set `struct_size` before the call that fills it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_memory_plan {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// A session's context is set aside in multiples of this many tokens.
    pub kv_page_tokens: u32,
    /// Bytes of files that are mapped: shared with other processes, dropped by the system when memory is short.
    pub mapped_bytes: u64,
    /// Private bytes: parameters that are read, buffers of one prefill chunk, a copying load's weights. Without the
    /// tokenizer.
    pub private_bytes: u64,
    /// Bytes of keys and values of one token of a session's context.
    pub kv_bytes_per_token: u64,
}

/// What a model is. Set `struct_size`, then call `inlaid_model_get_info`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_model_info {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// Blocks.
    pub n_layers: u32,
    /// Width of the residual stream.
    pub d_model: u32,
    /// Query heads of a block.
    pub n_heads: u32,
    /// Key and value heads of a block.
    pub n_kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Inner width of the MLP.
    pub d_ff: u32,
    /// Tokens that the logits speak of; every token id is below.
    pub vocab: u32,
    /// Positions the model was made for: the largest context.
    pub max_positions: u32,
    /// Type of cached keys and values, `INLAID_TYPE_...`.
    pub cache_type: i32,
    /// The token that begins a text, or -1.
    pub bos: i32,
    /// The first of the tokens that end an answer, or -1; `inlaid_model_end_tokens` gives all.
    pub eos: i32,
    /// 1 where it can turn text into tokens.
    pub has_tokenizer: i32,
    /// 1 where it can render conversations.
    pub has_template: i32,
    /// Parameters in all.
    pub parameters: u64,
    /// As in `inlaid_memory_plan`.
    pub mapped_bytes: u64,
    /// As in `inlaid_memory_plan`.
    pub private_bytes: u64,
    /// As in `inlaid_memory_plan`.
    pub kv_bytes_per_token: u64,
    /// Time that files, config and weights took to open.
    pub load_us: u64,
    /// Time that the tokenizer and the chat template took.
    pub tokenizer_us: u64,
    /// The `model_type` of its config ("llama"). NUL-terminated; valid as long as a reference to the model.
    pub family: *const c_char,
    /// `INLAID_BRANCH_...`.
    pub branch: i32,
    /// What its head is for, `INLAID_TASK_...`.
    pub task: i32,
    /// Classes of a classifier or a tagger; else 0. `inlaid_model_label` names them.
    pub n_labels: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Reads texts.
pub const INLAID_BRANCH_ENCODER: i32 = 1;
/// Continues texts.
pub const INLAID_BRANCH_DECODER: i32 = 2;
/// Reads one text and writes another.
pub const INLAID_BRANCH_ENCODER_DECODER: i32 = 3;

/// States alone: `inlaid_embed`, `inlaid_encode`.
pub const INLAID_TASK_HIDDEN: i32 = 0;
/// The next token: sessions, `inlaid_beam_search`.
pub const INLAID_TASK_LANGUAGE_MODEL: i32 = 1;
/// Hidden tokens: `inlaid_fill`.
pub const INLAID_TASK_MASKED_LM: i32 = 2;
/// A class or a score of a text: `inlaid_classify`.
pub const INLAID_TASK_CLASSIFY: i32 = 3;
/// A class of each token: `inlaid_tag`.
pub const INLAID_TASK_TAG: i32 = 4;
/// Where an answer stands: `inlaid_encode` with `INLAID_ENCODE_HEAD` gives the logits of its first and last token.
pub const INLAID_TASK_SPAN: i32 = 5;

// SAFETY: two u32 and three u64.
unsafe impl Versioned for inlaid_memory_plan {
    const NAME: &'static str = "memory plan";
    const SIZES: &'static [usize] = &[size_of::<Self>()];

    fn defaults() -> Self {
        plan_of(MemoryPlan::default())
    }
}

// SAFETY: fourteen words, six u64, a pointer and four words.
unsafe impl Versioned for inlaid_model_info {
    const NAME: &'static str = "model info";
    const SIZES: &'static [usize] = &[offset_of!(Self, branch), size_of::<Self>()];

    fn defaults() -> Self {
        inlaid_model_info {
            struct_size: size_of::<Self>() as u32,
            n_layers: 0,
            d_model: 0,
            n_heads: 0,
            n_kv_heads: 0,
            head_dim: 0,
            d_ff: 0,
            vocab: 0,
            max_positions: 0,
            cache_type: INLAID_TYPE_F32,
            bos: -1,
            eos: -1,
            has_tokenizer: 0,
            has_template: 0,
            parameters: 0,
            mapped_bytes: 0,
            private_bytes: 0,
            kv_bytes_per_token: 0,
            load_us: 0,
            tokenizer_us: 0,
            family: null(),
            branch: 0,
            task: INLAID_TASK_HIDDEN,
            n_labels: 0,
            reserved: 0,
        }
    }
}

pub(super) fn plan_of(plan: MemoryPlan) -> inlaid_memory_plan {
    inlaid_memory_plan {
        struct_size: size_of::<inlaid_memory_plan>() as u32,
        kv_page_tokens: plan.kv_page_tokens as u32,
        mapped_bytes: plan.mapped_bytes,
        private_bytes: plan.private_bytes,
        kv_bytes_per_token: plan.kv_bytes_per_token,
    }
}

/// Microseconds, saturating after half a million years.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn info_of(handle: &inlaid_model) -> inlaid_model_info {
    // Sizes of a model are checked when it is opened; all fit.
    let small = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let token = |id: Option<u32>| id.and_then(|id| i32::try_from(id).ok()).unwrap_or(-1);
    let (model, plan, times) = (&handle.model, handle.model.memory_plan(), handle.model.load_times());
    let (arch, generation) = (model.arch(), model.generation());
    let stack = arch.last();
    inlaid_model_info {
        struct_size: size_of::<inlaid_model_info>() as u32,
        n_layers: small(stack.n_layers),
        d_model: small(stack.d_model),
        n_heads: small(stack.n_heads),
        n_kv_heads: small(stack.n_kv_heads),
        head_dim: small(stack.head_dim),
        d_ff: small(stack.d_ff),
        vocab: small(arch.vocab()),
        max_positions: small(arch.max_positions),
        cache_type: match model.cache() {
            Cache::F32 => INLAID_TYPE_F32,
            Cache::F16 => INLAID_TYPE_F16,
            Cache::BF16 => INLAID_TYPE_BF16,
            Cache::Q8 => INLAID_TYPE_Q8,
        },
        bos: token(speech::bos(model).or(generation.bos_token_id)),
        eos: token(generation.eos_token_ids.first().copied()),
        has_tokenizer: i32::from(speech::has(model)),
        has_template: i32::from(template::has(model)),
        parameters: model.parameters(),
        mapped_bytes: plan.mapped_bytes,
        private_bytes: plan.private_bytes,
        kv_bytes_per_token: plan.kv_bytes_per_token,
        load_us: micros(times.weights),
        tokenizer_us: micros(times.tokenizer),
        family: handle.family.as_ptr(),
        branch: match (&arch.encoder, &arch.decoder) {
            (Some(_), None) => INLAID_BRANCH_ENCODER,
            (Some(_), Some(_)) => INLAID_BRANCH_ENCODER_DECODER,
            (None, _) => INLAID_BRANCH_DECODER,
        },
        task: match arch.head.task {
            Task::Hidden => INLAID_TASK_HIDDEN,
            Task::LanguageModel => INLAID_TASK_LANGUAGE_MODEL,
            Task::MaskedLm => INLAID_TASK_MASKED_LM,
            Task::Classify => INLAID_TASK_CLASSIFY,
            Task::Tag => INLAID_TASK_TAG,
            Task::Span => INLAID_TASK_SPAN,
        },
        n_labels: if matches!(arch.head.task, Task::Classify | Task::Tag) { small(arch.head.n) } else { 0 },
        reserved: 0,
    }
}

/// Says what a model is. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_model_get_info(
    model: *const inlaid_model,
    info: *mut inlaid_model_info,
    err: *mut inlaid_error,
) -> i32 {
    // SAFETY: the caller's promise, for each pointer.
    unsafe { with(model, err, |model: &inlaid_model| write(info, info_of(model))) }
}

/// The tokens that end an answer. `*n` receives their number; with `ids` NULL and `capacity` 0 nothing else is written.
///
/// Errors: `INLAID_ERROR_BUFFER` where `capacity` ids are too few. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_model_end_tokens(
    model: *const inlaid_model,
    ids: *mut u32,
    capacity: usize,
    n: *mut usize,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_model| {
        let ends = &handle.model.generation().eos_token_ids;
        // SAFETY: the caller's promise.
        unsafe { args::fill("ids", ends, ids, capacity, n) }
    };
    // SAFETY: the caller's promise.
    unsafe { with(model, err, call) }
}
