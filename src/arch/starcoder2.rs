//! Floor 3: StarCoder2 (Lozhkov et al. 2024): grouped queries and rotary positions, with LayerNorm, biases and a plain MLP.

use super::llama::{Defaults, NAMES as LLAMA, variant};
use super::{Arch, Linear, Mlp, Names, Norms, act, only};
use crate::error::Result;
use crate::format::config::Config;

const NAMES: Names = Names { up: Linear::new("mlp.c_fc"), down: Linear::new("mlp.c_proj"), ..LLAMA };

pub fn arch(c: &Config) -> Result<Arch> {
    let bias = c.bool_or("use_bias", true)?;
    only(c, "norm_type", |v| v == "layer_norm")?;
    only(c, "mlp_type", |v| v == "default")?;
    let or = Defaults { kv_heads: Some(2), tied: true, ..Defaults::positions(4096) };
    let mut arch = variant(c, "starcoder2", NAMES.attn_bias(bias, bias).mlp_bias(bias), or)?;
    let (norm, mlp) = (c.f32_or("norm_epsilon", 1e-5)?, act(c, "hidden_act", "gelu_pytorch_tanh")?);
    if let Some(stack) = &mut arch.decoder {
        (stack.norm, stack.mlp) = (Norms::layer(norm), Mlp::Plain(mlp));
    }
    arch.edit(|_, attention| {
        attention.window = c.window("sliding_window", None)?;
        Ok(())
    })?;
    Ok(arch)
}
