//! Floor 3: GPT-NeoX (Black et al. 2022) and Pythia (Biderman et al. 2023): parallel halves, a share of each head rotated.

use super::{
    Arch, Around, Attention, Embed, Fused, Head, Linear, Mixer, Mlp, Names, Norms, Position, Stack, act,
    head_dim, rope, tasks::head_of,
};
use crate::error::Result;
use crate::format::config::Config;

const NAMES: Names = Names {
    tokens: "embed_in",
    block: "layers.{}.",
    attn: Around::before("input_layernorm"),
    o: Linear::new("attention.dense"),
    mlp: Around::before("post_attention_layernorm"),
    up: Linear::new("mlp.dense_h_to_4h").bias(true),
    down: Linear::new("mlp.dense_4h_to_h").bias(true),
    norm: "final_layer_norm",
    ..Names::NONE
}
.fused(Linear::new("attention.query_key_value"), Fused::Groups);

pub fn arch(c: &Config) -> Result<Arch> {
    let (d_model, n_heads) = (c.usize("hidden_size")?, c.usize("num_attention_heads")?);
    let (vocab, head_dim) = (c.usize("vocab_size")?, head_dim(c, d_model, n_heads)?);
    let (theta, share) = (c.f32_or("rotary_emb_base", 10_000.0)?, c.f32_or("rotary_pct", 0.25)?);
    let bias = c.bool_or("attention_bias", true)?;
    let stack = Stack {
        n_layers: c.usize("num_hidden_layers")?,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        d_ff: c.usize("intermediate_size")?,
        embed: Embed { vocab, width: d_model, scale: 1.0, types: 0 },
        position: Position::Rope { all: rope::rope_or(c, head_dim, theta, share)?, local: None },
        norm: Norms::layer(c.f32_or("layer_norm_eps", 1e-5)?),
        mixer: Mixer::Attention(Attention::causal(head_dim)),
        mlp: Mlp::Plain(act(c, "hidden_act", "gelu")?),
        parallel: c.bool_or("use_parallel_residual", true)?,
        names: NAMES.attn_bias(bias, bias),
    };
    let lm = Head::lm(Linear::new("lm_head"), c.bool_or("tie_word_embeddings", false)?, vocab);
    let positions = c.usize_or("max_position_embeddings", 2048)?;
    let positions = rope::reach(c)?.map_or(positions, |reach| reach.min(positions));
    let arch = Arch::decoder("gpt_neox", positions, stack, head_of(c, lm, "classifier")?);
    Ok(Arch {
        prefix: "gpt_neox.",
        ignored: &["attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"],
        renamed: &[("lm_head.", "embed_out.")],
        ..arch
    })
}
