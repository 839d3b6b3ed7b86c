//! Floor 3: Phi-3 and Phi-4 mini (Abdin et al. 2024): Llama's block with fused tensors and a share of each head rotated.

use super::llama::{Defaults, NAMES as LLAMA, variant};
use super::{Arch, Fused, Linear, Names, Part};
use crate::error::Result;
use crate::format::config::Config;

const NAMES: Names = Names {
    gate: Linear::new("mlp.gate_up_proj").part(Part::Gate),
    up: Linear::new("mlp.gate_up_proj").part(Part::Up),
    ..LLAMA
}
.fused(Linear::new("self_attn.qkv_proj"), Fused::Concat);

pub fn arch(c: &Config) -> Result<Arch> {
    // Read by its rope alone, where that has two sets of factors.
    let _ = c.raw("original_max_position_embeddings");
    let mut arch = variant(c, "phi3", NAMES, Defaults { eps: 1e-5, ..Defaults::positions(4096) })?;
    arch.edit(|_, attention| {
        attention.window = c.window("sliding_window", None)?;
        Ok(())
    })?;
    Ok(arch)
}
