//! Floor 3: a model family as data. Knows no maths, no tensors and no files: a family reads its `config.json` into an
//! [`Arch`] and says how its tensors are called.
//!
//! Adding a family is one file here: a function that fills `Arch` and a table of names.

mod gpt2;
mod llama;
mod mistral;
mod names;
mod qwen2;

pub use names::{Linear, Names, Part};

use crate::error::{Error, Result};
use crate::format::config::{Config, brief};
use kernels::act::Act;
use kernels::norm::Norm;
use kernels::rope::Rope;

/// How a block mixes positions. Recurrent mixers will be further variants.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    /// Softmax attention (Vaswani et al. 2017, eq. 1), grouped queries, causal.
    Attention {
        /// What scores are multiplied by, usually 1 / sqrt(head_dim).
        scale: f32,
        /// A position sees itself and `window - 1` before it.
        window: Option<u32>,
    },
}

/// Where a model takes the order of its tokens from.
#[derive(Clone, Debug, PartialEq)]
pub enum Position {
    /// Queries and keys are rotated (Su et al. 2021).
    Rope(Rope),
    /// A table added to the token embeddings.
    Learned,
}

/// The position-wise half of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mlp {
    /// `down(act(gate x) * up x)` (Shazeer 2020).
    Gated(Act),
    /// `down(act(up x))`.
    Plain(Act),
}

/// A model family's shape and wiring.
#[derive(Clone, Debug)]
pub struct Arch {
    /// The `model_type` of `config.json`.
    pub family: &'static str,
    /// Blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Inner width of the MLP.
    pub d_ff: usize,
    /// Rows of the embedding table and of the logits.
    pub vocab: usize,
    /// Positions the model was made for.
    pub max_positions: usize,
    /// Which norm, before attention, before the MLP and before the head.
    pub norm: Norm,
    /// Its epsilon.
    pub eps: f32,
    /// The mixer of every block.
    pub mixer: Mixer,
    /// The MLP of every block.
    pub mlp: Mlp,
    /// Where order comes from.
    pub position: Position,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// What the tensors are called.
    pub names: Names,
}

/// Reads a config of any known family.
type Read = fn(&Config) -> Result<Arch>;

/// `model_type` of `config.json`, and its reader.
const FAMILIES: &[(&str, Read)] =
    &[("gpt2", gpt2::arch), ("llama", llama::arch), ("mistral", mistral::arch), ("qwen2", qwen2::arch)];

/// Keys that say nothing about what the model computes.
const IGNORED: &[&str] = &[
    "_model_name_or_path",
    "_name_or_path",
    "_attn_implementation_autoset",
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "language",
    "license",
    "pad_token_id",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "use_cache",
];

impl Arch {
    /// The family of a `config.json`, with every key that changes meaning understood or refused by name.
    ///
    /// # Errors
    /// `Unsupported` for a family or a key that the engine does not do, `Format` for values of the wrong type or range.
    pub fn read(config: &Config) -> Result<Arch> {
        let family = config.str("model_type")?;
        let Some((_, read)) = FAMILIES.iter().find(|(name, _)| *name == family) else {
            let known: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
            let what = format!("model_type `{family}` (known: {})", known.join(", "));
            return Err(Error::Unsupported { file: config.file().to_owned(), what });
        };
        let arch = read(config)?;
        arch.check(config)?;
        config.finish(IGNORED)?;
        Ok(arch)
    }

    /// Names of the families this build knows.
    pub fn families() -> impl Iterator<Item = &'static str> {
        FAMILIES.iter().map(|(name, _)| *name)
    }

    /// Sizes that later code multiplies without looking: refused here once.
    fn check(&self, config: &Config) -> Result<()> {
        let sizes = [
            ("layers", self.n_layers, 1 << 12),
            ("hidden size", self.d_model, 1 << 17),
            ("attention heads", self.n_heads, 1 << 12),
            ("key/value heads", self.n_kv_heads, 1 << 12),
            ("head dimension", self.head_dim, kernels::attention::MAX_DIM),
            ("intermediate size", self.d_ff, 1 << 20),
            ("vocabulary", self.vocab, 1 << 22),
            ("positions", self.max_positions, 1 << 26),
        ];
        for (name, found, most) in sizes {
            if found == 0 || found > most {
                return Err(config.bad(&format!("{name}: expected 1 to {most}, found {found}")));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let (q, kv) = (self.n_heads, self.n_kv_heads);
            return Err(config.bad(&format!("{q} attention heads cannot share {kv} key/value heads evenly")));
        }
        if !(self.eps.is_finite() && self.eps >= 0.0) {
            return Err(
                config.bad(&format!("norm epsilon: expected a small positive number, found {}", self.eps))
            );
        }
        Ok(())
    }

    /// Whether all of `ids` are in the vocabulary.
    ///
    /// # Errors
    /// `Argument` that names the first one beyond.
    pub fn check_ids<'a>(&self, ids: impl IntoIterator<Item = &'a u32>) -> Result<()> {
        match ids.into_iter().find(|id| **id as usize >= self.vocab) {
            Some(id) => {
                let what = format!("expected ids below {}, found {id}", self.vocab);
                Err(Error::Argument { name: "ids", what })
            }
            None => Ok(()),
        }
    }

    /// Columns of the queries of one row.
    pub fn q_cols(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Columns of the keys (or the values) of one row.
    pub fn kv_cols(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }
}

/// The activation that a config names.
fn act(config: &Config, key: &str, default: &str) -> Result<Act> {
    match config.str_or(key, default)? {
        "silu" | "swish" => Ok(Act::Silu),
        "gelu" => Ok(Act::GeluErf),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Act::GeluTanh),
        "relu" => Ok(Act::Relu),
        other => Err(Error::Unsupported { file: config.file().to_owned(), what: format!("{key} `{other}`") }),
    }
}

/// Refuses `key` unless it is absent or has one of the neutral values that `is_neutral` accepts.
fn only(config: &Config, key: &str, is_neutral: impl Fn(&serde_json::Value) -> bool) -> Result<()> {
    match config.raw(key) {
        Some(value) if !value.is_null() && !is_neutral(value) => Err(Error::Unsupported {
            file: config.file().to_owned(),
            what: format!("{key} = {}", brief(value)),
        }),
        _ => Ok(()),
    }
}
