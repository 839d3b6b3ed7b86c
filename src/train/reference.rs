//! Floor 5: the model as it is served, asked what it thinks of texts: the policy that learning must not go far from. It costs
//! the buffers of a run and no weights. Knows no losses.

use super::seats::Seats;
use super::what::Sample;
use crate::error::Result;
use crate::model::Model;
use crate::runner::{Parts, Runner};
use kernels::attention::Cache;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The served model, on its own.
pub struct Reference {
    model: Arc<Model>,
    runner: Runner,
    seats: Seats,
}

impl Reference {
    /// `model` as it is.
    #[must_use]
    pub fn new(model: &Arc<Model>) -> Reference {
        Reference {
            model: model.clone(),
            runner: Runner::new(model.arch(), Cache::F32),
            seats: Seats::default(),
        }
    }

    /// The log-probability of each target of each sample, one after the other.
    ///
    /// # Errors
    /// As [`Learner::forward`](super::Learner::forward).
    pub fn logprobs(&mut self, batch: &[Sample], cancel: &AtomicBool) -> Result<Vec<f32>> {
        let model = self.model.clone();
        self.logprobs_at(model.parts(), batch, cancel)
    }

    /// The same at a learner's temperature: see [`Learner::served`](super::Learner).
    pub(super) fn logprobs_at(
        &mut self,
        parts: Parts,
        batch: &[Sample],
        cancel: &AtomicBool,
    ) -> Result<Vec<f32>> {
        let shape = self.seats.run(&self.model, parts, &mut self.runner, batch, cancel)?;
        Ok(self.runner.logprobs(shape).chunks_exact(2).map(|pair| pair[0]).collect())
    }
}
