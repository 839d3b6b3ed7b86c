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
    AdapterConfig::read(&Config::parse(text.name(), text.bytes())?)
}

/// Its tensors.
///
/// # Errors
/// `Format` where there are none; as the formats'.
pub fn tensors(files: &Files) -> Result<Tensors> {
    let open = |name| files.open(name, &mut Reading::quiet(Load::Map));
    if files.has(WEIGHTS) {
        return safetensors::parse(&open(WEIGHTS)?);
    }
    #[cfg(feature = "checkpoints")]
    if files.has(OLD_WEIGHTS) {
        return crate::format::checkpoint::tensors(&open(OLD_WEIGHTS)?);
    }
    let old = if files.has(OLD_WEIGHTS) { ": this build does not read `adapter_model.bin`" } else { "" };
    Err(bad(&files.name(), format!("expected `{WEIGHTS}`, found none{old}")))
}
