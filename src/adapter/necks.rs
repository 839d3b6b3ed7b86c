//! Floor 3: bottleneck adapters that begin to learn, with the settings that the adapters library would write. Knows no files.

use super::bottleneck::spelled;
use super::{Module, Neck};
use crate::arch::Arch;
use crate::weights::{End, Site, Weights};
use kernels::act::Act;
use serde_json::{Value, json};

/// What tensors call an adapter that is made here.
const NAME: &str = "learned";

/// Families whose modules have small MLPs themselves, by how many names of a linear's path lie inside such a module.
const INSIDE: &[(&str, usize)] = &[
    ("bert", 1),
    ("roberta", 1),
    ("xlm-roberta", 1),
    ("camembert", 1),
    ("electra", 1),
    ("t5", 2),
    ("mt5", 2),
];

/// The inner width of small MLPs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Width {
    /// The model's over this.
    Over(usize),
    /// This.
    Is(usize),
}

/// How small MLPs begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BottleneckConfig {
    /// Their inner width.
    pub width: Width,
    /// Between their matrices: ReLU, SiLU, GELU or tanh; `None`: what the library has for the place.
    pub act: Option<Act>,
    /// Behind attention and MLP, before the residual (Houlsby et al. 2019); or behind the MLP alone, where its sum with the
    /// residual is read (Pfeiffer et al. 2020).
    pub both: bool,
}

/// Settings and modules of small MLPs in every block: matrices from `random`, biases of zeros, as the library begins them.
/// `None` for an activation that it has no word for, or a width of 0.
pub fn beginning(
    arch: &Arch,
    weights: &Weights,
    config: BottleneckConfig,
    random: &mut dyn FnMut() -> f32,
) -> Option<(Value, Vec<Module>)> {
    let d = arch.last().d_model;
    let width = match config.width {
        Width::Over(n) => d.checked_div(n)?.max(1),
        Width::Is(n) => (1..=super::config::MAX_RANK).contains(&n).then_some(n)?,
    };
    let act = config.act.unwrap_or(if config.both { Act::Silu } else { Act::Relu });
    let module = |site: &Site| {
        let (end, block) = site.end.as_ref()?;
        if *end == End::Cross || *end == End::Attention && !config.both {
            return None;
        }
        let mut numbers = |n: usize| (0..n).map(|_| random()).collect();
        let neck = Neck {
            origin: origin(arch, site, *end, block),
            width,
            act,
            scale: 1.0,
            sum: !config.both,
            down: numbers(width * d),
            down_bias: vec![0.0; width],
            up: numbers(d * width),
            up_bias: vec![0.0; d],
        };
        Some(Module { neck: Some(neck), ..Module::new(weights.sites.long_name(site), site) })
    };
    let modules = weights.sites.list().iter().filter_map(module).collect();
    Some((settings(arch, config, spelled(act)?, width), modules))
}

/// What the names of a place's tensors begin with.
fn origin(arch: &Arch, site: &Site, end: End, block: &str) -> String {
    let inside = INSIDE.iter().find(|(family, _)| *family == arch.family).map(|(_, names)| *names);
    let place = match inside {
        Some(names) => {
            let parts: Vec<&str> = site.module.split('.').collect();
            parts[..parts.len().saturating_sub(names)].join(".")
        }
        None => format!("{block}{}", end.necks()),
    };
    format!("{}{place}.adapters.{NAME}", arch.prefix)
}

/// The settings, with every key that the library looks at.
fn settings(arch: &Arch, config: BottleneckConfig, act: &str, width: usize) -> Value {
    let d = arch.last().d_model;
    let reduction = match config.width {
        Width::Over(n) => json!(n),
        _ if d.is_multiple_of(width) => json!(d / width),
        // The library rounds the quotient down.
        Width::Is(n) => json!(d as f64 / (n as f64 + 0.5)),
    };
    json!({
        "config": {
            "mh_adapter": config.both, "output_adapter": true, "cross_adapter": false, "leave_out": [],
            "reduction_factor": reduction, "non_linearity": act, "scaling": 1.0, "is_parallel": false,
            "original_ln_before": !config.both, "original_ln_after": true, "residual_before_ln": true,
            "adapter_residual_before_ln": false, "ln_before": false, "ln_after": false, "init_weights": "bert",
            "init_weights_seed": null, "inv_adapter": null, "inv_adapter_reduction_factor": null, "use_gating": false,
            "dropout": 0.0, "stochastic_depth": 0.0, "phm_layer": false, "phm_dim": 4, "phm_bias": true, "phm_rank": 1,
            "phm_c_init": "normal", "phm_init_range": 0.0001, "learn_phm": true, "factorized_phm_W": true,
            "factorized_phm_rule": false, "shared_W_phm": false, "shared_phm_rule": true,
            "hypercomplex_nonlinearity": "glorot-uniform",
        },
        "hidden_size": d, "model_class": null, "model_name": null, "model_type": arch.family, "name": NAME,
        "version": "adapters.1.3.0",
    })
}
