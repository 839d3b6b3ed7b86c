//! Floor 3: what an adapter has in place of a module's own parameters: whole matrices, biases, heads. Computes nothing.

use super::Module;
use super::read::{Binder, Parts, transposed};
use crate::error::{Error, Result};
use crate::weights::{Role, Site, matrix_row};

impl Binder<'_> {
    /// The module's own parameters where the adapter has others.
    pub(super) fn whole(&self, module: &mut Module, site: &Site, parts: &mut Parts) -> Result<()> {
        let shape: &[usize] = match (module.role, module.by_input) {
            (Role::Norm, _) => &[module.n],
            (_, false) => &[module.n, module.k],
            (_, true) => &[module.k, module.n],
        };
        if let Some(name) = parts.remove(".base_layer.weight") {
            // Saved because the embeddings are adapted, in case the vocabulary had grown.
            let own = self.floats(&name, shape)?;
            if !self.is_own(site, &own) {
                module.weight = Some(own);
            }
        }
        if let Some(name) = parts.remove(".weight") {
            if module.role == Role::Table && !self.is_tokens(site) {
                let what = format!("modules_to_save with `{}`, which is no table of tokens,", module.path);
                return Err(Error::Unsupported { file: self.config.file.clone(), what });
            }
            if !self.config.is_saved(&module.path) {
                return Err(self.wrong(&name, "is not of one of the modules_to_save"));
            }
            module.weight = Some(self.floats(&name, shape)?);
        }
        if let (Some(weight), true) = (&mut module.weight, module.by_input) {
            *weight = transposed(weight, module.k, module.n);
        }
        let Some(name) = parts.remove(".bias").or(parts.remove(".base_layer.bias")) else {
            return Ok(());
        };
        if !self.config.bias && !self.config.is_saved(&module.path) {
            return Err(self.wrong(&name, "is there although the config says bias = none"));
        }
        if site.bias.is_none() {
            return Err(self.wrong(&name, format!("`{}` has no bias in the model", module.path)));
        }
        module.bias = Some(self.floats(&name, &[module.n])?);
        Ok(())
    }

    /// Modules of a head that was saved beside an adapter, but for those that are the model's own.
    pub(super) fn heads(&self) -> Result<Vec<Module>> {
        let mut modules: Vec<Module> = Vec::new();
        for name in self.tensors.names() {
            let (path, end) = name.rsplit_once('.').unwrap_or((name, ""));
            let numbers = self.weights.sites.of_module(path);
            let site = numbers.last().map(|at| &self.weights.sites.list()[*at as usize]);
            let Some(site) = site.filter(|site| site.head) else {
                let what = format!("a head of family {} has no such tensor", self.arch.family);
                return Err(self.wrong(name, what));
            };
            if modules.last().is_none_or(|module| module.path != path) {
                modules.push(Module::new(path.to_owned(), site));
            }
            let Some(module) = modules.last_mut() else { continue };
            match end {
                "weight" => {
                    let own = self.floats(name, &[module.n, module.k])?;
                    module.weight = (!self.is_own(site, &own)).then_some(own);
                }
                _ if site.bias.is_some() => module.bias = Some(self.floats(name, &[module.n])?),
                _ => return Err(self.wrong(name, "is of a linear that has no bias in the model")),
            }
        }
        modules.retain(|module| module.weight.is_some() || module.bias.is_some());
        Ok(modules)
    }

    /// Whether these are the model's own numbers, or those that its quantised ones stand for.
    fn is_own(&self, site: &Site, found: &[f32]) -> bool {
        let matrix = self.weights.params[site.w.0 as usize].matrix();
        let mut row = vec![0.0; matrix.k()];
        let mut same = || {
            found.chunks_exact(matrix.k()).enumerate().all(|(i, found)| {
                matrix_row(&matrix, i, &mut row);
                row == found
            })
        };
        matrix.dtype().block() > 1 || (!site.by_input && same())
    }
}
