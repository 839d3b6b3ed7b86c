//! Floor 3: Phi-1, 1.5 and 2 (Gunasekar et al. 2023): parallel halves that share a norm, a share of each head rotated.

use super::{
    Arch, Around, Attention, Embed, Head, Linear, Mixer, Mlp, Names, Norms, Position, Stack, act, head_dim,
    only, rope, tasks::head_of,
};
use crate::error::Result;
use crate::format::config::Config;

const NAMES: Names = Names {
    tokens: "embed_tokens",
    block: "layers.{}.",
    attn: Around::before("input_layernorm"),
    q: Linear::new("self_attn.q_proj").bias(true),
    k: Linear::new("self_attn.k_proj").bias(true),
    v: Linear::new("self_attn.v_proj").bias(true),
    o: Linear::new("self_attn.dense").bias(true),
    up: Linear::new("mlp.fc1").bias(true),
    down: Linear::new("mlp.fc2").bias(true),
    norm: "final_layernorm",
    ..Names::NONE
};

pub fn arch(c: &Config) -> Result<Arch> {
    let (d_model, n_heads) = (c.usize_or("hidden_size", 2048)?, c.usize_or("num_attention_heads", 32)?);
    let (vocab, head_dim) = (c.usize_or("vocab_size", 51_200)?, head_dim(c, d_model, n_heads)?);
    for key in ["attention_dropout", "embd_pdrop", "resid_pdrop"] {
        only(c, key, |_| true)?;
    }
    only(c, "qk_layernorm", |v| v == false)?;
    let stack = Stack {
        n_layers: c.usize_or("num_hidden_layers", 24)?,
        d_model,
        n_heads,
        n_kv_heads: c.usize_or("num_key_value_heads", n_heads)?,
        head_dim,
        d_ff: c.usize_or("intermediate_size", 8192)?,
        embed: Embed { vocab, width: d_model, scale: 1.0, types: 0 },
        position: Position::Rope { all: rope::rope_or(c, head_dim, 10_000.0, 0.5)?, local: None },
        norm: Norms::layer(c.f32_or("layer_norm_eps", 1e-5)?),
        mixer: Mixer::Attention(Attention::causal(head_dim)),
        mlp: Mlp::Plain(act(c, "hidden_act", "gelu_new")?),
        parallel: true,
        names: NAMES,
    };
    // Its bias is there even where the matrix is the embedding table.
    let lm = Head::lm(Linear::new("lm_head"), c.bool_or("tie_word_embeddings", false)?, vocab);
    let head = head_of(c, Head { bias: "lm_head.bias", ..lm }, "classifier")?;
    let positions = c.usize_or("max_position_embeddings", 2048)?;
    let arch = Arch::decoder("phi", positions, stack, head);
    Ok(Arch { prefix: "model.", ignored: &["rotary_emb.inv_freq"], ..arch })
}
