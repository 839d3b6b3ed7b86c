//! Floor 5: what learns before a text: vectors in the place of tokens' own (Lester et al. 2021), or keys and values of every
//! block (Li and Liang 2021). Knows no files.
//!
//! While it learns it lies in the first rows of each sample, so that a text and what comes before it are one run. Rows of a
//! prefix are computed like those of tokens, but their keys and values are the prefix's, so nothing else of them is read.

use super::adapt::{Additions, values};
use super::own::zeros;
use crate::adapter::{Adapter, Before, Kind, Made};
use crate::arch::{Arch, Stack, Task};
use crate::error::{Error, Result};
use crate::rng::{Stream, normal};
use crate::weights::{P, Weights, matrix_row};

/// A prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptConfig {
    /// How many vectors.
    pub tokens: usize,
    /// Tokens whose vectors it begins as, from the first on again where there are too few; none: random ones, as PyTorch
    /// begins tables.
    pub text: Vec<u32>,
}

/// Vectors before a text, as `config` says.
///
/// # Errors
/// `Argument` for no vectors, more than the model has positions, or tokens that it does not know; `Unsupported` for a model with
/// an encoder; `Memory`.
pub(super) fn prompt(
    weights: &mut Weights,
    made: &mut Additions,
    arch: &Arch,
    config: &PromptConfig,
    seed: u64,
) -> Result<()> {
    let (n, stack) = (config.tokens, decoder(arch, config.tokens)?);
    let width = stack.embed.width;
    let mut all = zeros(n * width)?;
    arch.check_ids(&config.text)?;
    if config.text.is_empty() {
        random(&mut all, seed, 0);
    } else if let Some(own) = &weights.decoder {
        let table = weights.params[own.tokens.0 as usize].matrix();
        for (row, id) in all.chunks_exact_mut(width).zip(config.text.iter().cycle()) {
            matrix_row(&table, *id as usize, row);
            row.iter_mut().for_each(|x| *x *= stack.embed.scale);
        }
    }
    set_prompt(weights, made, all, [n, width]);
    Ok(())
}

/// `tokens` random keys and values before a text in every block, as PyTorch begins tables.
///
/// # Errors
/// As [`prompt`].
pub(super) fn prefix(
    weights: &mut Weights,
    made: &mut Additions,
    arch: &Arch,
    tokens: usize,
    seed: u64,
) -> Result<()> {
    let stack = decoder(arch, tokens)?;
    let mut all = zeros(tokens * stack.n_layers * 2 * stack.kv_cols())?;
    random(&mut all, seed, 0);
    set_prefix(weights, made, stack, &all);
    Ok(())
}

/// What `adapter` puts before a text, to be learnt on.
///
/// # Errors
/// As [`prompt`].
pub(super) fn go_on(
    weights: &mut Weights,
    made: &mut Additions,
    arch: &Arch,
    adapter: &Adapter,
) -> Result<()> {
    let n = adapter.config().virtual_tokens;
    let stack = decoder(arch, n)?;
    match adapter.config().kind {
        Kind::PrefixTuning => set_prefix(weights, made, stack, &adapter.prompt),
        _ => set_prompt(weights, made, adapter.prompt.clone(), [n, stack.embed.width]),
    }
    Ok(())
}

/// The stack, if so many positions can come before its tokens.
fn decoder(arch: &Arch, tokens: usize) -> Result<&Stack> {
    if arch.encoder.is_some() {
        let what = "a prompt or prefix of a model with an encoder".to_owned();
        return Err(Error::Unsupported { file: arch.family.to_owned(), what });
    }
    if tokens == 0 || tokens >= arch.max_positions {
        let what = format!("expected 1 to {} tokens, found {tokens}", arch.max_positions - 1);
        return Err(Error::Argument { name: "virtual tokens", what });
    }
    Ok(arch.last())
}

fn random(all: &mut [f32], seed: u64, from: u64) {
    for (i, x) in (from..).zip(all) {
        *x = normal(seed, Stream::Init, i) as f32;
    }
}

fn set_prompt(weights: &mut Weights, made: &mut Additions, all: Vec<f32>, shape: [usize; 2]) {
    if let Some(own) = &mut weights.decoder {
        own.prompt = Some(made.matrix("prompt_embeddings".to_owned(), all, shape));
    }
}

/// `all [tokens, layers, 2, kv]`
fn set_prefix(weights: &mut Weights, made: &mut Additions, stack: &Stack, all: &[f32]) {
    let width = stack.kv_cols();
    let tokens = all.len() / (2 * stack.n_layers * width).max(1);
    let mut next = 0;
    for layer in weights.decoder.iter_mut().flat_map(|own| &mut own.layers) {
        layer.attn.prefix = Some(["keys", "values"].map(|half| {
            let own = all.chunks_exact(width).skip(next).step_by(2 * stack.n_layers);
            let own: Vec<f32> = own.take(tokens).flatten().copied().collect();
            next += 1;
            made.matrix(format!("prompt_embeddings.{}.{half}", (next - 1) / 2), own, [tokens, width])
        }));
    }
}

/// What has been learnt, as an adapter says it.
pub(super) fn made(own: &Weights, arch: &Arch) -> Made<'static> {
    let stack = arch.last();
    let task = match arch.head.task {
        Task::Classify => "SEQ_CLS",
        Task::Tag => "TOKEN_CLS",
        Task::Span => "QUESTION_ANS",
        _ => "CAUSAL_LM",
    };
    let layers = own.decoder.iter().flat_map(|own| &own.layers);
    let halves: Vec<&[f32]> =
        layers.filter_map(|l| l.attn.prefix).flatten().map(|p| values(own, p)).collect();
    let tokens = lead(own);
    let (kind, heads, width, values) = match own.decoder.as_ref().and_then(|own| own.prompt) {
        Some(prompt) => (Kind::PromptTuning, stack.n_heads, stack.embed.width, values(own, prompt).to_vec()),
        None => {
            let width = stack.kv_cols();
            let row = |t: usize| halves.iter().flat_map(move |half| &half[t * width..][..width]).copied();
            (Kind::PrefixTuning, stack.n_kv_heads, width, (0..tokens).flat_map(row).collect())
        }
    };
    Made::Before(Before { kind, tokens, sizes: [stack.n_layers, heads, width], task, values })
}

/// Positions that come before a text.
pub(super) fn lead(own: &Weights) -> usize {
    let rows = |p: P| own.params[p.0 as usize].shape()[0];
    let of = own.decoder.as_ref();
    let prefix = of.and_then(|of| of.layers.first()?.attn.prefix).map(|[keys, _]| keys);
    of.and_then(|of| of.prompt).or(prefix).map_or(0, rows)
}
