//! Floor 5: what a learner is made with, and what it is given. Knows no programs.

use super::before::PromptConfig;
use super::ia3::Ia3Config;
use super::lora::LoraConfig;
use crate::adapter::{Adapter, BottleneckConfig};
use std::sync::Arc;

/// What learns.
#[derive(Clone)]
pub enum What {
    /// Every parameter that a file has.
    All,
    /// Those whose tensor's name contains one of these.
    Named(Vec<String>),
    /// Low-rank additions to linears, which stay as they are in whatever type they have (Hu et al. 2021).
    Lora(LoraConfig),
    /// The same, and magnitudes of rows apart from their directions (Liu et al. 2024).
    Dora(LoraConfig),
    /// Factors of what linears return or read (Liu et al. 2022).
    Ia3(Ia3Config),
    /// Vectors before a text (Lester et al. 2021).
    Prompt(PromptConfig),
    /// So many keys and values before a text, in every block (Li and Liang 2021).
    Prefix(usize),
    /// Small MLPs behind the halves of blocks (Houlsby et al. 2019, Pfeiffer et al. 2020).
    Bottleneck(BottleneckConfig),
    /// Biases of linears and norms whose names contain one of these; none: all (Ben Zaken et al. 2021).
    Biases(Vec<String>),
    /// What an adapter has, from where it is.
    Adapter(Arc<Adapter>),
}

/// How a learner is made.
#[derive(Clone)]
pub struct LearnConfig {
    /// What learns.
    pub what: What,
    /// Whether there is a value head (zeros at first).
    pub value_head: bool,
    /// What logits are divided by, where answers are drawn and where they are learnt from.
    pub temperature: f32,
    /// Decides what is random at first.
    pub seed: u64,
    /// Whether blocks are computed again for their gradients (Chen et al. 2016): about a third more time, and of each block only
    /// what it read is kept meanwhile. The bits are the same.
    pub recompute: bool,
}

impl Default for LearnConfig {
    fn default() -> LearnConfig {
        LearnConfig { what: What::All, value_head: false, temperature: 1.0, seed: 0, recompute: false }
    }
}

/// One sequence of a batch, from its first position on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample<'a> {
    /// Its tokens, at least one.
    pub ids: &'a [u32],
    /// Token types, where the model knows any; those that are missing are 0.
    pub types: &'a [u32],
    /// Of an encoder-decoder, the tokens of the text that its encoder reads, at least one; else none.
    pub source: &'a [u32],
    /// Positions whose answers count, rising.
    pub rows: &'a [u32],
    /// For each of `rows`, the token (or class) whose log-probability is wanted; or none at all, where the answer itself is.
    pub targets: &'a [u32],
}
