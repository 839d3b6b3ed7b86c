//! Floor 3: an adapter's files, and what they say without a model. Knows no places.

use super::config::{AdapterConfig, Kind};
use crate::error::Result;
use crate::format::config::Config;
use crate::format::files::{Files, Load};
use crate::format::source::Reading;
use crate::format::tensors::Tensors;
use crate::format::{bad, json, safetensors};
use serde_json::Value;

/// The settings.
pub const CONFIG: &str = "adapter_config.json";
/// The tensors.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// The tensors as older versions wrote them.
const OLD_WEIGHTS: &str = "adapter_model.bin";

/// The tensors of an adapter of the adapters library.
pub const BOTTLENECK: &str = "adapter.safetensors";
/// The same as older versions wrote them.
const OLD_BOTTLENECK: &str = "pytorch_adapter.bin";
/// The head that library saves beside them.
pub const HEAD: &str = "model_head.safetensors";
/// What that library says of it.
pub const HEAD_CONFIG: &str = "head_config.json";

/// What an adapter's files say.
#[derive(Clone, Debug)]
pub struct AdapterInfo {
    /// What it is.
    pub kind: Kind,
    /// Whether magnitudes are apart from directions.
    pub dora: bool,
    /// Rank, where the config names no other one; 0 where there is none.
    pub rank: usize,
    /// As the config has it.
    pub targets: Option<Value>,
    /// Modules that it has whole.
    pub modules_to_save: Vec<String>,
    /// Vectors before a text.
    pub virtual_tokens: usize,
    /// The model that it was trained on, as the config calls it.
    pub base: Option<String>,
    /// Its tensors.
    pub tensors: usize,
    /// Numbers in them.
    pub parameters: u64,
    /// Bytes of their file.
    pub bytes: u64,
}

/// What the adapter in `files` is.
///
/// # Errors
/// `Io`, `Format`, `Unsupported`, as for opening it; what only a model can tell is not looked at.
pub fn info(files: &Files) -> Result<AdapterInfo> {
    let (config, tensors) = (config(files)?, tensors(files)?);
    let base = config.object.get("base_model_name_or_path").and_then(Value::as_str);
    Ok(AdapterInfo {
        kind: config.kind,
        dora: config.dora,
        rank: config.rank,
        base: base.map(str::to_owned),
        targets: config.targets.map(|targets| targets.shown),
        modules_to_save: config.modules_to_save,
        virtual_tokens: config.virtual_tokens,
        tensors: tensors.names().count(),
        parameters: tensors.elements(),
        bytes: tensors.bytes(),
    })
}

/// The settings of the adapter in `files`.
///
/// # Errors
/// `Format` where there are none; as [`AdapterConfig::read`].
pub fn config(files: &Files) -> Result<AdapterConfig> {
    let text = files.small(CONFIG, json::MAX_BYTES)?;
    let text = text.ok_or_else(|| bad(&files.name(), format!("expected `{CONFIG}`, found none")))?;
    let mut config = AdapterConfig::read(&Config::parse(text.name(), text.bytes())?)?;
    config.head = files.small(HEAD_CONFIG, json::MAX_BYTES)?.map(|text| text.bytes().to_vec());
    Ok(config)
}

/// Tensors of a head beside an adapter.
///
/// # Errors
/// As the format's.
pub fn head(files: &Files) -> Result<Option<Tensors>> {
    if !files.has(HEAD) {
        return Ok(None);
    }
    safetensors::parse(&files.open(HEAD, &mut Reading::quiet(Load::Map))?).map(Some)
}

/// Its tensors.
///
/// # Errors
/// `Format` where there are none; as the formats'.
pub fn tensors(files: &Files) -> Result<Tensors> {
    let open = |name| files.open(name, &mut Reading::quiet(Load::Map));
    if let Some(name) = [WEIGHTS, BOTTLENECK].into_iter().find(|name| files.has(name)) {
        return safetensors::parse(&open(name)?);
    }
    let old = [OLD_WEIGHTS, OLD_BOTTLENECK].into_iter().find(|name| files.has(name));
    #[cfg(feature = "checkpoints")]
    if let Some(name) = old {
        return crate::format::checkpoint::tensors(&open(name)?);
    }
    let old = old.map_or(String::new(), |name| format!(": this build does not read `{name}`"));
    Err(bad(&files.name(), format!("expected `{WEIGHTS}`, found none{old}")))
}
