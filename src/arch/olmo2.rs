//! Floor 3: OLMo 2 (Walsh et al. 2024): Llama's block with its norms after each half, and norms of whole queries and keys.

use super::llama::{Defaults, NAMES as LLAMA, variant};
use super::{Arch, Around, Names, QkNorm};
use crate::error::Result;
use crate::format::config::Config;

const NAMES: Names = Names {
    attn: Around { before: "", inner: "post_attention_layernorm", after: "" },
    mlp: Around { before: "", inner: "post_feedforward_layernorm", after: "" },
    qk_norm: ["self_attn.q_norm", "self_attn.k_norm"],
    ..LLAMA
};

pub fn arch(c: &Config) -> Result<Arch> {
    let bias = c.bool_or("attention_bias", false)?;
    let or = Defaults { eps: 1e-5, ..Defaults::positions(2048) };
    let mut arch = variant(c, "olmo2", NAMES.attn_bias(bias, bias), or)?;
    arch.edit(|_, attention| {
        attention.qk_norm = QkNorm::Row;
        Ok(())
    })?;
    Ok(arch)
}
