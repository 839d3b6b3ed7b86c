//! Floor 4: the adapters that runs have: sets of them, what a batch needs, and weights that some were merged into.

use super::{Merged, PROGRAMS, Runner};
use crate::adapter::{Adapter, Grafts, Need};
use crate::error::Result;
use crate::graft::Grafted;
use crate::state::ROOT;
use crate::weights::Weights;
use std::sync::{Arc, Weak};

impl Runner {
    /// Runs with the weights that another one runs with.
    #[must_use]
    pub fn like(self, other: &Runner) -> Runner {
        Runner { merged: other.merged.clone(), ..self }
    }

    /// What several adapters do together, the same for all who ask for the same ones; `None` without any.
    ///
    /// # Errors
    /// As [`Grafts::new`].
    pub fn grafts(&mut self, weights: &Weights, list: &[(Arc<Adapter>, f32)]) -> Result<Option<Arc<Grafts>>> {
        if list.is_empty() {
            return Ok(None);
        }
        self.sets.retain(|set| set.strong_count() > 0);
        if let Some(known) = self.sets.iter().filter_map(Weak::upgrade).find(|set| set.is(list)) {
            return Ok(Some(known));
        }
        let made = Arc::new(Grafts::new(weights, list, self.next_root)?);
        // Pages have small numbers: these two never meet.
        self.next_root =
            self.next_root.checked_sub(1).filter(|root| *root > u32::MAX / 2).unwrap_or(ROOT - 1);
        self.sets.push(Arc::downgrade(&made));
        Ok(Some(made))
    }

    /// Runs with other weights from now on, or with the model's own. What was computed with those before is not shared.
    pub fn set_merged(&mut self, merged: Option<Merged>) {
        self.merged = merged.map(Arc::new);
        self.epoch += 1;
        self.programs.clear();
        self.needs.clear();
        self.pool.share_nothing();
    }

    /// Whether weights have adapters in them.
    pub fn is_merged(&self) -> bool {
        self.merged.is_some()
    }

    /// Times that weights were merged or taken back: what was computed at another time is of other weights.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Number of what the batch's adapters need together; 0 without any.
    pub(super) fn graft(&mut self) -> u32 {
        self.now.clear();
        for Grafted { by, .. } in &self.tables.grafted {
            self.now.resize(by.needs.len(), Need::default());
            self.now.iter_mut().zip(&by.needs).for_each(|(now, need)| *now = now.and(*need));
        }
        if !self.now.iter().any(|need| need.any()) {
            return 0;
        }
        if let Some(at) = self.needs.iter().position(|known| *known == self.now) {
            return at as u32 + 1;
        }
        if self.needs.len() == PROGRAMS {
            // Programs know them by number.
            self.needs.clear();
            self.programs.retain(|program| program.shape.graft == 0);
        }
        self.needs.push(self.now.clone());
        self.needs.len() as u32
    }
}
