//! Floor 3: Gemma 2 (Riviere et al. 2024): Gemma with norms on both sides of each half, capped scores and logits, and a
//! window in every other block.

use super::llama::NAMES as LLAMA;
use super::{Arch, Around, Mlp, Names, Task, act, gemma, local_layers};
use crate::error::Result;
use crate::format::config::Config;

const NAMES: Names = Names {
    attn: Around { before: "input_layernorm", inner: "post_attention_layernorm", after: "" },
    mlp: Around { before: "pre_feedforward_layernorm", inner: "post_feedforward_layernorm", after: "" },
    ..LLAMA
};

pub fn arch(c: &Config) -> Result<Arch> {
    let mut arch = gemma::base(c, "gemma2", NAMES, 4)?;
    let logits = cap(c, "final_logit_softcapping", 30.0)?;
    if arch.head.task == Task::LanguageModel {
        arch.head.cap = logits;
    }
    let mlp = Mlp::Gated(act(c, "hidden_activation", "gelu_pytorch_tanh")?);
    // Written by some for Gemma 1, whose block does not read it.
    let _ = c.raw("hidden_act");
    if let Some(stack) = &mut arch.decoder {
        stack.mlp = mlp;
    }
    arch.edit(|layers, attention| {
        attention.scale = c.f32_or("query_pre_attn_scalar", 256.0)?.sqrt().recip();
        attention.cap = cap(c, "attn_logit_softcapping", 50.0)?;
        attention.window = c.window("sliding_window", Some(4096))?;
        attention.local = local_layers(c, layers, |layer| layer % 2 == 0)?;
        Ok(())
    })?;
    Ok(arch)
}

/// A cap: `default` where absent, none where null.
fn cap(c: &Config, key: &str, default: f32) -> Result<Option<f32>> {
    if c.raw(key).is_none() {
        return Ok(Some(default));
    }
    match c.maybe_f32(key)? {
        Some(found) if found <= 0.0 => {
            Err(c.bad(&format!("{key}: expected a positive number or null, found {found}")))
        }
        found => Ok(found),
    }
}
