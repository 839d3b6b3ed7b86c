//! Floor 5: the adapters of a session, and what becomes of it where they or the model's weights change. Knows no tensors.

use super::Session;
use crate::adapter::{Adapter, lead_of};
use crate::error::{Error, Result};
use crate::state::ROOT;
use std::sync::Arc;

impl Session {
    /// Uses these adapters from now on, each with its weight, in place of those before; an empty list: none. What was
    /// computed with others is dropped: the tokens stay and run anew with the next call that needs logits, so that the
    /// session is what it would be had it had these adapters all along. Vectors that an adapter puts before the tokens take room
    /// of the context. Other sessions of the model keep theirs.
    ///
    /// # Errors
    /// `Argument` for adapters of another model or weights that are no numbers; `ContextFull`; as [`Session::set_source`]; `Poisoned`. The
    /// session is then as it was before.
    pub fn set_adapters(&mut self, list: &[(Arc<Adapter>, f32)]) -> Result<()> {
        let grafts = self.model.grafts(list)?;
        let same = match (&grafts, &self.grafts) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            (new, old) => new.is_none() && old.is_none(),
        };
        if same {
            return Ok(());
        }
        // What comes before the tokens takes positions of the context.
        let lead = lead_of(grafts.as_ref());
        let room = self.seq.limit.saturating_sub(lead);
        if self.tokens.len() > room || room == 0 {
            return Err(Error::ContextFull { used: self.tokens.len(), wanted: lead, limit: self.seq.limit });
        }
        let source = self.read_again(grafts.as_ref())?;
        self.settle();
        self.drop_computed();
        self.replace_source(source);
        self.config.context = room;
        self.seq.root = grafts.as_ref().map_or(ROOT, |grafts| grafts.root);
        self.grafts = grafts;
        Ok(())
    }

    /// Forgets everything but the tokens.
    fn drop_computed(&mut self) {
        self.model.runner_anyhow().pool.clear(&mut self.seq);
        self.logits.clear();
    }

    /// The weights changed in the middle of a call.
    pub(super) fn changed(&self) -> Error {
        let file = self.model.tensors().file();
        let what = format!("adapters were merged into {file}, or taken out, during the call: call again");
        Error::Argument { name: "model", what }
    }

    /// Drops what was computed before the model's weights changed.
    pub(super) fn refresh(&mut self) -> Result<()> {
        let epoch = self.model.runner()?.epoch();
        if epoch != self.epoch {
            let source = self.read_again(self.grafts.clone().as_ref())?;
            self.ahead.clear();
            self.drop_computed();
            self.replace_source(source);
            self.epoch = epoch;
        }
        Ok(())
    }
}
