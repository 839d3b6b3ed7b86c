//! Floor 3: reads an adapter's directory and binds its tensors to the places of a model. Every tensor must be one that the
//! config names, in the shape that the model asks for; none may be missing. Computes nothing.

use super::config::{AdapterConfig, Kind};
use super::{Adapter, Lora, Module, Place, dora, files};
use crate::arch::Arch;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::files::Files;
use crate::format::shown;
use crate::format::tensors::{TensorRef, Tensors};
use crate::order::sorted;
use crate::weights::{Role, Site, Weights};
use kernels::quant::dequantize_row;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Ends of names, longest first where one ends another.
const ENDS: &[&str] = &[
    ".lora_A.weight",
    ".lora_B.weight",
    ".lora_B.bias",
    ".lora_embedding_A",
    ".lora_embedding_B",
    ".lora_magnitude_vector.weight",
    ".lora_magnitude_vector",
    ".ia3_l",
    ".base_layer.weight",
    ".base_layer.bias",
    ".weight",
    ".bias",
];

/// The next adapter's number.
pub(super) static NEXT: AtomicU64 = AtomicU64::new(1);

impl Adapter {
    /// Reads the adapter in `files` for a model of family `arch` with these weights.
    ///
    /// # Errors
    /// `Io`; `Format` for a config or tensors that contradict their format; `Unsupported` for a kind or a key that the engine
    /// does not do; `Tensor` for one that is missing, misshapen, not finite, or of no module that is adapted; `Budget`.
    pub(crate) fn open(
        engine: &Arc<Engine>,
        arch: &Arch,
        weights: &Weights,
        files: &Files,
    ) -> Result<Adapter> {
        let (config, tensors) = (files::config(files)?, files::tensors(files)?);
        let charge = engine.charge("an adapter", tensors.elements().saturating_mul(4))?;
        let mut binder = Binder { arch, weights, config: &config, tensors: &tensors, raw: BTreeMap::new() };
        let (mut prompt, mut modules) = (Vec::new(), Vec::new());
        if let Some(neck) = config.neck {
            modules = binder.necks(neck)?;
            let head = files::head(files)?;
            let own = Binder { tensors: head.as_ref().unwrap_or(&tensors), raw: BTreeMap::new(), ..binder };
            if head.is_some() {
                modules.extend(own.heads()?);
            }
        } else {
            prompt = binder.group()?;
            for (path, parts) in std::mem::take(&mut binder.raw) {
                modules.push(binder.module(path, parts)?);
            }
            binder.missing(&modules)?;
        }
        Ok(Adapter {
            id: NEXT.fetch_add(1, Relaxed),
            name: files.name(),
            model: weights.sites.id(),
            places: places(weights, &modules),
            config,
            modules,
            prompt,
            _charge: charge,
        })
    }
}

/// The tensors of one module, by the ends of their names.
pub(super) type Parts = BTreeMap<&'static str, String>;

pub(super) struct Binder<'a> {
    pub arch: &'a Arch,
    pub weights: &'a Weights,
    pub config: &'a AdapterConfig,
    pub tensors: &'a Tensors,
    raw: BTreeMap<String, Parts>,
}

impl<'a> Binder<'a> {
    pub fn wrong(&self, tensor: &str, what: impl Into<String>) -> Error {
        let file = self.tensors.file().to_owned();
        Error::Tensor { file, tensor: shown(tensor), what: what.into() }
    }

    /// Sorts the tensors by module; returns what lies before a text.
    fn group(&mut self) -> Result<Vec<f32>> {
        let mut prompt = Vec::new();
        for name in self.tensors.names() {
            if name == "prompt_embeddings" && self.config.virtual_tokens > 0 {
                prompt = self.prompt(name)?;
                continue;
            }
            // Prompts keep the model at `base_model`, all others at `base_model.model`.
            let before = if self.config.virtual_tokens > 0 { "base_model." } else { "base_model.model." };
            let end = ENDS.iter().find(|end| name.ends_with(**end));
            let (Some(inner), Some(end)) = (name.strip_prefix(before), end) else {
                let kind = self.config.kind.name();
                return Err(self.wrong(name, format!("is not part of an adapter of type {kind}")));
            };
            let path = inner.strip_suffix(end).unwrap_or_default().to_owned();
            self.raw.entry(path).or_default().insert(end, name.to_owned());
        }
        if self.config.virtual_tokens > 0 && prompt.is_empty() {
            return Err(self.wrong("prompt_embeddings", "is missing"));
        }
        Ok(prompt)
    }

    /// All elements of a tensor, which must have this shape and be finite.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let Some(tensor) = self.tensors.get(name)? else { return Err(self.wrong(name, "is missing")) };
        self.floats_of(name, tensor, shape)
    }

    fn floats_of(&self, name: &str, tensor: &TensorRef, shape: &[usize]) -> Result<Vec<f32>> {
        let dense = tensor.dtype().block() == 1 && !tensor.is_packed();
        if tensor.shape() != shape || !dense {
            let (dtype, found) = (tensor.dtype().name(), tensor.shape());
            let what = format!("expected floats {shape:?}, found {dtype} {found:?}: is it of another model?");
            return Err(self.wrong(name, what));
        }
        let mut all = vec![0.0; tensor.elements()];
        dequantize_row(tensor.dtype(), tensor.bytes(), &mut all);
        match all.iter().position(|x| !x.is_finite()) {
            None => Ok(all),
            Some(at) => Err(self.wrong(name, format!("element {at} is {}, not a finite number", all[at]))),
        }
    }

    fn prompt(&self, name: &str) -> Result<Vec<f32>> {
        let stack = self.arch.last();
        if self.arch.encoder.is_some() {
            let kind = self.config.kind.name();
            let what = format!("peft_type {kind} for a model with an encoder");
            return Err(Error::Unsupported { file: self.config.file.clone(), what });
        }
        let width = match self.config.kind {
            Kind::PromptTuning => stack.embed.width,
            _ => stack.n_layers * 2 * stack.kv_cols(),
        };
        self.floats(name, &[self.config.virtual_tokens, width])
    }

    /// What the adapter has of one module.
    fn module(&self, path: String, mut parts: Parts) -> Result<Module> {
        let sites = &self.weights.sites;
        let numbers = sites.of_module(&path);
        let Some(site) = numbers.first().map(|at| &sites.list()[*at as usize]) else {
            let tensor = parts.values().next().map_or("", String::as_str);
            let what = format!("a model of family {} has no such module: `{path}`", self.arch.family);
            return Err(self.wrong(tensor, what));
        };
        let mut module = Module::new(path, site);
        let halves = [".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B"];
        if self.config.kind == Kind::Lora && halves.iter().any(|end| parts.contains_key(end)) {
            module.lora = Some(self.lora(&module, site, &mut parts)?);
        }
        if self.config.kind == Kind::Ia3
            && let Some(name) = parts.remove(".ia3_l")
        {
            self.ia3(&mut module, site, &name)?;
        }
        self.whole(&mut module, site, &mut parts)?;
        if let Some(name) = parts.values().next() {
            return Err(self.wrong(name, "is not understood beside the other tensors of its module"));
        }
        Ok(module)
    }

    /// Refuses a tensor of a module that the config does not name.
    fn target(&self, module: &Module, site: &Site, tensor: &str) -> Result<()> {
        if self.is_target(site)? {
            return Ok(());
        }
        let shown = self.config.targets.as_ref().map_or_else(String::new, |t| t.shown.to_string());
        let what = format!("`{}` is not among the target_modules {}", module.path, shown_long(&shown));
        Err(self.wrong(tensor, what))
    }

    fn is_target(&self, site: &Site) -> Result<bool> {
        let Some(targets) = &self.config.targets else { return Ok(false) };
        let linear = site.role == Role::Linear && self.weights.logits() != Some(site.w);
        let long = self.weights.sites.long_name(site);
        // An adapter of the bare model has short names.
        Ok(site.role != Role::Norm
            && (self.config.is_target(targets, &long, linear)?
                || self.config.is_target(targets, &site.module, linear)?))
    }

    fn lora(&self, module: &Module, site: &Site, parts: &mut Parts) -> Result<Lora> {
        let table = module.role == Role::Table;
        let ends = if table {
            [".lora_embedding_A", ".lora_embedding_B"]
        } else {
            [".lora_A.weight", ".lora_B.weight"]
        };
        let [a, b] = ends.map(|end| parts.remove(end));
        let a = a.ok_or_else(|| self.wrong(&format!("{}{}", module.path, ends[0]), "is missing"))?;
        let b = b.ok_or_else(|| self.wrong(&a, format!("stands without `{}`", ends[1])))?;
        self.target(module, site, &a)?;
        let unsupported = |what: String| Error::Unsupported { file: self.config.file.clone(), what };
        if table && !self.is_tokens(site) {
            return Err(unsupported(format!("LoRA of `{}`, which is no table of tokens,", module.path)));
        }
        if module.role == Role::Norm {
            return Err(unsupported(format!("LoRA of the norm `{}`", module.path)));
        }
        let (rank, scale) = self.config.rank_and_scale(&module.path)?;
        let (n, k) = if table { (module.k, module.n) } else { (module.n, module.k) };
        let mut lora = Lora {
            rank,
            scale,
            a: self.floats(&a, &[rank, k])?,
            b: self.floats(&b, &[n, rank])?,
            bias: None,
            magnitude: None,
            gains: None,
        };
        let bias = parts.remove(".lora_B.bias");
        if bias.is_some() != self.config.lora_bias {
            let name = bias.unwrap_or_else(|| format!("{}.lora_B.bias", module.path));
            return Err(self.wrong(&name, format!("and lora_bias = {} disagree", self.config.lora_bias)));
        }
        lora.bias = bias.map(|name| self.floats(&name, &[n])).transpose()?;
        let magnitude = parts.remove(".lora_magnitude_vector");
        let magnitude = magnitude.or(parts.remove(".lora_magnitude_vector.weight"));
        if magnitude.is_some() != self.config.dora {
            let name = magnitude.unwrap_or_else(|| format!("{}.lora_magnitude_vector", module.path));
            return Err(self.wrong(&name, format!("and use_dora = {} disagree", self.config.dora)));
        }
        if let Some(name) = magnitude {
            if table {
                return Err(unsupported(format!("use_dora of the table `{}`", module.path)));
            }
            let magnitude = self.floats(&name, &[n])?;
            lora.gains = Some(dora::gains(&magnitude, &dora::lengths(self.weights, module, &lora)));
            lora.magnitude = Some(magnitude);
        }
        Ok(lora)
    }

    /// Whether a place is a table of tokens.
    pub fn is_tokens(&self, site: &Site) -> bool {
        let stacks = [&self.weights.encoder, &self.weights.decoder].into_iter().flatten();
        stacks.into_iter().any(|stack| stack.tokens == site.w)
    }

    fn ia3(&self, module: &mut Module, site: &Site, name: &str) -> Result<()> {
        self.target(module, site, name)?;
        let inner = match &self.config.feedforward {
            Some(targets) => {
                let long = self.weights.sites.long_name(site);
                self.config.is_target(targets, &long, true)?
                    || self.config.is_target(targets, &site.module, true)?
            }
            None => false,
        };
        if module.role != Role::Linear {
            let what = format!("IA3 of `{}`, which is no linear", module.path);
            return Err(Error::Unsupported { file: self.config.file.clone(), what });
        }
        if inner {
            module.inputs = Some(self.floats(name, &[1, module.k])?);
        } else {
            module.outputs = Some(self.floats(name, &[module.n, 1])?);
        }
        Ok(())
    }

    /// Every module that the config names must be there.
    fn missing(&self, modules: &[Module]) -> Result<()> {
        let found = |path: &str| modules.iter().find(|m| self.same(&m.path, path));
        for site in self.weights.sites.list() {
            let long = self.weights.sites.long_name(site);
            if !self.is_target(site)? {
                continue;
            }
            let adapted = |m: &Module| m.lora.is_some() || m.outputs.is_some() || m.inputs.is_some();
            if !found(&long).is_some_and(adapted) {
                return Err(
                    self.wrong(&long, "is among the target_modules, and the adapter has no tensors of it")
                );
            }
        }
        for name in &self.config.modules_to_save {
            // peft lists the usual names of heads, whichever the model has.
            let saved = |m: &Module| m.path.ends_with(name.as_str()) && m.weight.is_some();
            let known = |site: &Site| self.weights.sites.long_name(site).ends_with(name.as_str());
            if self.weights.sites.list().iter().any(known) && !modules.iter().any(saved) {
                return Err(
                    self.wrong(name, "is among the modules_to_save, and the adapter has no tensors of it")
                );
            }
        }
        Ok(())
    }

    /// Whether two paths mean one module.
    fn same(&self, a: &str, b: &str) -> bool {
        let short = |path: &str| path.strip_prefix(self.arch.prefix).unwrap_or(path).to_owned();
        short(a) == short(b)
    }
}

/// Where modules lie among the places of a model, in the order of those.
pub(super) fn places(weights: &Weights, modules: &[Module]) -> Vec<Place> {
    let sites = &weights.sites;
    let all = modules.iter().enumerate().flat_map(|(module, m)| {
        let place = move |site: u32| {
            let own = &sites.list()[site as usize];
            Place { site, module, rows: own.rows, n: own.n }
        };
        sites.of_module(&m.path).into_iter().map(place)
    });
    sorted(all.collect(), |a, b| a.site.cmp(&b.site))
}

/// A matrix `[rows, cols]` with a row per column.
pub(super) fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|at| values[at % rows * cols + at / rows]).collect()
}

fn shown_long(text: &str) -> String {
    text.chars().take(256).collect()
}
