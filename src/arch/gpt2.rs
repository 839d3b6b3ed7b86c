//! Floor 3: GPT-2 (Radford et al. 2019): pre-norm, learned positions, weights stored a row per input.

use super::{
    Arch, Around, Attention, Embed, Fused, Head, Linear, Mixer, Mlp, Names, Norms, Position, Stack, Table,
    act, head_dim, named, only,
    tasks::{head_of, unread_summary},
};
use crate::error::Result;
use crate::format::config::Config;

/// The names that GPT and GPT-2 share.
pub const NAMES: Names = Names {
    positions: "wpe",
    tokens: "wte",
    block: "h.{}.",
    attn: Around::before("ln_1"),
    o: Linear::new("attn.c_proj").bias(true).conv1d(),
    mlp: Around::before("ln_2"),
    up: Linear::new("mlp.c_fc").bias(true).conv1d(),
    down: Linear::new("mlp.c_proj").bias(true).conv1d(),
    norm: "ln_f",
    ..Names::NONE
}
.fused(Linear::new("attn.c_attn").bias(true).conv1d(), Fused::Concat);

pub fn arch(c: &Config) -> Result<Arch> {
    let (d_model, n_heads) =
        (named(c, &["n_embd", "hidden_size"], 768)?, named(c, &["n_head", "num_attention_heads"], 12)?);
    let head_dim = head_dim(c, d_model, n_heads)?;
    unread_summary(c)?;
    only(c, "reorder_and_upcast_attn", |_| true)?;
    only(c, "scale_attn_by_inverse_layer_idx", |v| v == false)?;
    only(c, "add_cross_attention", |v| v == false)?;
    let mut attention = Attention::causal(head_dim);
    if !c.bool_or("scale_attn_weights", true)? {
        attention.scale = 1.0;
    }
    let vocab = c.usize_or("vocab_size", 50_257)?;
    let stack = Stack {
        n_layers: named(c, &["n_layer", "num_hidden_layers"], 12)?,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        d_ff: c.usize_or("n_inner", 4 * d_model)?,
        embed: Embed { vocab, width: d_model, scale: 1.0, types: 0 },
        position: Position::Table { table: Table::Learned, offset: 0, pad: None },
        norm: Norms::layer(c.f32_or("layer_norm_epsilon", 1e-5)?),
        mixer: Mixer::Attention(attention),
        mlp: Mlp::Plain(act(c, "activation_function", "gelu_new")?),
        parallel: false,
        names: NAMES,
    };
    let head = Head::lm(Linear::new("lm_head"), c.bool_or("tie_word_embeddings", true)?, vocab);
    let positions = named(c, &["n_positions", "max_position_embeddings"], 1024)?;
    let arch = Arch::decoder("gpt2", positions, stack, head_of(c, head, "classifier")?);
    Ok(Arch { prefix: "transformer.", ignored: &["attn.bias", "attn.masked_bias"], ..arch })
}
