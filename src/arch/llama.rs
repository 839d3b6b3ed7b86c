//! Floor 3: Llama 1 to 3 (Touvron et al. 2023) and what follows its `config.json`, such as SmolLM2.

use super::{
    Arch, Around, Attention, Embed, Head, Linear, Mixer, Mlp, Names, Norms, Position, Stack, Task, act, only,
    rope, tasks::head_of,
};
use crate::error::Result;
use crate::format::config::Config;

/// The names that Llama and its variants share.
pub const NAMES: Names = Names {
    tokens: "embed_tokens",
    block: "layers.{}.",
    attn: Around::before("input_layernorm"),
    q: Linear::new("self_attn.q_proj"),
    k: Linear::new("self_attn.k_proj"),
    v: Linear::new("self_attn.v_proj"),
    o: Linear::new("self_attn.o_proj"),
    mlp: Around::before("post_attention_layernorm"),
    gate: Linear::new("mlp.gate_proj"),
    up: Linear::new("mlp.up_proj"),
    down: Linear::new("mlp.down_proj"),
    norm: "norm",
    ..Names::NONE
};

pub fn arch(c: &Config) -> Result<Arch> {
    let (attention_bias, mlp_bias) = (c.bool_or("attention_bias", false)?, c.bool_or("mlp_bias", false)?);
    only(c, "pretraining_tp", |v| v.as_u64().is_some_and(|n| n <= 1))?;
    let names = NAMES.attn_bias(attention_bias, attention_bias).mlp_bias(mlp_bias);
    variant(c, "llama", names, Defaults::positions(2048))
}

/// What a family's library takes for keys that a file lacks.
pub struct Defaults {
    /// Positions.
    pub positions: usize,
    /// Heads of keys and values; none: as many as of queries.
    pub kv_heads: Option<usize>,
    /// Width of a head; none: its share of the stream.
    pub head_dim: Option<usize>,
    /// Epsilon of norms.
    pub eps: f32,
    /// Whether the head is the embedding table.
    pub tied: bool,
}

impl Defaults {
    /// Llama's, with its own context.
    pub const fn positions(positions: usize) -> Defaults {
        Defaults { positions, kv_heads: None, head_dim: None, eps: 1e-6, tied: false }
    }
}

/// A family with Llama's block: its own names (biases) and defaults. What else it changes it changes in the [`Arch`] that
/// this returns.
pub fn variant(c: &Config, family: &'static str, names: Names, or: Defaults) -> Result<Arch> {
    let (d_model, n_heads) = (c.usize("hidden_size")?, c.usize("num_attention_heads")?);
    let head_dim = c.usize_or("head_dim", or.head_dim.unwrap_or(d_model / n_heads.max(1)))?;
    let (vocab, max_positions) =
        (c.usize("vocab_size")?, c.usize_or("max_position_embeddings", or.positions)?);
    let kv_heads = if c.raw("num_key_value_heads").is_some() { None } else { or.kv_heads };
    let stack = Stack {
        n_layers: c.usize("num_hidden_layers")?,
        d_model,
        n_heads,
        n_kv_heads: c.usize_or("num_key_value_heads", kv_heads.unwrap_or(n_heads))?,
        head_dim,
        d_ff: c.usize("intermediate_size")?,
        embed: Embed { vocab, width: d_model, scale: 1.0, types: 0 },
        position: Position::Rope { all: rope::rope(c, head_dim, 1.0)?, local: None },
        norm: Norms::rms(c.f32_or("rms_norm_eps", or.eps)?),
        mixer: Mixer::Attention(Attention::causal(head_dim)),
        mlp: Mlp::Gated(act(c, "hidden_act", "silu")?),
        parallel: false,
        names,
    };
    let lm = Head::lm(Linear::new("lm_head"), c.bool_or("tie_word_embeddings", or.tied)?, vocab);
    let head = head_of(c, lm, "score")?;
    // The library calls the block so where spans are asked for.
    let prefix = if head.task == Task::Span { "transformer." } else { "model." };
    let max_positions = rope::reach(c)?.map_or(max_positions, |reach| reach.min(max_positions));
    let arch = Arch::decoder(family, max_positions, stack, head);
    Ok(Arch { prefix, ignored: &["rotary_emb.inv_freq"], ..arch })
}
