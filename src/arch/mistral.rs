//! Floor 3: Mistral (Jiang et al. 2023): Llama's block with a sliding window.

use super::Arch;
use super::llama::{Defaults, NAMES, variant};
use crate::error::Result;
use crate::format::config::Config;

pub fn arch(c: &Config) -> Result<Arch> {
    let mut arch =
        variant(c, "mistral", NAMES, Defaults { kv_heads: Some(8), ..Defaults::positions(4096 * 32) })?;
    arch.edit(|_, attention| {
        attention.window = c.window("sliding_window", Some(4096))?;
        Ok(())
    })?;
    Ok(arch)
}
