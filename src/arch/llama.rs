//! Floor 3: Llama 1 to 3 (Touvron et al. 2023) and what follows its `config.json`, such as SmolLM2.

use super::{Arch, Linear, Mixer, Mlp, Names, Position, act, only};
use crate::error::Result;
use crate::format::config::Config;
use kernels::norm::Norm;
use kernels::rope::{Rope, Scaling};

/// The names that Llama and its variants share.
pub const NAMES: Names = Names {
    prefix: "model.",
    tokens: "embed_tokens",
    positions: "",
    block: "layers.{}.",
    attn_norm: "input_layernorm",
    q: Linear::new("self_attn.q_proj"),
    k: Linear::new("self_attn.k_proj"),
    v: Linear::new("self_attn.v_proj"),
    o: Linear::new("self_attn.o_proj"),
    mlp_norm: "post_attention_layernorm",
    gate: Some(Linear::new("mlp.gate_proj")),
    up: Linear::new("mlp.up_proj"),
    down: Linear::new("mlp.down_proj"),
    norm: "norm",
    head: Linear::new("lm_head"),
    ignored: &["rotary_emb.inv_freq"],
};

pub fn arch(c: &Config) -> Result<Arch> {
    let (attention_bias, mlp_bias) = (c.bool_or("attention_bias", false)?, c.bool_or("mlp_bias", false)?);
    only(c, "pretraining_tp", |v| v.as_u64().is_some_and(|n| n <= 1))?;
    let names = NAMES;
    let names = Names {
        q: names.q.bias(attention_bias),
        k: names.k.bias(attention_bias),
        v: names.v.bias(attention_bias),
        o: names.o.bias(attention_bias),
        gate: names.gate.map(|gate| gate.bias(mlp_bias)),
        up: names.up.bias(mlp_bias),
        down: names.down.bias(mlp_bias),
        ..names
    };
    variant(c, "llama", names, None, 2048)
}

/// A family with Llama's block: its own names (biases), window and default context.
pub fn variant(
    c: &Config,
    family: &'static str,
    names: Names,
    window: Option<u32>,
    positions: usize,
) -> Result<Arch> {
    let (d_model, n_heads) = (c.usize("hidden_size")?, c.usize("num_attention_heads")?);
    let head_dim = c.usize_or("head_dim", d_model / n_heads.max(1))?;
    only(c, "attention_dropout", |_| true)?;
    Ok(Arch {
        family,
        n_layers: c.usize("num_hidden_layers")?,
        d_model,
        n_heads,
        n_kv_heads: c.usize_or("num_key_value_heads", n_heads)?,
        head_dim,
        d_ff: c.usize("intermediate_size")?,
        vocab: c.usize("vocab_size")?,
        max_positions: c.usize_or("max_position_embeddings", positions)?,
        norm: Norm::Rms,
        eps: c.f32_or("rms_norm_eps", 1e-6)?,
        mixer: Mixer::Attention { scale: (head_dim as f32).sqrt().recip(), window },
        mlp: Mlp::Gated(act(c, "hidden_act", "silu")?),
        position: Position::Rope(rope(c, head_dim)?),
        tied: c.bool_or("tie_word_embeddings", false)?,
        names,
    })
}

/// `rope_theta` and `rope_scaling`, at the top or, in newer files, within `rope_parameters`.
fn rope(c: &Config, head_dim: usize) -> Result<Rope> {
    let nested = c.object("rope_parameters")?;
    let scaling = match &nested {
        Some(parameters) => Some(parameters.clone()),
        None => c.object("rope_scaling")?,
    };
    let theta = match &nested {
        Some(parameters) => parameters.f32_or("rope_theta", 10_000.0)?,
        None => c.f32_or("rope_theta", 10_000.0)?,
    };
    // The transformers library gives the rotated share this name in all families that have one.
    let share = c.f32_or("partial_rotary_factor", 1.0)?;
    let rot_dim = (head_dim as f32 * share) as usize;
    // Written by us for GGUF files alone, whose Llama queries and keys are stored for this form.
    let interleaved = c.bool_or("rope_interleaved", false)?;
    if !rot_dim.is_multiple_of(2) || rot_dim > head_dim || rot_dim == 0 {
        return Err(
            c.bad(&format!("rotated dimensions: expected an even number up to {head_dim}, found {rot_dim}"))
        );
    }
    if !(theta.is_finite() && theta > 0.0) {
        return Err(c.bad(&format!("rope_theta: expected a positive number, found {theta}")));
    }
    let scaling = match scaling {
        Some(s) => scaling_of(&s)?,
        None => Scaling::None,
    };
    Ok(Rope { theta, rot_dim, interleaved, scaling })
}

fn scaling_of(s: &Config) -> Result<Scaling> {
    let kind = match s.raw("rope_type") {
        Some(_) => s.str("rope_type")?,
        None => s.str_or("type", "default")?,
    };
    let _ = (s.raw("type"), s.raw("rope_theta"));
    let scaling = match kind {
        "default" => Scaling::None,
        "linear" => Scaling::Linear { factor: positive(s, "factor")? },
        "llama3" => Scaling::Llama3 {
            factor: positive(s, "factor")?,
            low_freq: positive(s, "low_freq_factor")?,
            high_freq: positive(s, "high_freq_factor")?,
            original: s.usize("original_max_position_embeddings")? as f32,
        },
        other => {
            let what = format!("rope_scaling of type `{other}` (known: default, linear, llama3)");
            return Err(crate::Error::Unsupported { file: s.file().to_owned(), what });
        }
    };
    s.finish(&["original_max_position_embeddings"])?;
    Ok(scaling)
}

fn positive(s: &Config, key: &str) -> Result<f32> {
    let found = s.f32(key)?;
    if found.is_finite() && found > 0.0 {
        return Ok(found);
    }
    Err(s.bad(&format!("{key}: expected a positive number, found {found}")))
}
