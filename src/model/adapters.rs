//! Floor 5: the adapters of a model: read, attached to whoever names none, merged into its weights and taken out again.

use super::Model;
use crate::adapter::{Adapter, Grafts, lead_of, merge};
use crate::error::{Error, Result};
use crate::format::files::Files;
use crate::runner::Merged;
use crate::state::ROOT;
use std::sync::{Arc, PoisonError};

#[cfg(feature = "tokenizer")]
use crate::format::source::Reading;
#[cfg(feature = "tokenizer")]
use std::path::Path;

impl Model {
    /// Reads an adapter of this model: a directory with `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// `Io`, `Format`, `Tensor`, `Unsupported` for files that cannot be used rightly or are of another model; `Budget`.
    pub fn adapter(&self, files: &Files) -> Result<Arc<Adapter>> {
        Adapter::open(&self.engine, &self.arch, &self.weights, files).map(Arc::new)
    }

    /// Gives whoever names no adapters these, each with its weight: sessions that are made from now on, texts, beams. An empty
    /// list takes them away. Sessions that are there keep what they have.
    ///
    /// # Errors
    /// `Argument` for adapters of another model or weights that are no numbers; `Poisoned`.
    pub fn attach(&self, list: &[(Arc<Adapter>, f32)]) -> Result<()> {
        let grafts = self.grafts(list)?;
        *self.attached.lock().map_err(|_| Error::Poisoned)? = grafts;
        Ok(())
    }

    /// Adds adapters into private copies of the matrices that they change, each with its weight, in place of what was merged
    /// before. They cost no time per token then. Waits for the run that goes on; sessions compute what they hold anew with
    /// their next call.
    ///
    /// # Errors
    /// `Unsupported` for quantised weights and for adapters that change no weights; `Argument` as [`Model::attach`]; `Tensor`
    /// for sums that are not finite; `Budget`, `Memory`, `Poisoned`. Nothing changes then.
    pub fn merge(&self, list: &[(Arc<Adapter>, f32)]) -> Result<()> {
        if list.is_empty() {
            return self.unmerge();
        }
        let grafts = Grafts::new(&self.weights, list, ROOT)?;
        let (weights, charge) = merge(&self.engine, &self.weights, &grafts)?;
        self.runner()?.set_merged(Some(Merged { weights, _charge: charge }));
        Ok(())
    }

    /// Drops what was merged: the model is exactly what its files say again.
    ///
    /// # Errors
    /// `Poisoned`.
    pub fn unmerge(&self) -> Result<()> {
        let mut runner = self.runner()?;
        if runner.is_merged() {
            runner.set_merged(None);
        }
        Ok(())
    }

    /// Writes its weights, with adapters in them, as a file of the directory `out`; true where the head is no longer the table
    /// of tokens.
    ///
    /// # Errors
    /// As [`Model::merge`]; `Unsupported` for GGUF and packed files; `Io`, `Cancelled`.
    #[cfg(feature = "tokenizer")]
    pub(crate) fn write_merged(
        &self,
        list: &[(Arc<Adapter>, f32)],
        out: &Path,
        reading: &mut Reading,
    ) -> Result<bool> {
        let grafts = Grafts::new(&self.weights, list, ROOT)?;
        let (weights, _charge) = merge(&self.engine, &self.weights, &grafts)?;
        crate::adapter::write(&self.weights, &weights, &self.tensors, out, reading)
    }

    /// What several adapters do together.
    pub(crate) fn grafts(&self, list: &[(Arc<Adapter>, f32)]) -> Result<Option<Arc<Grafts>>> {
        self.runner()?.grafts(&self.weights, list)
    }

    /// Positions that the attached adapters take before the first token.
    #[must_use]
    pub fn lead(&self) -> usize {
        lead_of(self.attached().as_ref())
    }

    /// Adapters of whoever names none.
    pub(crate) fn attached(&self) -> Option<Arc<Grafts>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
