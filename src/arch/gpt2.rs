//! Floor 3: GPT-2 (Radford et al. 2019): pre-norm, learned positions, weights stored a row per input.

use super::{Arch, Linear, Mixer, Mlp, Names, Part, Position, act, only};
use crate::error::Result;
use crate::format::config::Config;
use kernels::norm::Norm;

const QKV: Linear = Linear::new("attn.c_attn").bias(true).conv1d();

const NAMES: Names = Names {
    prefix: "transformer.",
    tokens: "wte",
    positions: "wpe",
    block: "h.{}.",
    attn_norm: "ln_1",
    q: QKV.part(Part::Q),
    k: QKV.part(Part::K),
    v: QKV.part(Part::V),
    o: Linear::new("attn.c_proj").bias(true).conv1d(),
    mlp_norm: "ln_2",
    gate: None,
    up: Linear::new("mlp.c_fc").bias(true).conv1d(),
    down: Linear::new("mlp.c_proj").bias(true).conv1d(),
    norm: "ln_f",
    head: Linear::new("lm_head"),
    ignored: &["attn.bias", "attn.masked_bias"],
};

pub fn arch(c: &Config) -> Result<Arch> {
    let (d_model, n_heads) = (c.usize_or("n_embd", 768)?, c.usize_or("n_head", 12)?);
    let head_dim = d_model / n_heads.max(1);
    if head_dim * n_heads != d_model {
        return Err(c.bad(&format!("n_embd {d_model} is not a multiple of n_head {n_heads}")));
    }
    for key in ["attn_pdrop", "embd_pdrop", "resid_pdrop", "summary_first_dropout", "summary_activation"] {
        only(c, key, |_| true)?;
    }
    for key in
        ["summary_proj_to_labels", "summary_type", "summary_use_proj", "reorder_and_upcast_attn", "n_ctx"]
    {
        only(c, key, |_| true)?;
    }
    only(c, "scale_attn_by_inverse_layer_idx", |v| v == false)?;
    only(c, "add_cross_attention", |v| v == false)?;
    let scaled = c.bool_or("scale_attn_weights", true)?;
    let scale = if scaled { (head_dim as f32).sqrt().recip() } else { 1.0 };
    Ok(Arch {
        family: "gpt2",
        n_layers: c.usize_or("n_layer", 12)?,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        d_ff: c.usize_or("n_inner", 4 * d_model)?,
        vocab: c.usize_or("vocab_size", 50_257)?,
        max_positions: c.usize_or("n_positions", 1024)?,
        norm: Norm::Layer,
        eps: c.f32_or("layer_norm_epsilon", 1e-5)?,
        mixer: Mixer::Attention { scale, window: None },
        mlp: Mlp::Plain(act(c, "activation_function", "gelu_new")?),
        position: Position::Learned,
        tied: c.bool_or("tie_word_embeddings", true)?,
        names: NAMES,
    })
}
