//! Floor 3: a model family as data. Knows no maths, no tensors and no files: a family reads its `config.json` into an
//! [`Arch`] and says how its tensors are called.
//!
//! Adding a family is one file here: a function that fills `Arch` and a table of names.

mod ask;
mod bart;
mod bert;
mod bloom;
mod distilbert;
mod electra;
mod falcon;
mod gemma;
mod gemma2;
mod gpt2;
mod gpt_neox;
mod gptj;
mod head;
mod llama;
mod mistral;
mod modernbert;
mod mpnet;
mod names;
mod olmo2;
mod openai_gpt;
mod opt;
mod phi;
mod phi3;
mod qwen2;
mod qwen3;
mod roberta;
mod rope;
mod stack;
mod starcoder2;
mod t5;
mod tasks;
mod transformer;

use ask::{act, act_named, head_dim, local_layers, named, only, skip};
pub use head::{Head, Out, Rows, Task};
pub use names::{Around, Fused, Linear, Names, Part};
pub use stack::{Attention, Embed, Mixer, Mlp, Norms, Position, QkNorm, Stack, Table};

use crate::error::{Error, Result};
use crate::format::config::Config;

/// A stack of a model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// What reads a text as a whole.
    Encoder,
    /// What writes one, token after token.
    Decoder,
}

/// A model family's shape and wiring.
#[derive(Clone, Debug)]
pub struct Arch {
    /// The `model_type` of `config.json`.
    pub family: &'static str,
    /// Positions the model was made for.
    pub max_positions: usize,
    /// What reads a text as a whole.
    pub encoder: Option<Stack>,
    /// What writes one; with an encoder, it attends to that one's output.
    pub decoder: Option<Stack>,
    /// What is said about the states of the last stack.
    pub head: Head,
    /// Whether a decoder that reads the source once more, one place later, begins with its last token, the name of a
    /// language (mBART), and not with the token that its answers begin with.
    pub wraps: bool,
    /// Before all names but the head's; a file saved from the bare model lacks it.
    pub prefix: &'static str,
    /// Endings of tensors that hold nothing a run needs; what ends with a dot is a beginning.
    pub ignored: &'static [&'static str],
    /// Beginnings of names, each with what older files write in its place.
    pub renamed: &'static [(&'static str, &'static str)],
}

/// Reads a config of any known family.
type Read = fn(&Config) -> Result<Arch>;

/// `model_type` of `config.json`, and its reader.
const FAMILIES: &[(&str, Read)] = &[
    ("bart", bart::bart),
    ("bert", bert::arch),
    ("bloom", bloom::arch),
    ("camembert", roberta::arch),
    ("distilbert", distilbert::arch),
    ("electra", electra::arch),
    ("falcon", falcon::arch),
    ("gemma", gemma::arch),
    ("gemma2", gemma2::arch),
    ("gpt2", gpt2::arch),
    ("gpt_neox", gpt_neox::arch),
    ("gptj", gptj::arch),
    ("llama", llama::arch),
    ("m2m_100", bart::m2m_100),
    ("marian", bart::marian),
    ("mbart", bart::mbart),
    ("mistral", mistral::arch),
    ("modernbert", modernbert::arch),
    ("mpnet", mpnet::arch),
    ("olmo2", olmo2::arch),
    ("mt5", t5::mt5),
    ("openai-gpt", openai_gpt::arch),
    ("opt", opt::arch),
    ("phi", phi::arch),
    ("phi3", phi3::arch),
    ("qwen2", qwen2::arch),
    ("qwen3", qwen3::arch),
    ("roberta", roberta::arch),
    ("starcoder2", starcoder2::arch),
    ("t5", t5::t5),
    ("transformer", transformer::arch),
    ("xlm-roberta", roberta::arch),
];

/// Keys that say nothing about what the model computes.
const IGNORED: &[&str] = &[
    "_attn_implementation_autoset",
    "_model_name_or_path",
    "_name_or_path",
    "activation_dropout",
    "architectures",
    "attention_dropout",
    "attn_pdrop",
    "auto_map",
    "bos_token_id",
    "cache_implementation",
    "classifier_dropout",
    "cls_token_id",
    "dropout",
    "dtype",
    "embd_pdrop",
    "embedding_dropout",
    "eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "init_std",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "language",
    "layerdrop",
    "license",
    "mask_token_id",
    "num_labels",
    "output_past",
    "pad_token_id",
    "resid_pdrop",
    "residual_dropout",
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

    /// A model that is one decoder.
    fn decoder(family: &'static str, max_positions: usize, stack: Stack, head: Head) -> Arch {
        Arch {
            family,
            max_positions,
            encoder: None,
            decoder: Some(stack),
            head,
            wraps: false,
            prefix: "",
            ignored: &[],
            renamed: &[],
        }
    }

    /// A model that is one encoder.
    fn encoder(family: &'static str, max_positions: usize, stack: Stack, head: Head) -> Arch {
        Arch {
            family,
            max_positions,
            encoder: Some(stack),
            decoder: None,
            head,
            wraps: false,
            prefix: "",
            ignored: &[],
            renamed: &[],
        }
    }

    /// Changes the decoder's attention: `change(n_layers, attention)`.
    fn edit(&mut self, change: impl FnOnce(usize, &mut Attention) -> Result<()>) -> Result<()> {
        let Some(stack) = &mut self.decoder else { return Ok(()) };
        let Mixer::Attention(attention) = &mut stack.mixer;
        change(stack.n_layers, attention)
    }

    /// One of its stacks.
    #[must_use]
    pub fn side(&self, side: Side) -> Option<&Stack> {
        match side {
            Side::Encoder => self.encoder.as_ref(),
            Side::Decoder => self.decoder.as_ref(),
        }
    }

    /// Layers of keys and values that are kept: a decoder's; an encoder's blocks use one of them in turn.
    #[must_use]
    pub fn kept_layers(&self) -> usize {
        self.decoder.as_ref().map_or(1, |decoder| decoder.n_layers)
    }

    /// Heads of keys and values of each stack, and their width.
    #[must_use]
    pub fn heads(&self) -> Vec<(usize, usize)> {
        let stacks = [&self.encoder, &self.decoder].into_iter().flatten();
        stacks.map(|stack| (stack.n_kv_heads, stack.head_dim)).collect()
    }

    /// The stack that reads a text first.
    #[must_use]
    pub fn first(&self) -> &Stack {
        self.encoder.as_ref().unwrap_or(self.last())
    }

    /// Whether a text of `tokens` fits as a whole.
    ///
    /// # Errors
    /// `ContextFull` where it does not.
    pub fn check_len(&self, tokens: usize) -> Result<()> {
        if tokens > self.max_positions {
            return Err(Error::ContextFull { used: 0, wanted: tokens, limit: self.max_positions });
        }
        Ok(())
    }

    /// The stack whose states the head reads.
    #[must_use]
    pub fn last(&self) -> &Stack {
        self.decoder.as_ref().or(self.encoder.as_ref()).expect("a model has a stack")
    }

    /// Whether it reads one text and writes another.
    #[must_use]
    pub fn reads_source(&self) -> bool {
        self.encoder.is_some() && self.decoder.is_some()
    }

    /// The branch of the survey (Yang et al. 2023): encoder, decoder, or encoder-decoder.
    #[must_use]
    pub fn branch(&self) -> &'static str {
        match (&self.encoder, &self.decoder) {
            (Some(_), Some(_)) => "encoder-decoder",
            (Some(_), None) => "encoder",
            (None, _) => "decoder",
        }
    }

    /// Sizes that later code multiplies without looking: refused here once.
    fn check(&self, config: &Config) -> Result<()> {
        in_range(config, "positions", self.max_positions, 1 << 26)?;
        if self.head.out != Out::None {
            in_range(config, "labels", self.head.n, 1 << 22)?;
        }
        if let Some((_, n)) = self.head.dense {
            in_range(config, "width of the head", n, 1 << 17)?;
        }
        for stack in [&self.encoder, &self.decoder].into_iter().flatten() {
            stack.check(config)?;
        }
        Ok(())
    }

    /// Whether all of `ids` are in the vocabulary.
    ///
    /// # Errors
    /// `Argument` that names the first one beyond.
    pub fn check_ids<'a>(&self, ids: impl IntoIterator<Item = &'a u32>) -> Result<()> {
        check_ids(self.vocab(), ids)
    }

    /// Whether it writes: a decoder whose head says the next token.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.head.task == Task::LanguageModel && self.decoder.is_some()
    }

    /// Tokens that the last stack knows.
    #[must_use]
    pub fn vocab(&self) -> usize {
        self.last().embed.vocab
    }
}

/// Whether all of `ids` are below `vocab`.
///
/// # Errors
/// `Argument` that names the first one beyond.
pub fn check_ids<'a>(vocab: usize, ids: impl IntoIterator<Item = &'a u32>) -> Result<()> {
    match ids.into_iter().find(|id| **id as usize >= vocab) {
        Some(id) => {
            let what = format!("expected ids below {vocab}, found {id}");
            Err(Error::Argument { name: "ids", what })
        }
        None => Ok(()),
    }
}

impl Stack {
    fn check(&self, config: &Config) -> Result<()> {
        let sizes = [
            ("layers", self.n_layers, 1 << 12),
            ("hidden size", self.d_model, 1 << 17),
            ("attention heads", self.n_heads, 1 << 12),
            ("key/value heads", self.n_kv_heads, 1 << 12),
            ("head dimension", self.head_dim, kernels::attention::MAX_DIM),
            ("intermediate size", self.d_ff, 1 << 20),
            ("vocabulary", self.embed.vocab, 1 << 22),
            ("embedding size", self.embed.width, 1 << 17),
        ];
        for (name, found, most) in sizes {
            in_range(config, name, found, most)?;
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let (q, kv) = (self.n_heads, self.n_kv_heads);
            return Err(config.bad(&format!("{q} attention heads cannot share {kv} key/value heads evenly")));
        }
        if let Position::Relative { buckets, far, .. } = self.position {
            // Each way has at least an exact range and a growing one.
            in_range(config, "ranges of distances", buckets / 4, 1 << 10)?;
            in_range(config, "farthest distance", far, 1 << 16)?;
        }
        let eps = self.norm.eps;
        if !(eps.is_finite() && eps >= 0.0) {
            return Err(config.bad(&format!("norm epsilon: expected a small positive number, found {eps}")));
        }
        Ok(())
    }
}

fn in_range(config: &Config, name: &str, found: usize, most: usize) -> Result<()> {
    if found == 0 || found > most {
        return Err(config.bad(&format!("{name}: expected 1 to {most}, found {found}")));
    }
    Ok(())
}
