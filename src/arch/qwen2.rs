//! Floor 3: Qwen2 and Qwen2.5 (Yang et al. 2024): Llama's block with biases on queries, keys and values.

use super::llama::{Defaults, NAMES, variant};
use super::{Arch, local_layers};
use crate::error::Result;
use crate::format::config::Config;

pub fn arch(c: &Config) -> Result<Arch> {
    let mut arch = variant(
        c,
        "qwen2",
        NAMES.attn_bias(true, false),
        Defaults { kv_heads: Some(32), ..Defaults::positions(32_768) },
    )?;
    window(c, &mut arch)?;
    Ok(arch)
}

/// Blocks from `max_window_layers` on have a sliding window, where it is switched on.
pub fn window(c: &Config, arch: &mut Arch) -> Result<()> {
    let sliding = c.bool_or("use_sliding_window", false)?;
    let (window, from) = (c.window("sliding_window", Some(4096))?, c.usize_or("max_window_layers", 28)?);
    arch.edit(|layers, attention| {
        attention.window = window.filter(|_| sliding);
        attention.local = local_layers(c, layers, |layer| layer >= from)?;
        Ok(())
    })
}
