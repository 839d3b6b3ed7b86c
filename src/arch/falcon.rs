//! Floor 3: Falcon (Almazrouei et al. 2023): parallel halves and few heads of keys and values; its first form, trained on
//! RefinedWeb alone, has ALiBi and plain blocks.

use super::{
    Arch, Around, Attention, Embed, Head, Linear, Mixer, Mlp, Names, Norms, Position, Stack, act, bloom,
    head_dim, named, only, rope, tasks::head_of,
};
use crate::error::Result;
use crate::format::config::Config;

pub fn arch(c: &Config) -> Result<Arch> {
    let d_model = named(c, &["n_embed", "hidden_size"], 4544)?;
    let n_heads = named(c, &["num_attention_heads", "n_head"], 71)?;
    let (vocab, head_dim) = (c.usize_or("vocab_size", 65_024)?, head_dim(c, d_model, n_heads)?);
    let (grouped, single) = (c.bool_or("new_decoder_architecture", false)?, c.bool_or("multi_query", true)?);
    let (parallel, bias) = (c.bool_or("parallel_attn", true)?, c.bool_or("bias", false)?);
    if grouped {
        only(c, "parallel_attn", |v| v == true)?;
    }
    let kv_heads = c.usize_or("num_kv_heads", n_heads)?;
    let norms = c.usize_or("num_ln_in_parallel_attn", if grouped { 2 } else { 1 })?;
    let mut names = Names { embed_norm: "", ..bloom::NAMES.attn_bias(bias, bias).mlp_bias(bias) };
    match (parallel, norms) {
        (false, _) => {}
        (true, 2) => (names.attn, names.mlp) = (Around::before("ln_attn"), Around::before("ln_mlp")),
        (true, _) => names.mlp = Around::NONE,
    }
    // Its bias joins scores before they are scaled, and was made in bf16.
    let position = match c.bool_or("alibi", false)? {
        true => Position::Alibi { scale: (head_dim as f32).sqrt().recip(), coarse: true },
        false => Position::Rope { all: rope::rope(c, head_dim, 1.0)?, local: None },
    };
    for key in ["rope_parameters", "rope_scaling", "rope_theta"] {
        only(c, key, |_| true)?;
    }
    only(c, "apply_residual_connection_post_layernorm", |v| v == false)?;
    only(c, "ff_factor", |_| true)?;
    let stack = Stack {
        n_layers: named(c, &["num_hidden_layers", "n_layer"], 32)?,
        d_model,
        n_heads,
        n_kv_heads: if grouped {
            kv_heads
        } else if single {
            1
        } else {
            n_heads
        },
        head_dim,
        d_ff: c.usize_or("ffn_hidden_size", 4 * d_model)?,
        embed: Embed { vocab, width: d_model, scale: 1.0, types: 0 },
        position,
        norm: Norms::layer(c.f32_or("layer_norm_epsilon", 1e-5)?),
        mixer: Mixer::Attention(Attention::causal(head_dim)),
        mlp: Mlp::Plain(act(c, "activation", "gelu")?),
        parallel,
        names,
    };
    let lm = Head::lm(Linear::new("lm_head"), c.bool_or("tie_word_embeddings", true)?, vocab);
    let positions = c.usize_or("max_position_embeddings", 2048)?;
    let arch = Arch::decoder("falcon", positions, stack, head_of(c, lm, "classifier")?);
    Ok(Arch { prefix: "transformer.", ignored: &["rotary_emb.inv_freq"], ..arch })
}
