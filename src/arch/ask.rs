//! Floor 3: what families ask of a `config.json` in the same way. Knows no family.

use crate::error::{Error, Result};
use crate::format::config::{Config, brief};
use kernels::act::Act;

/// Which blocks attend through a window: as `layer_types` says, or else `by`.
pub(super) fn local_layers(config: &Config, layers: usize, by: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
    let Some(types) = config.raw("layer_types").filter(|v| !v.is_null()) else {
        return Ok((0..layers).map(by).collect());
    };
    let local = |v: &serde_json::Value| match v.as_str() {
        Some("sliding_attention") => Some(true),
        Some("full_attention") => Some(false),
        _ => None,
    };
    let listed: Option<Vec<bool>> = types.as_array().and_then(|types| types.iter().map(local).collect());
    listed.filter(|listed| listed.len() == layers).ok_or_else(|| {
        config.bad(&format!(
            "layer_types: expected full_attention or sliding_attention for each of {layers} layers"
        ))
    })
}

/// A count that files call by one of `names`.
pub(super) fn named(config: &Config, names: &[&str], default: usize) -> Result<usize> {
    let mut found = None;
    for name in names {
        found = found.or(config.maybe_usize(name)?);
    }
    Ok(found.unwrap_or(default))
}

/// The width of each of `n_heads` heads that make up `d_model` together.
pub(super) fn head_dim(config: &Config, d_model: usize, n_heads: usize) -> Result<usize> {
    match d_model.checked_div(n_heads) {
        Some(dim) if dim * n_heads == d_model => Ok(dim),
        _ => {
            Err(config.bad(&format!("hidden size {d_model} is not a multiple of {n_heads} attention heads")))
        }
    }
}

/// The activation that a config names.
pub(super) fn act(config: &Config, key: &str, default: &str) -> Result<Act> {
    act_named(config, key, config.str_or(key, default)?)
}

/// The activation of this name, which `key` of a config has.
pub(super) fn act_named(config: &Config, key: &str, name: &str) -> Result<Act> {
    match name {
        "silu" | "swish" => Ok(Act::Silu),
        "gelu" => Ok(Act::GeluErf),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Act::GeluTanh),
        "relu" => Ok(Act::Relu),
        "tanh" => Ok(Act::Tanh),
        "quick_gelu" => Ok(Act::QuickGelu),
        other => Err(Error::Unsupported { file: config.file().to_owned(), what: format!("{key} `{other}`") }),
    }
}

/// Marks keys as read that say nothing about what a family computes.
pub(super) fn skip(config: &Config, keys: &[&str]) {
    keys.iter().for_each(|key| {
        let _ = config.raw(key);
    });
}

/// Refuses `key` unless it is absent or has one of the neutral values that `is_neutral` accepts.
pub(super) fn only(
    config: &Config,
    key: &str,
    is_neutral: impl Fn(&serde_json::Value) -> bool,
) -> Result<()> {
    match config.raw(key) {
        Some(value) if !value.is_null() && !is_neutral(value) => Err(Error::Unsupported {
            file: config.file().to_owned(),
            what: format!("{key} = {}", brief(value)),
        }),
        _ => Ok(()),
    }
}
