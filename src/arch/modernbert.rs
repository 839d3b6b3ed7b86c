//! Floor 3: ModernBERT (Warner et al. 2024): pre-norm, gated, rotary; most blocks see a window to both sides.

use super::bert::linear;
use super::head::labels;
use super::names::{Fused, Part};
use super::{
    Arch, Around, Attention, Embed, Head, Linear, Mixer, Mlp, Names, Norms, Position, Rows, Stack, Task, act,
    head_dim, local_layers, only, rope, skip,
};
use crate::error::Result;
use crate::format::config::Config;

const NAMES: Names = Names {
    tokens: "embeddings.tok_embeddings",
    embed_norm: "embeddings.norm",
    block: "layers.{}.",
    attn: Around::before("attn_norm"),
    o: Linear::new("attn.Wo"),
    mlp: Around::before("mlp_norm"),
    gate: Linear::new("mlp.Wi").part(Part::Gate),
    up: Linear::new("mlp.Wi").part(Part::Up),
    down: Linear::new("mlp.Wo"),
    norm: "final_norm",
    not_in_first: "attn_norm",
    ..Names::NONE
}
.fused(Linear::new("attn.Wqkv"), Fused::Concat);

pub fn arch(c: &Config) -> Result<Arch> {
    let (d_model, n_heads) = (c.usize_or("hidden_size", 768)?, c.usize_or("num_attention_heads", 12)?);
    let (n_layers, head_dim) = (c.usize_or("num_hidden_layers", 22)?, head_dim(c, d_model, n_heads)?);
    skip(c, &["attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"]);
    skip(
        c,
        &["deterministic_flash_attn", "reference_compile", "repad_logits_with_grad", "sparse_prediction"],
    );
    skip(
        c,
        &["initializer_cutoff_factor", "sparse_pred_ignore_index", "layer_norm_eps", "tie_word_embeddings"],
    );
    only(c, "position_embedding_type", |v| v == "absolute")?;
    let (attention_bias, mlp_bias) = (c.bool_or("attention_bias", false)?, c.bool_or("mlp_bias", false)?);
    let every = c.usize_or("global_attn_every_n_layers", 3)?.max(1);
    let mut attention = Attention::full(head_dim);
    // Half of `local_attention` to either side, and the position itself.
    attention.window = c.window("local_attention", Some(128))?.map(|both| both / 2 + 1);
    attention.local = local_layers(c, n_layers, |layer| layer % every != 0)?;
    let stack = Stack {
        n_layers,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        d_ff: c.usize_or("intermediate_size", 1152)?,
        embed: Embed { vocab: c.usize("vocab_size")?, width: d_model, scale: 1.0, types: 0 },
        position: Position::Rope {
            all: turn(c, "full_attention", ("global_rope_theta", 160_000.0), head_dim)?,
            local: Some(turn(c, "sliding_attention", ("local_rope_theta", 10_000.0), head_dim)?),
        },
        norm: Norms { bias: c.bool_or("norm_bias", false)?, ..Norms::layer(c.f32_or("norm_eps", 1e-5)?) },
        mixer: Mixer::Attention(attention),
        mlp: Mlp::Gated(act(c, "hidden_activation", "gelu")?),
        parallel: false,
        names: NAMES.attn_bias(attention_bias, attention_bias).mlp_bias(mlp_bias),
    };
    let head = head(c, &stack)?;
    let arch = Arch::encoder("modernbert", c.usize_or("max_position_embeddings", 8192)?, stack, head);
    Ok(Arch { prefix: "model.", ..arch })
}

/// Rotation in one kind of blocks: newer configs have an object for each kind, older ones a key.
fn turn(c: &Config, kind: &str, old: (&str, f32), head_dim: usize) -> Result<kernels::rope::Rope> {
    let mut theta = c.f32_or(old.0, old.1)?;
    if let Some(kinds) = c.object("rope_parameters")?
        && let Some(own) = kinds.object(kind)?
    {
        only(&own, "rope_type", |v| v == "default")?;
        theta = own.f32_or("rope_theta", theta)?;
        own.finish(&[])?;
    }
    rope::plain(c, theta, head_dim, head_dim)
}

fn head(c: &Config, s: &Stack) -> Result<Head> {
    let dense = (Linear::new("head.dense").bias(c.bool_or("classifier_bias", false)?), s.d_model);
    let (act, decoder_bias) = (act(c, "classifier_activation", "gelu")?, c.bool_or("decoder_bias", true)?);
    let classes = |task, rows, n| {
        let classes = Head::classes(task, rows, linear("classifier"), n);
        Head { dense: Some(dense), act: Some(act), norm: "head.norm", ..classes }
    };
    let rows = match c.str_or("classifier_pooling", "cls")? {
        "cls" => Rows::First,
        "mean" => Rows::Mean,
        other => return Err(c.bad(&format!("classifier_pooling: expected cls or mean, found {other}"))),
    };
    Ok(match Task::of(c, Task::Hidden)? {
        Task::MaskedLm | Task::LanguageModel => {
            let (tied, decoder) = (c.bool_or("tie_word_embeddings", true)?, Linear::new("decoder"));
            let bias = if decoder_bias { "decoder.bias" } else { "" };
            let lm = Head::masked(dense, act, "head.norm", decoder, bias, tied, s.embed.vocab);
            if tied || decoder_bias { lm } else { Head { out: super::Out::Linear(decoder), ..lm } }
        }
        Task::Classify => classes(Task::Classify, rows, labels(c)?),
        Task::Tag => classes(Task::Tag, Rows::All, labels(c)?),
        Task::Span => classes(Task::Span, Rows::All, 2),
        Task::Hidden => Head::NONE,
    })
}
