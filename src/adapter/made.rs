//! Floor 3: adapters made here, of what has learned, with the settings that peft would write. Knows no files.

use super::read::{NEXT, places};
use super::{Adapter, AdapterConfig, Kind, Lora, Module, dora};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::config::Config;
use crate::weights::{P, Param, Role, Site, Weights};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A narrow product of one linear, which learned apart from those of other linears.
pub struct LowRank<'a> {
    /// The linear's matrix.
    pub w: P,
    /// Rows of A.
    pub rank: usize,
    /// What the product is multiplied by.
    pub scale: f32,
    /// `[rank, k]`
    pub a: &'a [f32],
    /// `[n, rank]`
    pub b: &'a [f32],
    /// `[n]`: magnitudes, where they are apart.
    pub magnitude: Option<&'a [f32]>,
}

/// Factors of one linear.
pub struct Factors<'a> {
    /// The linear's matrix.
    pub w: P,
    /// `[k]`, of inputs.
    pub inputs: Option<&'a [f32]>,
    /// `[n]`, of outputs.
    pub outputs: Option<&'a [f32]>,
}

/// Biases of a linear or a norm.
pub struct Biases<'a> {
    /// What it does.
    pub role: Role,
    /// Its matrix or gain.
    pub w: P,
    /// `[n]`
    pub values: &'a [f32],
}

/// Vectors before a text.
pub struct Before {
    /// Prompt or prefix.
    pub kind: Kind,
    /// How many.
    pub tokens: usize,
    /// The numbers that its settings name: `num_layers`, `num_attention_heads`, `token_dim`.
    pub sizes: [usize; 3],
    /// As peft spells what the model was made for.
    pub task: &'static str,
    /// As [`Adapter`] keeps them.
    pub values: Vec<f32>,
}

/// What has learned.
pub enum Made<'a> {
    /// LoRA or DoRA.
    LowRank(Vec<LowRank<'a>>),
    /// IA3.
    Factors(Vec<Factors<'a>>),
    /// Biases alone.
    Biases(Vec<Biases<'a>>),
    /// A prompt or a prefix.
    Before(Before),
    /// Small MLPs, with the settings that they have.
    Necks(Value, Vec<Module>),
}

impl Adapter {
    /// An adapter of what has learned. Where several linears are one module of the library that trains adapters, what they have
    /// is joined there: narrow products lie one below the other in A, and B has zeros where they do not meet.
    ///
    /// # Errors
    /// `Argument` for a matrix that is no place's, or sizes that are not its; `Budget`.
    pub fn made(engine: &Arc<Engine>, weights: &Weights, name: &str, what: Made) -> Result<Adapter> {
        let (settings, modules, prompt) = match what {
            Made::LowRank(list) => low_rank(weights, &list)?,
            Made::Factors(list) => factors(weights, &list)?,
            Made::Biases(list) => biases(weights, &list)?,
            Made::Before(before) => (settings_before(&before), Vec::new(), before.values),
            Made::Necks(settings, modules) => (settings, modules, Vec::new()),
        };
        let words = modules.iter().map(Module::parameters).sum::<u64>() + prompt.len() as u64;
        Ok(Adapter {
            id: NEXT.fetch_add(1, Relaxed),
            name: name.to_owned(),
            model: weights.sites.id(),
            places: places(weights, &modules),
            config: AdapterConfig::read(&Config::new("adapter", settings)?)?,
            modules,
            prompt,
            _charge: engine.charge("an adapter", words.saturating_mul(4))?,
        })
    }
}

/// Settings, modules, and what comes before a text.
type Whole = (Value, Vec<Module>, Vec<f32>);

/// What places have, by their modules.
struct ByModule<'w, 'l, T>(&'w Weights, BTreeMap<String, Vec<(&'w Site, &'l T)>>);

impl<'w, 'l, T> ByModule<'w, 'l, T> {
    /// Those of `list`, whose places `find` names, if they have its sizes.
    fn new(
        weights: &'w Weights,
        list: &'l [T],
        find: impl Fn(&T) -> (Role, P),
        fits: impl Fn(&Site, &T) -> bool,
    ) -> Result<Self> {
        let mut by_module: BTreeMap<String, Vec<(&Site, &T)>> = BTreeMap::new();
        for one in list {
            let (role, w) = find(one);
            let site = weights.sites.find(role, w).map(|at| &weights.sites.list()[at as usize]);
            let Some(site) = site.filter(|site| fits(site, one)) else {
                let what = "expected what has the sizes of the model's modules".to_owned();
                return Err(Error::Argument { name: "adapter", what });
            };
            by_module.entry(weights.sites.long_name(site)).or_default().push((site, one));
        }
        Ok(ByModule(weights, by_module))
    }

    fn paths(&self) -> Vec<&String> {
        self.1.keys().collect()
    }

    /// A module for each path.
    fn modules(&self, join: impl Fn(&Weights, &mut Module, &[(&Site, &T)])) -> Vec<Module> {
        let module = |(path, parts): (&String, &Vec<(&Site, &T)>)| {
            let mut module = Module::new(path.clone(), parts.first()?.0);
            join(self.0, &mut module, parts);
            Some(module)
        };
        self.1.iter().filter_map(module).collect()
    }
}

/// Puts what a place has to its rows among those of its module.
fn put(whole: &mut [f32], site: &Site, own: &[f32]) {
    site.rows.rows(site.n).zip(own).for_each(|(row, x)| whole[row] = *x);
}

/// A module's path as an expression that means it alone.
fn exactly(path: &str) -> String {
    format!("^{}$", path.replace('.', r"\."))
}

fn low_rank(weights: &Weights, list: &[LowRank]) -> Result<Whole> {
    let fits = |site: &Site, one: &LowRank| {
        let magnitude = one.magnitude.is_none_or(|m| m.len() == site.n);
        one.rank > 0 && one.a.len() == one.rank * site.k && one.b.len() == site.n * one.rank && magnitude
    };
    let by_module = ByModule::new(weights, list, |one| (Role::Linear, one.w), fits)?;
    let settings = settings_low_rank(&by_module);
    Ok((settings, by_module.modules(join_low_rank), Vec::new()))
}

/// The settings of products.
fn settings_low_rank(by_module: &ByModule<LowRank>) -> Value {
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    let (mut first, mut dora) = (None, false);
    for (path, parts) in &by_module.1 {
        let rank: usize = parts.iter().map(|(_, one)| one.rank).sum();
        // The scales of parts that differ are in B.
        let alpha = parts.first().map_or(0.0, |(_, one)| f64::from(one.scale)) * rank as f64;
        let (r, a) = *first.get_or_insert((rank, alpha));
        if rank != r {
            ranks.insert(exactly(path), rank.into());
        }
        if alpha != a {
            alphas.insert(exactly(path), alpha.into());
        }
        dora |= parts.iter().any(|(_, one)| one.magnitude.is_some());
    }
    let (rank, alpha) = first.unwrap_or((1, 1.0));
    json!({
        "peft_type": "LORA", "task_type": null, "base_model_name_or_path": null, "inference_mode": true,
        "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": false, "use_dora": dora,
        "target_modules": by_module.paths(), "rank_pattern": ranks, "alpha_pattern": alphas,
    })
}

/// The products of a module's parts as one.
fn join_low_rank(weights: &Weights, module: &mut Module, parts: &[(&Site, &LowRank)]) {
    let (n, k) = (module.n, module.k);
    let rank: usize = parts.iter().map(|(_, one)| one.rank).sum();
    let scale = parts.first().map_or(1.0, |(_, one)| one.scale);
    let (mut a, mut b, mut at) = (Vec::with_capacity(rank * k), vec![0.0; n * rank], 0);
    for (site, one) in parts {
        a.extend_from_slice(one.a);
        for (row, own) in site.rows.rows(site.n).zip(one.b.chunks_exact(one.rank)) {
            let to = &mut b[row * rank + at..][..one.rank];
            to.iter_mut().zip(own).for_each(|(to, x)| *to = x * (one.scale / scale));
        }
        at += one.rank;
    }
    let mut lora = Lora { rank, scale, a, b, bias: None, magnitude: None, gains: None };
    if parts.iter().any(|(_, one)| one.magnitude.is_some()) {
        let lengths = dora::lengths(weights, module, &lora);
        // Rows that did not learn keep their lengths.
        let mut whole = lengths.clone();
        parts.iter().for_each(|(site, one)| put(&mut whole, site, one.magnitude.unwrap_or_default()));
        lora.gains = Some(dora::gains(&whole, &lengths));
        lora.magnitude = Some(whole);
    }
    module.lora = Some(lora);
}

fn factors(weights: &Weights, list: &[Factors]) -> Result<Whole> {
    let fits = |site: &Site, one: &Factors| {
        one.inputs.is_none_or(|v| v.len() == site.k) && one.outputs.is_none_or(|v| v.len() == site.n)
    };
    let by_module = ByModule::new(weights, list, |one| (Role::Linear, one.w), fits)?;
    let scales_inputs = |parts: &[(&Site, &Factors)]| parts.iter().any(|(_, one)| one.inputs.is_some());
    let inner: Vec<&String> =
        by_module.1.iter().filter(|(_, parts)| scales_inputs(parts)).map(|(path, _)| path).collect();
    let settings = json!({
        "peft_type": "IA3", "task_type": null, "base_model_name_or_path": null, "inference_mode": true,
        "fan_in_fan_out": false, "init_ia3_weights": true,
        "target_modules": by_module.paths(), "feedforward_modules": inner,
    });
    let join = |_: &Weights, module: &mut Module, parts: &[(&Site, &Factors)]| {
        for (site, one) in parts {
            if let Some(outputs) = one.outputs {
                put(module.outputs.get_or_insert_with(|| vec![1.0; module.n]), site, outputs);
            }
            // Parts of one module read the same.
            module.inputs = one.inputs.map(<[f32]>::to_vec).or(module.inputs.take());
        }
    };
    Ok((settings, by_module.modules(join), Vec::new()))
}

fn biases(weights: &Weights, list: &[Biases]) -> Result<Whole> {
    let fits = |site: &Site, one: &Biases| site.bias.is_some() && one.values.len() == site.n;
    let by_module = ByModule::new(weights, list, |one| (one.role, one.w), fits)?;
    // LoRA without a target is how peft says that biases alone have learned.
    let settings = json!({
        "peft_type": "LORA", "task_type": null, "base_model_name_or_path": null, "inference_mode": true,
        "r": 1, "lora_alpha": 1, "lora_dropout": 0.0, "bias": "all", "fan_in_fan_out": false,
        "target_modules": "dummy-target-modules",
    });
    let join = |weights: &Weights, module: &mut Module, parts: &[(&Site, &Biases)]| {
        let mut whole = vec![0.0; module.n];
        // Other places of the module may not have learned.
        for at in weights.sites.of_module(&module.path) {
            let site = &weights.sites.list()[at as usize];
            if let Some(Param::Vector(own)) = site.bias.map(|p| &weights.params[p.0 as usize]) {
                put(&mut whole, site, &own.values);
            }
        }
        parts.iter().for_each(|(site, one)| put(&mut whole, site, one.values));
        module.bias = Some(whole);
    };
    Ok((settings, by_module.modules(join), Vec::new()))
}

/// The settings of what comes before a text.
fn settings_before(before: &Before) -> Value {
    let [layers, heads, width] = before.sizes;
    let mut settings = json!({
        "peft_type": before.kind.name(), "task_type": before.task, "base_model_name_or_path": null,
        "inference_mode": true, "num_virtual_tokens": before.tokens, "num_transformer_submodules": 1,
        "num_layers": layers, "num_attention_heads": heads, "token_dim": width,
    });
    let more = match before.kind {
        Kind::PrefixTuning => [("prefix_projection", json!(false)), ("encoder_hidden_size", json!(width))],
        _ => [("prompt_tuning_init", json!("RANDOM")), ("prompt_tuning_init_text", Value::Null)],
    };
    more.into_iter().for_each(|(key, value)| settings[key] = value);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::engine::EngineConfig;
    use crate::format::files::{Files, Load};
    use std::path::Path;

    fn gpt2() -> (Arc<Engine>, Arch, Weights) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gpt2");
        let files = Files::at(&dir).expect("files");
        let arch = Arch::read(&files.config().expect("a config")).expect("a family");
        let tensors = files.tensors(Load::Map, &mut None).expect("tensors");
        let weights = Weights::bind(&arch, &tensors).expect("weights");
        (Engine::new(EngineConfig::default()).expect("an engine"), arch, weights)
    }

    /// Written and read again.
    fn copy(engine: &Arc<Engine>, arch: &Arch, weights: &Weights, made: &Adapter) -> Adapter {
        let out = tempfile::tempdir().expect("a directory");
        made.save(out.path()).expect("files");
        let read = Files::at(out.path()).and_then(|files| Adapter::open(engine, arch, weights, &files));
        read.expect("the same adapter")
    }

    /// Products of the three parts of one module and of a module by itself.
    #[test]
    fn products_that_learned_apart_are_one_adapter() {
        let (engine, arch, weights) = gpt2();
        let sites = weights.sites.of_module("h.1.attn.c_attn");
        let single = weights.sites.of_module("h.0.mlp.c_fc");
        assert_eq!((sites.len(), single.len()), (3, 1));
        let numbers: Vec<(P, Vec<f32>, Vec<f32>)> = sites
            .iter()
            .chain(&single)
            .map(|at| {
                let site = &weights.sites.list()[*at as usize];
                let values = |n: usize| (0..n).map(|i| i as f32 + f32::from(*at as u8)).collect();
                (site.w, values(2 * site.k), values(2 * site.n))
            })
            .collect();
        let numbers = &numbers;
        let list = |rank| -> Vec<LowRank> {
            let one = |i: usize| LowRank {
                w: numbers[i].0,
                rank,
                scale: 0.5,
                a: &numbers[i].1,
                b: &numbers[i].2,
                magnitude: None,
            };
            (0..numbers.len()).map(one).collect()
        };
        let made = Adapter::made(&engine, &weights, "learned", Made::LowRank(list(2))).expect("an adapter");
        let read = copy(&engine, &arch, &weights, &made);
        let lora = |adapter: &Adapter, i: usize| {
            let lora = adapter.modules[i].lora.as_ref().expect("a product");
            (lora.rank, lora.scale, lora.a.clone(), lora.b.clone())
        };
        assert_eq!((made.modules.len(), read.modules.len()), (2, 2));
        for i in 0..2 {
            assert_eq!(lora(&made, i), lora(&read, i));
        }
        let (rank, scale, a, b) = lora(&read, 1);
        assert_eq!((rank, scale, a.len(), b.len()), (6, 0.5, 6 * 36, 108 * 6));
        // The keys' outputs read the keys' rows of A alone.
        assert_eq!(b[36 * 6..37 * 6], [0.0, 0.0, numbers[1].2[0], numbers[1].2[1], 0.0, 0.0]);
        let wrong = Adapter::made(&engine, &weights, "x", Made::LowRank(list(3)));
        assert!(matches!(wrong, Err(Error::Argument { .. })));
    }

    /// Factors of the keys of a fused module leave queries and values alone; so do biases.
    #[test]
    fn what_one_part_of_a_module_learned_leaves_the_others_as_they_were() {
        let (engine, arch, weights) = gpt2();
        let at = weights.sites.of_module("h.0.attn.c_attn")[1];
        let site = &weights.sites.list()[at as usize];
        let halves = vec![0.5; site.n];
        let list = vec![Factors { w: site.w, inputs: None, outputs: Some(&halves) }];
        let made = Adapter::made(&engine, &weights, "factors", Made::Factors(list)).expect("an adapter");
        let outputs = copy(&engine, &arch, &weights, &made).modules[0].outputs.clone().expect("factors");
        assert_eq!(outputs, [vec![1.0; site.n], halves.clone(), vec![1.0; site.n]].concat());
        let list = vec![Biases { role: Role::Linear, w: site.w, values: &halves }];
        let made = Adapter::made(&engine, &weights, "biases", Made::Biases(list)).expect("an adapter");
        let bias = copy(&engine, &arch, &weights, &made).modules[0].bias.clone().expect("a bias");
        assert_eq!(bias[site.n..2 * site.n], halves);
        let queries = &weights.sites.list()[at as usize - 1];
        let own = weights.params[queries.bias.expect("a bias").0 as usize].vector();
        assert_eq!(&bias[..site.n], own);
    }
}
