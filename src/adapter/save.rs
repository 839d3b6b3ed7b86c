//! Floor 3: adapters made here, and adapters written in the form of peft. Every file is written whole or not at all.

use super::files::{BOTTLENECK, CONFIG, HEAD, HEAD_CONFIG, WEIGHTS};
use super::read::{NEXT, places, transposed};
use super::{Adapter, AdapterConfig, Kind, Lora, Module};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::config::Config;
use crate::format::write::{Planned, safetensors, whole_file};
use crate::order::sorted;
use crate::weights::{P, Role, Weights};
use kernels::DType;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
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
}

impl Adapter {
    /// An adapter of narrow products, one for each linear of `list`. Where several linears are one module of the library that
    /// trains adapters, they share an A there: theirs lie one below the other in it, and B has zeros where they do not meet.
    ///
    /// # Errors
    /// `Argument` for a matrix that is no linear's, or sizes that are not its; `Budget`.
    pub fn low_rank(
        engine: &Arc<Engine>,
        weights: &Weights,
        name: &str,
        list: &[LowRank],
    ) -> Result<Adapter> {
        let mut by_module: BTreeMap<String, Vec<(u32, &LowRank)>> = BTreeMap::new();
        for one in list {
            let site = weights.sites.find(Role::Linear, one.w);
            let site = site.map(|at| (at, &weights.sites.list()[at as usize]));
            let fits = site.filter(|(_, s)| {
                one.rank > 0 && one.a.len() == one.rank * s.k && one.b.len() == s.n * one.rank
            });
            let Some((at, site)) = fits else {
                let what = "expected products of the sizes of linears".to_owned();
                return Err(Error::Argument { name: "adapter", what });
            };
            by_module.entry(weights.sites.long_name(site)).or_default().push((at, one));
        }
        let words: u64 = list.iter().map(|one| (one.a.len() + one.b.len()) as u64).sum();
        let charge = engine.charge("an adapter", words.saturating_mul(4))?;
        let config = AdapterConfig::read(&Config::new("adapter", settings(&by_module))?)?;
        let modules: Vec<Module> =
            by_module.into_iter().map(|(path, parts)| joined(weights, path, &parts)).collect();
        Ok(Adapter {
            id: NEXT.fetch_add(1, Relaxed),
            name: name.to_owned(),
            model: weights.sites.id(),
            places: places(weights, &modules),
            config,
            modules,
            prompt: Vec::new(),
            _charge: charge,
        })
    }

    /// Writes it to the directory `out`, which is made where it is not there: `adapter_config.json` and
    /// `adapter_model.safetensors` (of a bottleneck adapter `adapter.safetensors`, and its head), with all numbers in f32. The
    /// library that such adapters come from reads it as its own.
    ///
    /// # Errors
    /// `Io` (a full disk is one).
    pub fn save(&self, out: &Path) -> Result<()> {
        let bottleneck = self.config.kind == Kind::Bottleneck;
        let before = match (bottleneck, self.config.virtual_tokens > 0) {
            (true, _) => "",
            (_, true) => "base_model.",
            (_, false) => "base_model.model.",
        };
        let (mut list, mut head) = (Vec::new(), Vec::new());
        for module in &self.modules {
            let to = if bottleneck && module.neck.is_none() { &mut head } else { &mut list };
            module.tensors(before, to);
        }
        if !self.prompt.is_empty() {
            let rows = self.config.virtual_tokens;
            let shape = vec![rows, self.prompt.len() / rows];
            list.push(("prompt_embeddings".to_owned(), shape, self.prompt.clone()));
        }
        std::fs::create_dir_all(out).map_err(Error::io(out))?;
        write(&out.join(if bottleneck { BOTTLENECK } else { WEIGHTS }), list)?;
        if !head.is_empty() {
            write(&out.join(HEAD), head)?;
        }
        if let Some(text) = &self.config.head {
            let path = out.join(HEAD_CONFIG);
            whole_file(&path, |file| file.write_all(text).map_err(Error::io(&path)))?;
        }
        let (path, settings) = (out.join(CONFIG), Value::Object(self.config.object.clone()));
        whole_file(&path, |file| writeln!(file, "{settings:#}").map_err(Error::io(&path)))
    }
}

/// A tensor's name, shape and numbers.
type Tensor = (String, Vec<usize>, Vec<f32>);

fn write(path: &Path, list: Vec<Tensor>) -> Result<()> {
    let list = sorted(list, |a, b| a.0.cmp(&b.0));
    let planned = |(name, shape, _): &Tensor| Planned {
        name: name.clone(),
        dtype: DType::F32,
        shape: shape.clone(),
        packed: None,
    };
    let planned: Vec<Planned> = list.iter().map(planned).collect();
    safetensors(path, &planned, |i, file| {
        let bytes: Vec<u8> = list[i].2.iter().flat_map(|x| x.to_le_bytes()).collect();
        file.write_all(&bytes).map_err(Error::io(path))
    })
}

/// The settings of such an adapter.
fn settings(by_module: &BTreeMap<String, Vec<(u32, &LowRank)>>) -> Value {
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    let mut first = None;
    for (path, parts) in by_module {
        let rank: usize = parts.iter().map(|(_, one)| one.rank).sum();
        // The scales of parts that differ are in B.
        let alpha = parts.first().map_or(0.0, |(_, one)| f64::from(one.scale)) * rank as f64;
        let (r, a) = *first.get_or_insert((rank, alpha));
        let pattern = format!("^{}$", path.replace('.', r"\."));
        if rank != r {
            ranks.insert(pattern.clone(), rank.into());
        }
        if alpha != a {
            alphas.insert(pattern, alpha.into());
        }
    }
    let (rank, alpha) = first.unwrap_or((1, 1.0));
    let names: Vec<&String> = by_module.keys().collect();
    json!({
        "peft_type": "LORA", "task_type": null, "base_model_name_or_path": null, "inference_mode": true,
        "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": false,
        "target_modules": names, "rank_pattern": ranks, "alpha_pattern": alphas,
    })
}

/// One module of the products of its parts.
fn joined(weights: &Weights, path: String, parts: &[(u32, &LowRank)]) -> Module {
    let site = |at: u32| &weights.sites.list()[at as usize];
    let Some((first, _)) = parts.first() else { unreachable!("a module has parts") };
    let module = Module::new(path, site(*first));
    let (n, k) = (module.n, module.k);
    let rank: usize = parts.iter().map(|(_, one)| one.rank).sum();
    let scale = parts.first().map_or(1.0, |(_, one)| one.scale);
    let (mut a, mut b, mut at) = (Vec::with_capacity(rank * k), vec![0.0; n * rank], 0);
    for (number, one) in parts {
        a.extend_from_slice(one.a);
        let site = site(*number);
        for (row, own) in site.rows.rows(site.n).zip(one.b.chunks_exact(one.rank)) {
            let to = &mut b[row * rank + at..][..one.rank];
            to.iter_mut().zip(own).for_each(|(to, x)| *to = x * (one.scale / scale));
        }
        at += one.rank;
    }
    let lora = Lora { rank, scale, a, b, bias: None, magnitude: None, gains: None };
    Module { lora: Some(lora), ..module }
}

impl Module {
    /// Adds its tensors, by the names that begin with `before`.
    fn tensors(&self, before: &str, list: &mut Vec<Tensor>) {
        let mut add = |end: &str, shape: &[usize], values: &[f32]| {
            list.push((format!("{before}{}{end}", self.path), shape.to_vec(), values.to_vec()));
        };
        let own = if self.lora.is_some() { ".base_layer" } else { "" };
        if let Some(lora) = &self.lora {
            let (r, table) = (lora.rank, self.role == Role::Table);
            let (a, b) = if table {
                (".lora_embedding_A", ".lora_embedding_B")
            } else {
                (".lora_A.weight", ".lora_B.weight")
            };
            add(a, &[r, lora.a.len() / r], &lora.a);
            add(b, &[lora.b.len() / r, r], &lora.b);
            if let Some(bias) = &lora.bias {
                add(".lora_B.bias", &[bias.len()], bias);
            }
            if let Some(magnitude) = &lora.magnitude {
                add(".lora_magnitude_vector", &[magnitude.len()], magnitude);
            }
        }
        if let Some(outputs) = &self.outputs {
            add(".ia3_l", &[self.n, 1], outputs);
        }
        if let Some(inputs) = &self.inputs {
            add(".ia3_l", &[1, self.k], inputs);
        }
        if let Some(weight) = &self.weight {
            match (self.role, self.by_input) {
                (Role::Norm, _) => add(".weight", &[self.n], weight),
                (_, true) => {
                    add(&format!("{own}.weight"), &[self.k, self.n], &transposed(weight, self.n, self.k))
                }
                (_, false) => add(&format!("{own}.weight"), &[self.n, self.k], weight),
            }
        }
        if let Some(bias) = &self.bias {
            add(&format!("{own}.bias"), &[self.n], bias);
        }
        if let Some(neck) = &self.neck {
            let (w, d) = (neck.width, neck.up_bias.len());
            let mut add = |end: &str, shape: &[usize], values: &[f32]| {
                list.push((format!("{}{end}", neck.origin), shape.to_vec(), values.to_vec()));
            };
            add(".adapter_down.0.weight", &[w, d], &neck.down);
            add(".adapter_down.0.bias", &[w], &neck.down_bias);
            add(".adapter_up.weight", &[d, w], &neck.up);
            add(".adapter_up.bias", &[d], &neck.up_bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::engine::EngineConfig;
    use crate::format::files::{Files, Load};

    /// Products of the three parts of one module and of a module by itself.
    #[test]
    fn products_that_learned_apart_are_one_adapter() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gpt2");
        let files = Files::at(&dir).expect("files");
        let arch = Arch::read(&files.config().expect("a config")).expect("a family");
        let tensors = files.tensors(Load::Map, &mut None).expect("tensors");
        let weights = Weights::bind(&arch, &tensors).expect("weights");
        let engine = Engine::new(EngineConfig::default()).expect("an engine");
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
        let low = |(w, a, b): &'static (P, Vec<f32>, Vec<f32>)| LowRank { w: *w, rank: 2, scale: 0.5, a, b };
        let list: Vec<LowRank> = Vec::leak(numbers).iter().map(low).collect();
        let made = Adapter::low_rank(&engine, &weights, "learned", &list).expect("an adapter");
        let out = tempfile::tempdir().expect("a directory");
        made.save(out.path()).expect("files");
        let read = Files::at(out.path()).and_then(|files| Adapter::open(&engine, &arch, &weights, &files));
        let read = read.expect("the same adapter");
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
        assert_eq!(b[36 * 6..37 * 6], [0.0, 0.0, list[1].b[0], list[1].b[1], 0.0, 0.0]);
        let wrong = LowRank { w: list[0].w, rank: 3, scale: 1.0, a: list[0].a, b: list[0].b };
        assert!(matches!(Adapter::low_rank(&engine, &weights, "x", &[wrong]), Err(Error::Argument { .. })));
    }
}
