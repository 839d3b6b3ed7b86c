//! Floor 4: the adapters that runs have: sets of them, what a batch needs, and weights that some were merged into.

use super::{Merged, Mode, PROGRAMS, Parts, Runner};
use crate::adapter::{Adapter, Grafts, Kind, Need};
use crate::arch::Side;
use crate::error::Result;
use crate::exec::{Lead, Want};
use crate::graft::Grafted;
use crate::state::{ROOT, Sequence};
use crate::weights::Weights;
use std::sync::atomic::AtomicBool;
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

    /// Fills what `grafts` puts before the first token of an empty sequence, unless that is done.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn fill_lead(
        &mut self,
        parts: Parts,
        seq: &mut Sequence,
        grafts: Option<&Arc<Grafts>>,
        cancel: &AtomicBool,
    ) -> Result<()> {
        let Some(set) = grafts else { return Ok(()) };
        let Some((adapter, n)) = set.prompt().filter(|_| seq.lead == 0) else { return Ok(()) };
        let ids: Vec<u32> = (0..n as u32).collect();
        self.begin(Mode { side: Side::Decoder, want: Want::Hidden });
        self.lead = if adapter.config().kind == Kind::PrefixTuning { Lead::Prefix } else { Lead::Prompt };
        self.pool.grow(seq, n)?;
        self.desk.tables.feed(seq, &ids, &[]);
        self.desk.tables.grafted.push(Grafted { rows: 0..n, picks: 0..0, by: set.clone() });
        self.go(parts, cancel)?;
        seq.lead = n;
        Ok(())
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
        for Grafted { by, .. } in &self.desk.tables.grafted {
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
