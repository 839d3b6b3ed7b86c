//! Floor 3: Qwen2 and Qwen2.5 (Yang et al. 2024): Llama's block with biases on queries, keys and values.

use super::llama::{NAMES, variant};
use super::{Arch, Names, only};
use crate::error::{Error, Result};
use crate::format::config::Config;

pub fn arch(c: &Config) -> Result<Arch> {
    let sliding = c.bool_or("use_sliding_window", false)?;
    let layers = c.usize("num_hidden_layers")?;
    let (window, from) = (c.window("sliding_window", Some(4096))?, c.usize_or("max_window_layers", 28)?);
    only(c, "layer_types", |v| {
        v.as_array().is_some_and(|types| types.iter().all(|t| sliding || t == "full_attention"))
    })?;
    // Layers below `max_window_layers` see everything; only "all" and "none" are one value for the whole stack.
    let window = match window.filter(|_| sliding) {
        Some(_) if from >= layers => None,
        Some(_) if from > 0 => {
            let what = format!("a sliding window from layer {from} on, of {layers} layers");
            return Err(Error::Unsupported { file: c.file().to_owned(), what });
        }
        window => window,
    };
    let names = Names { q: NAMES.q.bias(true), k: NAMES.k.bias(true), v: NAMES.v.bias(true), ..NAMES };
    variant(c, "qwen2", names, window, 32_768)
}
