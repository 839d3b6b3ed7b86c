//! Floor 3: bottleneck adapters (Houlsby et al. 2019, Pfeiffer et al. 2020) in the form of the adapters library: small MLPs
//! behind attention and behind the MLP of each block. Knows no programs.

use super::config::{AdapterConfig, Kind, MAX_SCALE};
use super::read::Binder;
use super::{Module, Neck};
use crate::error::{Error, Result};
use crate::format::config::Config;
use crate::weights::Site;
use kernels::act::Act;
use std::collections::BTreeMap;

/// How all of an adapter's small MLPs are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NeckConfig {
    /// Between the two matrices.
    pub act: Act,
    /// What is multiplied into their product.
    pub scale: f32,
    /// Whether they read the sum with the residual (normed, where a norm follows it), not what comes before it.
    pub sum: bool,
}

/// Keys that say how training began, or say something only beside others that are refused.
const IGNORED: &[&str] = &[
    "adapter_residual_before_ln",
    "dropout",
    "factorized_phm_W",
    "hypercomplex_nonlinearity",
    "init_weights",
    "init_weights_seed",
    "inv_adapter_reduction_factor",
    "learn_phm",
    "leave_out",
    "mh_adapter",
    "output_adapter",
    "cross_adapter",
    "phm_bias",
    "phm_c_init",
    "phm_dim",
    "phm_init_range",
    "phm_rank",
    "reduction_factor",
    "shared_phm_rule",
    "stochastic_depth",
];

/// Activations as the library spells them, its own word first.
const ACTS: &[(&str, Act)] = &[
    ("relu", Act::Relu),
    ("swish", Act::Silu),
    ("silu", Act::Silu),
    ("gelu_new", Act::GeluTanh),
    ("gelu", Act::GeluErf),
    ("gelu_orig", Act::GeluErf),
    ("tanh", Act::Tanh),
];

/// The library's word for an activation.
#[cfg(feature = "train")]
pub fn spelled(act: Act) -> Option<&'static str> {
    ACTS.iter().find(|(_, known)| *known == act).map(|(word, _)| *word)
}

/// The settings of an adapter of the adapters library.
///
/// # Errors
/// `Unsupported` for a key that changes what is computed and is not understood; `Format`.
pub fn config(c: &Config) -> Result<AdapterConfig> {
    let inner = c.object("config")?.ok_or_else(|| c.bad("config is missing"))?;
    let refuse = |what: String| Error::Unsupported { file: c.file().to_owned(), what };
    if inner.raw("architecture").is_some_and(|v| !v.is_null()) {
        return Err(refuse(format!("config.architecture = `{}`", inner.str("architecture")?)));
    }
    // Both are true of every adapter that a block can have here.
    for key in ["residual_before_ln", "original_ln_after"] {
        if inner.raw(key).is_some_and(|v| *v != true) {
            return Err(refuse(format!("config.{key} other than true")));
        }
    }
    let word = inner.str("non_linearity")?.to_lowercase();
    let act = ACTS.iter().find(|(known, _)| *known == word).map(|(_, act)| *act);
    let act = act.ok_or_else(|| refuse(format!("config.non_linearity `{word}`")))?;
    let scale = inner.f32_or("scaling", 1.0)?;
    if scale.abs() > MAX_SCALE {
        return Err(c.bad(&format!("config.scaling: expected at most {MAX_SCALE}, found {scale}")));
    }
    let neck = NeckConfig { act, scale, sum: inner.bool_or("original_ln_before", false)? };
    inner.finish(IGNORED)?;
    c.finish(&["hidden_size", "model_class", "model_name", "model_type", "name", "version"])?;
    let mut out = AdapterConfig::empty(c.file(), Kind::Bottleneck);
    (out.neck, out.object) = (Some(neck), c.object_itself().clone());
    Ok(out)
}

impl Binder<'_> {
    /// The modules of an adapter: its small MLPs, one for each half of a block that has one.
    pub(super) fn necks(&self, neck: NeckConfig) -> Result<Vec<Module>> {
        let mut by_place: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for name in self.tensors.names() {
            // `{place}.adapters.{name}.adapter_down.0.weight`
            let split = name
                .find(".adapters.")
                .map(|at| &name[..at])
                .or(name.find("_adapters.").map(|at| &name[..at + 9]));
            let place = split.ok_or_else(|| self.wrong(name, "is not part of a bottleneck adapter"))?;
            by_place.entry(place).or_default().push(name);
        }
        by_place.into_iter().map(|(place, names)| self.neck(place, &names, neck)).collect()
    }

    fn neck(&self, place: &str, names: &[&str], neck: NeckConfig) -> Result<Module> {
        let first = names.first().copied().unwrap_or_default();
        let site = self.half(place).ok_or_else(|| {
            self.wrong(
                first,
                format!("a model of family {} has no such half of a block: `{place}`", self.arch.family),
            )
        })?;
        let find = |end: &str| names.iter().find(|name| name.ends_with(end)).copied();
        let need = |end: &str| find(end).ok_or_else(|| self.wrong(&format!("{place}{end}"), "is missing"));
        let (down, up) = (need(".adapter_down.0.weight")?, need(".adapter_up.weight")?);
        let (down_bias, up_bias) = (need(".adapter_down.0.bias")?, need(".adapter_up.bias")?);
        let known = [down, up, down_bias, up_bias];
        if let Some(name) = names.iter().find(|name| !known.contains(name)) {
            return Err(self.wrong(name, "is not understood beside the other tensors of its adapter"));
        }
        let width = self.tensors.get(down)?.and_then(|t| t.shape().first().copied()).unwrap_or(0);
        if width == 0 || width > super::config::MAX_RANK {
            return Err(
                self.wrong(down, format!("expected 1 to {} rows, found {width}", super::config::MAX_RANK))
            );
        }
        let d = site.n;
        let made = Neck {
            origin: down.trim_end_matches(".adapter_down.0.weight").to_owned(),
            width,
            act: neck.act,
            scale: neck.scale,
            sum: neck.sum,
            down: self.floats(down, &[width, d])?,
            down_bias: self.floats(down_bias, &[width])?,
            up: self.floats(up, &[d, width])?,
            up_bias: self.floats(up_bias, &[d])?,
        };
        let module = Module::new(site.module.clone(), site);
        Ok(Module { neck: Some(made), ..module })
    }

    /// The linear at the end of a half of a block, by where the library keeps the half's adapters.
    fn half(&self, place: &str) -> Option<&Site> {
        let short = place.strip_prefix(self.arch.prefix).unwrap_or(place);
        let sites = self.weights.sites.list().iter();
        let ends = |site: &&Site| {
            let Some((end, block)) = &site.end else { return false };
            let named = end.necks();
            let inside = |place: &str| {
                site.module.strip_prefix(place).is_some_and(|rest| rest.starts_with('.'))
                    && place.starts_with(block.as_str())
            };
            [place, short]
                .iter()
                .any(|place| place.strip_prefix(block.as_str()) == Some(named) || inside(place))
        };
        let mut found = sites.filter(ends);
        // One place means one half.
        found.next().filter(|_| found.next().is_none())
    }
}
