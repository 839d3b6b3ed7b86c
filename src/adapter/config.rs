//! Floor 3: `adapter_config.json`: what kind of adapter, and which modules it changes. Knows no tensors.

use super::bottleneck::{self, NeckConfig};
use super::pattern::Pattern;
use crate::error::{Error, Result};
use crate::format::config::{Config, brief};
use crate::format::shown;
use serde_json::{Map, Value};

/// Largest rank.
pub const MAX_RANK: usize = 1 << 14;
/// Largest scale of any kind.
pub const MAX_SCALE: f32 = 1e6;
/// Most virtual tokens.
const MAX_VIRTUAL: usize = 1 << 14;

/// What an adapter is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Products of two narrow matrices beside matrices (Hu et al. 2021), with magnitudes too (Liu et al. 2024, DoRA); whole
    /// modules and biases (Ben Zaken et al. 2021) where it saved some.
    Lora,
    /// Factors of keys, values and inner activations (Liu et al. 2022).
    Ia3,
    /// Vectors before the tokens' own (Lester et al. 2021).
    PromptTuning,
    /// Keys and values before the tokens' own (Li and Liang 2021).
    PrefixTuning,
    /// Small MLPs behind the halves of blocks (Houlsby et al. 2019), in the form of the adapters library.
    Bottleneck,
}

impl Kind {
    /// As `peft_type` spells it; of the adapters library, its word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Lora => "LORA",
            Kind::Ia3 => "IA3",
            Kind::PromptTuning => "PROMPT_TUNING",
            Kind::PrefixTuning => "PREFIX_TUNING",
            Kind::Bottleneck => "bottleneck",
        }
    }
}

/// Names of modules, or an expression that names them.
#[derive(Debug)]
pub enum Names {
    /// These, or modules whose path ends with one of these.
    List(Vec<String>),
    /// Those that match as a whole.
    Matching(Pattern),
    /// Every linear but the last of the head.
    AllLinear,
}

/// Which modules an adapter changes.
#[derive(Debug)]
pub struct Targets {
    /// As the file has them.
    pub shown: Value,
    names: Names,
    exclude: Option<Names>,
    /// Only in these blocks; empty: in all.
    layers: Vec<u64>,
    /// What stands before the number of a block; empty: anything.
    stems: Vec<Pattern>,
}

/// Settings of an adapter.
#[derive(Debug)]
pub struct AdapterConfig {
    /// The file's name for messages.
    pub file: String,
    /// What it is.
    pub kind: Kind,
    /// Which modules; `None` of prompts and prefixes.
    pub targets: Option<Targets>,
    /// Of those, the ones that scale what they read, not what they return (IA3).
    pub feedforward: Option<Targets>,
    /// Modules that the adapter has whole.
    pub modules_to_save: Vec<String>,
    /// Rank, unless `rank_pattern` names another one.
    pub rank: usize,
    /// What the product is multiplied by, times the rank, unless `alpha_pattern` names another one.
    pub alpha: f32,
    /// Divides by the root of the rank instead (Kalajdzievski 2023).
    pub rslora: bool,
    /// Whether magnitudes are apart from directions.
    pub dora: bool,
    /// Whether narrow products have biases.
    pub lora_bias: bool,
    /// Whether biases of the model were trained too.
    pub bias: bool,
    /// Vectors before the text.
    pub virtual_tokens: usize,
    /// How small MLPs are.
    pub neck: Option<NeckConfig>,
    rank_pattern: Vec<(Pattern, usize)>,
    alpha_pattern: Vec<(Pattern, f32)>,
    /// What was said of a head beside the adapter, for a copy that is saved.
    pub head: Option<Vec<u8>>,
    /// The whole object, for the same.
    pub object: Map<String, Value>,
}

/// Keys that say nothing about what is computed from an adapter that was trained.
const IGNORED: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "init_ia3_weights",
    "init_weights",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "prompt_tuning_init",
    "prompt_tuning_init_text",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "tokenizer_kwargs",
    "tokenizer_name_or_path",
    "encoder_hidden_size",
];

impl AdapterConfig {
    /// Reads a config whose every key is understood, says nothing, or has its neutral value.
    ///
    /// # Errors
    /// `Unsupported` for a kind or a key that the engine does not do, `Format` for values of the wrong type or range.
    pub fn read(c: &Config) -> Result<AdapterConfig> {
        if c.object_itself().contains_key("config") && !c.object_itself().contains_key("peft_type") {
            return bottleneck::config(c);
        }
        let kind = kind(c)?;
        let mut out = AdapterConfig {
            modules_to_save: strings(c, "modules_to_save")?,
            rslora: c.bool_or("use_rslora", false)?,
            dora: c.bool_or("use_dora", false)?,
            lora_bias: c.bool_or("lora_bias", false)?,
            object: c.object_itself().clone(),
            ..AdapterConfig::empty(c.file(), kind)
        };
        match kind {
            Kind::Bottleneck => {}
            Kind::Lora => out.lora(c)?,
            Kind::Ia3 => {
                out.targets = Some(targets(c, "target_modules")?);
                out.feedforward = Some(targets(c, "feedforward_modules")?);
            }
            Kind::PromptTuning | Kind::PrefixTuning => out.prompt(c)?,
        }
        c.finish(IGNORED)?;
        Ok(out)
    }

    /// One that says nothing.
    pub(super) fn empty(file: &str, kind: Kind) -> AdapterConfig {
        AdapterConfig {
            file: file.to_owned(),
            kind,
            targets: None,
            feedforward: None,
            modules_to_save: Vec::new(),
            rank: 0,
            alpha: 0.0,
            rslora: false,
            dora: false,
            lora_bias: false,
            bias: false,
            virtual_tokens: 0,
            neck: None,
            head: None,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            object: Map::new(),
        }
    }

    fn lora(&mut self, c: &Config) -> Result<()> {
        initialised(c)?;
        self.targets = Some(targets(c, "target_modules")?);
        self.bias = match c.str_or("bias", "none")? {
            "none" => false,
            "all" | "lora_only" => true,
            other => return Err(c.bad(&format!("bias: expected none, all or lora_only, found `{other}`"))),
        };
        self.rank = rank(c, "r", c.usize_or("r", 8)?)?;
        self.alpha = alpha(c, "lora_alpha", c.f32_or("lora_alpha", 8.0)?)?;
        for (key, value) in object(c, "rank_pattern")? {
            let found = value.as_u64().and_then(|r| usize::try_from(r).ok()).unwrap_or(0);
            self.rank_pattern.push((pattern(c, "rank_pattern", key)?, rank(c, "rank_pattern", found)?));
        }
        for (key, value) in object(c, "alpha_pattern")? {
            let found = value.as_f64().map_or(f32::NAN, |a| a as f32);
            self.alpha_pattern.push((pattern(c, "alpha_pattern", key)?, alpha(c, "alpha_pattern", found)?));
        }
        Ok(())
    }

    fn prompt(&mut self, c: &Config) -> Result<()> {
        self.virtual_tokens = c.usize("num_virtual_tokens")?;
        if self.virtual_tokens == 0 || self.virtual_tokens > MAX_VIRTUAL {
            let found = self.virtual_tokens;
            return Err(c.bad(&format!("num_virtual_tokens: expected 1 to {MAX_VIRTUAL}, found {found}")));
        }
        // What they say follows from the tensor's shape, or is true of the prompt's encoder alone, which is not kept.
        for key in ["token_dim", "num_layers", "num_attention_heads", "prefix_projection"] {
            let _ = c.raw(key);
        }
        let modules = c.usize_or("num_transformer_submodules", 1)?;
        if modules != 1 {
            let what = format!("num_transformer_submodules = {modules}");
            return Err(Error::Unsupported { file: c.file().to_owned(), what });
        }
        Ok(())
    }

    /// Rank and scale of the narrow product in the module of this path.
    ///
    /// # Errors
    /// `Format` where a pattern takes too long.
    pub fn rank_and_scale(&self, module: &str) -> Result<(usize, f32)> {
        let rank = self.first(&self.rank_pattern, module)?.unwrap_or(self.rank);
        let alpha = self.first(&self.alpha_pattern, module)?.unwrap_or(self.alpha);
        // Python divides doubles.
        let r = if self.rslora { (rank as f64).sqrt() } else { rank as f64 };
        Ok((rank, (f64::from(alpha) / r) as f32))
    }

    fn first<T: Copy>(&self, of: &[(Pattern, T)], module: &str) -> Result<Option<T>> {
        for (pattern, value) in of {
            if pattern.matches_end(module).map_err(|what| self.bad(&what))? {
                return Ok(Some(*value));
            }
        }
        Ok(None)
    }

    fn bad(&self, what: &str) -> Error {
        crate::format::bad(&self.file, format!("a pattern {what}"))
    }

    /// Whether `targets` name the module of this path. `linear`: whether `all-linear` means it.
    ///
    /// # Errors
    /// `Format` where a pattern takes too long.
    pub fn is_target(&self, targets: &Targets, module: &str, linear: bool) -> Result<bool> {
        let within = |part: &String| format!(".{module}.").contains(&format!(".{part}."));
        if self.modules_to_save.iter().any(within) {
            return Ok(false);
        }
        targets.name(module, linear).map_err(|what| self.bad(&what))
    }

    /// Whether the adapter has the module of this path whole.
    pub fn is_saved(&self, module: &str) -> bool {
        self.modules_to_save.iter().any(|name| module.ends_with(name.as_str()))
    }
}

impl Targets {
    fn name(&self, module: &str, linear: bool) -> Result<bool, String> {
        if let Some(exclude) = &self.exclude
            && exclude.name(module, linear)?
        {
            return Ok(false);
        }
        if !self.names.name(module, linear)? {
            return Ok(false);
        }
        let exact = matches!(&self.names, Names::List(list) if list.iter().any(|name| name == module));
        if self.layers.is_empty() || exact {
            return Ok(true);
        }
        Ok(self.layer(module)?.is_some_and(|layer| self.layers.contains(&layer)))
    }

    /// The number of the block that a module is in.
    fn layer(&self, module: &str) -> Result<Option<u64>, String> {
        let parts: Vec<&str> = module.split('.').collect();
        for at in 1..parts.len().saturating_sub(1) {
            let Ok(number) = parts[at].parse() else { continue };
            let before = parts[..at].join(".");
            let mut named = self.stems.is_empty() && at >= 2;
            for stem in &self.stems {
                named |= stem.matches_end(&before)?;
            }
            if named {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }
}

impl Names {
    fn name(&self, module: &str, linear: bool) -> Result<bool, String> {
        let ends = |name: &String| {
            module == name || module.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'))
        };
        match self {
            Names::List(list) => Ok(list.iter().any(ends)),
            Names::Matching(pattern) => pattern.matches(module),
            Names::AllLinear => Ok(linear),
        }
    }
}

fn kind(c: &Config) -> Result<Kind> {
    let name = c.str("peft_type")?;
    let known = [Kind::Lora, Kind::Ia3, Kind::PromptTuning, Kind::PrefixTuning];
    known.into_iter().find(|kind| kind.name() == name).ok_or_else(|| Error::Unsupported {
        file: c.file().to_owned(),
        what: format!("peft_type `{}` (known: {})", shown(name), known.map(Kind::name).join(", ")),
    })
}

/// Ways to begin training that change the model itself are refused: what they changed is not in the adapter.
fn initialised(c: &Config) -> Result<()> {
    match c.raw("init_lora_weights") {
        None | Some(Value::Null | Value::Bool(_)) => Ok(()),
        Some(Value::String(how)) if ["gaussian", "eva", "orthogonal"].contains(&how.as_str()) => Ok(()),
        Some(other) => Err(Error::Unsupported {
            file: c.file().to_owned(),
            what: format!("init_lora_weights = {}, which changes the model's own weights,", brief(other)),
        }),
    }
}

fn targets(c: &Config, key: &str) -> Result<Targets> {
    let shown = c.raw(key).cloned().unwrap_or_default();
    let names = names(c, key, &shown)?.ok_or_else(|| c.bad(&format!("{key} is missing")))?;
    let exclude = c.raw("exclude_modules").cloned().unwrap_or_default();
    let exclude = self::names(c, "exclude_modules", &exclude)?;
    let layers = c.raw("layers_to_transform").cloned().unwrap_or_default();
    let number = |v: &Value| v.as_u64();
    let layers = match &layers {
        Value::Null => Some(Vec::new()),
        Value::Array(list) => list.iter().map(number).collect(),
        one => number(one).map(|one| vec![one]),
    };
    let layers = layers.ok_or_else(|| c.bad("layers_to_transform: expected numbers of blocks"))?;
    let stems = strings(c, "layers_pattern")?;
    let stems = stems.iter().filter(|stem| !stem.is_empty());
    let stems = stems.map(|stem| pattern(c, "layers_pattern", stem)).collect::<Result<_>>()?;
    Ok(Targets { shown, names, exclude, layers, stems })
}

/// A list of names, an expression, or `all-linear`; `None` where there is nothing.
fn names(c: &Config, key: &str, value: &Value) -> Result<Option<Names>> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text == "all-linear" => Ok(Some(Names::AllLinear)),
        Value::String(text) => Ok(Some(Names::Matching(pattern(c, key, text)?))),
        Value::Array(list) if list.is_empty() => Ok(Some(Names::List(Vec::new()))),
        Value::Array(_) => Ok(Some(Names::List(strings(c, key)?))),
        other => Err(c.bad(&format!("{key}: expected names or an expression, found {}", brief(other)))),
    }
}

fn pattern(c: &Config, key: &str, text: &str) -> Result<Pattern> {
    Pattern::new(text).map_err(|what| c.bad(&format!("{key}: `{}` {what}", shown(text))))
}

/// A name or a list of them; empty where absent or null.
fn strings(c: &Config, key: &str) -> Result<Vec<String>> {
    let text = |v: &Value| v.as_str().filter(|text| text.len() <= 256).map(str::to_owned);
    let list = match c.raw(key) {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(text).collect(),
        Some(one) => text(one).map(|one| vec![one]),
    };
    list.ok_or_else(|| c.bad(&format!("{key}: expected names of at most 256 bytes")))
}

fn object<'a>(c: &'a Config, key: &str) -> Result<impl Iterator<Item = (&'a String, &'a Value)> + use<'a>> {
    match c.raw(key) {
        None | Some(Value::Null) => Ok(None.into_iter().flatten()),
        Some(Value::Object(map)) => Ok(Some(map.iter()).into_iter().flatten()),
        Some(other) => Err(c.bad(&format!("{key}: expected an object, found {}", brief(other)))),
    }
}

fn rank(c: &Config, key: &str, found: usize) -> Result<usize> {
    if (1..=MAX_RANK).contains(&found) {
        return Ok(found);
    }
    Err(c.bad(&format!("{key}: expected a rank from 1 to {MAX_RANK}, found {found}")))
}

fn alpha(c: &Config, key: &str, found: f32) -> Result<f32> {
    if found.abs() <= MAX_SCALE {
        return Ok(found);
    }
    Err(c.bad(&format!("{key}: expected a number of at most {MAX_SCALE}, found {found}")))
}
