//! Floor 3: T5 (Raffel et al. 2020), its version 1.1 (flan-T5) and mT5: pre-norm without biases, scores as they are, and
//! biases by distance, which the first block holds for all.

use super::head::{class, labels};
use super::{
    Arch, Around, Attention, Embed, Head, Linear, Mixer, Mlp, Names, Norms, Position, Rows, Side, Stack,
    Task, act_named, skip,
};
use crate::error::Result;
use crate::format::config::Config;

const ENCODER: Names = Names {
    tokens: "shared",
    relative: "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    block: "encoder.block.{}.",
    attn: Around::before("layer.0.layer_norm"),
    q: Linear::new("layer.0.SelfAttention.q"),
    k: Linear::new("layer.0.SelfAttention.k"),
    v: Linear::new("layer.0.SelfAttention.v"),
    o: Linear::new("layer.0.SelfAttention.o"),
    mlp: Around::before("layer.1.layer_norm"),
    gate: Linear::new("layer.1.DenseReluDense.wi_0"),
    up: Linear::new("layer.1.DenseReluDense.wi_1"),
    down: Linear::new("layer.1.DenseReluDense.wo"),
    norm: "encoder.final_layer_norm",
    ..Names::NONE
};

const DECODER: Names = Names {
    relative: "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    block: "decoder.block.{}.",
    cross: Around::before("layer.1.layer_norm"),
    cross_qkvo: [
        Linear::new("layer.1.EncDecAttention.q"),
        Linear::new("layer.1.EncDecAttention.k"),
        Linear::new("layer.1.EncDecAttention.v"),
        Linear::new("layer.1.EncDecAttention.o"),
    ],
    mlp: Around::before("layer.2.layer_norm"),
    gate: Linear::new("layer.2.DenseReluDense.wi_0"),
    up: Linear::new("layer.2.DenseReluDense.wi_1"),
    down: Linear::new("layer.2.DenseReluDense.wo"),
    norm: "decoder.final_layer_norm",
    ..ENCODER
};

/// Distances bound nothing; this bounds memory.
const POSITIONS: usize = 4096;

pub fn t5(c: &Config) -> Result<Arch> {
    // A head of its own takes states as they are. Newer configs say so by another key than older ones.
    let tied = c.bool_or("tie_word_embeddings", true)?;
    arch(c, "t5", c.bool_or("scale_decoder_outputs", tied)?)
}

pub fn mt5(c: &Config) -> Result<Arch> {
    skip(c, &["tie_word_embeddings"]);
    arch(c, "mt5", false)
}

fn arch(c: &Config, family: &'static str, scaled: bool) -> Result<Arch> {
    skip(c, &["n_positions", "dropout_rate", "classifier_dropout", "initializer_factor"]);
    skip(c, &["dense_act_fn", "is_gated_act", "is_encoder_decoder"]);
    let encoder = stack(c, Side::Encoder)?;
    let (d_model, vocab) = (encoder.d_model, encoder.embed.vocab);
    let lm = Head::lm(Linear::new("lm_head"), true, vocab);
    let scale = if scaled { (d_model as f32).powf(-0.5) } else { 1.0 };
    let head = match Task::of(c, Task::LanguageModel)? {
        Task::LanguageModel => Head { scale, ..lm },
        Task::Tag => Head::classes(Task::Tag, Rows::All, Linear::new("classifier").bias(true), labels(c)?),
        task => Head::of_pair(c, task, d_model, 1)?,
    };
    // Twins of the shared table, and a table that no version has used.
    let ignored = &["embed_tokens.weight", "EncDecAttention.relative_attention_bias.weight"];
    let prefix = if matches!(head.task, Task::Classify | Task::Tag) { "transformer." } else { "" };
    if head.task == Task::Tag || class(c).is_some_and(|class| class.ends_with("EncoderModel")) {
        skip(c, &["num_decoder_layers"]);
        return Ok(Arch { ignored, prefix, ..Arch::encoder(family, POSITIONS, encoder, head) });
    }
    let decoder = stack(c, Side::Decoder)?;
    Ok(Arch { encoder: Some(encoder), ignored, prefix, ..Arch::decoder(family, POSITIONS, decoder, head) })
}

fn stack(c: &Config, side: Side) -> Result<Stack> {
    let (encodes, d_model) = (side == Side::Encoder, c.usize_or("d_model", 512)?);
    let (head_dim, n_heads) = (c.usize_or("d_kv", 64)?, c.usize_or("num_heads", 8)?);
    let n_layers = c.usize_or("num_layers", 6)?;
    let mut names = if encodes { ENCODER } else { DECODER };
    let mlp = match c.str_or("feed_forward_proj", "relu")? {
        // What they call GELU so is its approximation.
        "gated-gelu" => Mlp::Gated(kernels::act::Act::GeluTanh),
        gated if gated.starts_with("gated-") => {
            Mlp::Gated(act_named(c, "feed_forward_proj", gated.trim_start_matches("gated-"))?)
        }
        plain => {
            names.up =
                Linear::new(if encodes { "layer.1.DenseReluDense.wi" } else { "layer.2.DenseReluDense.wi" });
            Mlp::Plain(act_named(c, "feed_forward_proj", plain)?)
        }
    };
    let full = Attention::full(head_dim);
    Ok(Stack {
        n_layers: if encodes { n_layers } else { c.usize_or("num_decoder_layers", n_layers)? },
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        d_ff: c.usize_or("d_ff", 2048)?,
        embed: Embed { vocab: c.usize("vocab_size")?, width: d_model, scale: 1.0, types: 0 },
        position: Position::Relative {
            buckets: c.usize_or("relative_attention_num_buckets", 32)?,
            far: c.usize_or("relative_attention_max_distance", 128)?,
            pad: None,
        },
        norm: Norms::rms(c.f32_or("layer_norm_epsilon", 1e-6)?),
        mixer: Mixer::Attention(Attention { scale: 1.0, causal: !encodes, cross: !encodes, ..full }),
        mlp,
        parallel: false,
        names,
    })
}
