//! Floor 3: BLOOM (Le Scao et al. 2022): ALiBi, a norm of the embeddings, queries, keys and values head by head.

use super::{
    Arch, Around, Attention, Embed, Fused, Head, Linear, Mixer, Mlp, Names, Norms, Position, Stack, head_dim,
    named, only, tasks::head_of,
};
use crate::error::Result;
use crate::format::config::Config;
use kernels::act::Act;

/// The names that BLOOM and Falcon share.
pub const NAMES: Names = Names {
    tokens: "word_embeddings",
    embed_norm: "word_embeddings_layernorm",
    block: "h.{}.",
    attn: Around::before("input_layernorm"),
    o: Linear::new("self_attention.dense").bias(true),
    mlp: Around::before("post_attention_layernorm"),
    up: Linear::new("mlp.dense_h_to_4h").bias(true),
    down: Linear::new("mlp.dense_4h_to_h").bias(true),
    norm: "ln_f",
    ..Names::NONE
}
.fused(Linear::new("self_attention.query_key_value").bias(true), Fused::Groups);

pub fn arch(c: &Config) -> Result<Arch> {
    let d_model = named(c, &["n_embed", "hidden_size"], 64)?;
    let n_heads = named(c, &["n_head", "num_attention_heads"], 8)?;
    let (vocab, head_dim) = (c.usize_or("vocab_size", 250_880)?, head_dim(c, d_model, n_heads)?);
    only(c, "apply_residual_connection_post_layernorm", |v| v == false)?;
    only(c, "slow_but_exact", |v| v == false)?;
    // How its training was laid out.
    for key in ["attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi"] {
        only(c, key, |_| true)?;
    }
    for key in ["pretraining_pp", "pretraining_tp", "skip_bias_add", "skip_bias_add_qkv"] {
        only(c, key, |_| true)?;
    }
    let stack = Stack {
        n_layers: named(c, &["n_layer", "num_hidden_layers"], 2)?,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        d_ff: 4 * d_model,
        embed: Embed { vocab, width: d_model, scale: 1.0, types: 0 },
        position: Position::Alibi { scale: 1.0, coarse: false },
        norm: Norms::layer(c.f32_or("layer_norm_epsilon", 1e-5)?),
        mixer: Mixer::Attention(Attention::causal(head_dim)),
        mlp: Mlp::Plain(Act::GeluTanh),
        parallel: false,
        names: NAMES,
    };
    let lm = Head::lm(Linear::new("lm_head"), c.bool_or("tie_word_embeddings", true)?, vocab);
    let arch = Arch::decoder("bloom", c.usize_or("seq_length", 2048)?, stack, head_of(c, lm, "classifier")?);
    Ok(Arch { prefix: "transformer.", ..arch })
}
