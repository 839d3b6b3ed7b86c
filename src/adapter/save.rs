//! Floor 3: adapters written in the form of peft. Every file is written whole or not at all.

use super::files::{BOTTLENECK, CONFIG, HEAD, HEAD_CONFIG, WEIGHTS};
use super::read::transposed;
use super::{Adapter, Kind, Module};
use crate::error::{Error, Result};
use crate::format::write::{floats, whole_file};
use crate::order::sorted;
use crate::weights::Role;
use serde_json::Value;
use std::path::Path;

impl Adapter {
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
    floats(path, &sorted(list, |a, b| a.0.cmp(&b.0)))
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
