//! Floor 3: Qwen3 (Yang et al. 2025): Llama's block with norms of queries and keys, head by head.

use super::llama::{Defaults, NAMES, variant};
use super::{Arch, Names, QkNorm, qwen2};
use crate::error::Result;
use crate::format::config::Config;

pub fn arch(c: &Config) -> Result<Arch> {
    let bias = c.bool_or("attention_bias", false)?;
    let names = Names { qk_norm: ["self_attn.q_norm", "self_attn.k_norm"], ..NAMES.attn_bias(bias, bias) };
    let or = Defaults { kv_heads: Some(32), head_dim: Some(128), ..Defaults::positions(32_768) };
    let mut arch = variant(c, "qwen3", names, or)?;
    qwen2::window(c, &mut arch)?;
    arch.edit(|_, attention| {
        attention.qk_norm = QkNorm::Head;
        Ok(())
    })?;
    Ok(arch)
}
