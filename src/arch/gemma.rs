//! Floor 3: Gemma (Mesnard et al. 2024): Llama's block with scaled embeddings, gated GELU, and gains stored less 1.

use super::llama::{Defaults, NAMES, variant};
use super::{Arch, Mlp, Names, act, only};
use crate::error::Result;
use crate::format::config::Config;
use kernels::act::Act;

pub fn arch(c: &Config) -> Result<Arch> {
    let mut arch = base(c, "gemma", NAMES, 16)?;
    // Its first files say gelu and mean the approximation; some say so in a second key.
    let key = if c.raw("hidden_activation").is_some_and(|v| !v.is_null()) {
        "hidden_activation"
    } else {
        "hidden_act"
    };
    let act = match c.str_or(key, "gelu")? {
        "gelu" => Act::GeluTanh,
        _ => act(c, key, "gelu")?,
    };
    let Some(stack) = &mut arch.decoder else { return Ok(arch) };
    stack.mlp = Mlp::Gated(act);
    Ok(arch)
}

/// What Gemma 1 and 2 share.
pub fn base(c: &Config, family: &'static str, names: Names, kv_heads: usize) -> Result<Arch> {
    let bias = c.bool_or("attention_bias", false)?;
    only(c, "use_bidirectional_attention", |v| v == false)?;
    let or =
        Defaults { kv_heads: Some(kv_heads), head_dim: Some(256), tied: true, ..Defaults::positions(8192) };
    let mut arch = variant(c, family, names.attn_bias(bias, bias), or)?;
    let Some(stack) = &mut arch.decoder else { return Ok(arch) };
    stack.embed.scale = (stack.d_model as f32).sqrt();
    stack.norm.gain = 1.0;
    Ok(arch)
}
