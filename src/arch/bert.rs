//! Floor 3: BERT (Devlin et al. 2019): post-norm, learned positions, token types, a norm of the embeddings.

use super::head::{class, labels};
use super::{
    Arch, Around, Attention, Embed, Head, Linear, Mixer, Mlp, Names, Norms, Position, Rows, Stack, Table,
    Task, act, head_dim, only, skip,
};
use crate::error::Result;
use crate::format::config::Config;

/// A linear with a bias, as all of these families' are.
pub const fn linear(name: &'static str) -> Linear {
    Linear::new(name).bias(true)
}

/// The names that BERT and its variants share.
pub const NAMES: Names = Names {
    tokens: "embeddings.word_embeddings",
    positions: "embeddings.position_embeddings",
    types: "embeddings.token_type_embeddings",
    embed_norm: "embeddings.LayerNorm",
    block: "encoder.layer.{}.",
    attn: Around::after("attention.output.LayerNorm"),
    q: linear("attention.self.query"),
    k: linear("attention.self.key"),
    v: linear("attention.self.value"),
    o: linear("attention.output.dense"),
    mlp: Around::after("output.LayerNorm"),
    up: linear("intermediate.dense"),
    down: linear("output.dense"),
    ..Names::NONE
};

/// Endings of what files of BERT and its variants hold beside the model: counters of positions, a pooler and the guess
/// whether two sentences follow each other (and other heads of one stack) where the head has no use for them, the bias of a
/// decoder's twin.
pub const IGNORED: &[&str] =
    &["embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias", "cls.", "lm_head.bias"];

pub fn arch(c: &Config) -> Result<Arch> {
    skip(c, &["directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"]);
    skip(c, &["pooler_size_per_head", "pooler_type"]);
    let stack = stack(c, NAMES)?;
    let (d, vocab) = (stack.d_model, stack.embed.vocab);
    let pooler = (linear("pooler.dense"), d);
    // A class of somebody's own, with heads of its own beside the usual one.
    let own = class(c).is_some_and(|class| !class.starts_with("Bert"));
    let task =
        if own { Task::of(c, Task::Hidden).unwrap_or(Task::MaskedLm) } else { Task::of(c, Task::Hidden)? };
    let head = match task {
        Task::MaskedLm | Task::LanguageModel => Head::masked(
            (linear("cls.predictions.transform.dense"), d),
            act(c, "hidden_act", "gelu")?,
            "cls.predictions.transform.LayerNorm",
            Linear::new("cls.predictions.decoder"),
            "cls.predictions.bias",
            c.bool_or("tie_word_embeddings", true)?,
            vocab,
        ),
        Task::Classify => Head::first(pooler, kernels::act::Act::Tanh, linear("classifier"), labels(c)?),
        task => tokens(c, task, Head::pooler(pooler))?,
    };
    let arch = Arch::encoder("bert", c.usize_or("max_position_embeddings", 512)?, stack, head);
    Ok(Arch { prefix: "bert.", ignored: IGNORED, ..arch })
}

/// The heads that are alike in BERT and its variants: of each token, or else `pooler`.
pub fn tokens(c: &Config, task: Task, pooler: Head) -> Result<Head> {
    Ok(match task {
        Task::Tag => Head::classes(task, Rows::All, linear("classifier"), labels(c)?),
        Task::Span => Head::classes(task, Rows::All, linear("qa_outputs"), 2),
        _ => pooler,
    })
}

/// The stack of BERT and of variants that differ in positions or the embeddings' width.
pub fn stack(c: &Config, names: Names) -> Result<Stack> {
    let (d_model, n_heads) = (c.usize_or("hidden_size", 768)?, c.usize_or("num_attention_heads", 12)?);
    let head_dim = head_dim(c, d_model, n_heads)?;
    skip(c, &["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"]);
    // Heads that it says nothing about do not ask.
    skip(c, &["tie_word_embeddings"]);
    only(c, "position_embedding_type", |v| v == "absolute")?;
    let types = if names.types.is_empty() { 0 } else { c.usize_or("type_vocab_size", 2)? };
    Ok(Stack {
        n_layers: c.usize_or("num_hidden_layers", 12)?,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        d_ff: c.usize_or("intermediate_size", 3072)?,
        embed: Embed { vocab: c.usize("vocab_size")?, width: d_model, scale: 1.0, types },
        position: Position::Table { table: Table::Learned, offset: 0, pad: None },
        norm: Norms::layer(c.f32_or("layer_norm_eps", 1e-12)?),
        mixer: Mixer::Attention(Attention::full(head_dim)),
        mlp: Mlp::Plain(act(c, "hidden_act", "gelu")?),
        parallel: false,
        names,
    })
}
