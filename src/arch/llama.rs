//! Floor 3: Llama 1 to 3 (Touvron et al. 2023) and what follows its `config.json`, such as SmolLM2.

use super::{
    Arch, Around, Attention, Embed, Head, Linear, Mixer, Mlp, Names, Norms, Position, Stack, act, only, rope,
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
    variant(c, "llama", NAMES.attn_bias(attention_bias, attention_bias).mlp_bias(mlp_bias), 2048)
}

/// A family with Llama's block: its own names (biases) and default context. What else it changes it changes in the
/// [`Arch`] that this returns.
pub fn variant(c: &Config, family: &'static str, names: Names, positions: usize) -> Result<Arch> {
    let (d_model, n_heads) = (c.usize("hidden_size")?, c.usize("num_attention_heads")?);
    let head_dim = c.usize_or("head_dim", d_model / n_heads.max(1))?;
    let (vocab, max_positions) = (c.usize("vocab_size")?, c.usize_or("max_position_embeddings", positions)?);
    only(c, "attention_dropout", |_| true)?;
    let stack = Stack {
        n_layers: c.usize("num_hidden_layers")?,
        d_model,
        n_heads,
        n_kv_heads: c.usize_or("num_key_value_heads", n_heads)?,
        head_dim,
        d_ff: c.usize("intermediate_size")?,
        embed: Embed { vocab, width: d_model, scale: 1.0, types: 0 },
        position: Position::Rope { all: rope::rope(c, head_dim, 1.0)?, local: None },
        norm: Norms::rms(c.f32_or("rms_norm_eps", 1e-6)?),
        mixer: Mixer::Attention(Attention::causal(head_dim)),
        mlp: Mlp::Gated(act(c, "hidden_act", "silu")?),
        parallel: false,
        names,
    };
    let head = Head::lm(Linear::new("lm_head"), c.bool_or("tie_word_embeddings", false)?, vocab);
    let arch = Arch::decoder(family, max_positions, stack, head);
    Ok(Arch { prefix: "model.", ignored: &["rotary_emb.inv_freq"], ..arch })
}
