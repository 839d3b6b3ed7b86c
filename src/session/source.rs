//! Floor 5: the text that an encoder-decoder's answer is about. Knows no text, ids only.

use super::Session;
use crate::adapter::Grafts;
use crate::arch::check_ids;
use crate::engine::Charge;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::state::Sequence;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Keys and values of an encoder's output, for every block of the decoder.
pub(crate) struct Source {
    pub(crate) seq: Sequence,
    /// Its tokens: they run again where weights or adapters change.
    ids: Vec<u32>,
    _charge: Charge,
}

impl Source {
    /// Runs the encoder over `ids`. Who drops a source closes its sequence first.
    ///
    /// # Errors
    /// `Argument` for a model without an encoder, no ids, or ids beyond its vocabulary; `ContextFull` for more than the
    /// model can hold; `Budget`, `Memory`, `Cancelled`.
    pub(crate) fn read(
        model: &Model,
        ids: &[u32],
        grafts: Option<&Arc<Grafts>>,
        cancel: &AtomicBool,
    ) -> Result<Source> {
        let arch = model.arch();
        let refused = |what: &str| Err(Error::Argument { name: "source", what: what.to_owned() });
        let (Some(encoder), true) = (&arch.encoder, arch.decoder.is_some()) else {
            return refused(&format!("a model of family {} reads no source text", arch.family));
        };
        if ids.is_empty() {
            return refused("expected tokens, found none");
        }
        check_ids(encoder.embed.vocab, ids)?;
        arch.check_len(ids.len())?;
        let charge = model.engine().charge("a source text", model.kv_bytes(ids.len()))?;
        let mut runner = model.runner()?;
        let mut source = Source { seq: runner.pool.open(ids.len())?, ids: ids.to_vec(), _charge: charge };
        let seqs = std::slice::from_mut(&mut source.seq);
        if let Err(e) = runner.read(model.parts(), seqs, std::iter::once(ids), grafts, cancel) {
            runner.pool.close(&mut source.seq);
            return Err(e);
        }
        Ok(source)
    }

    /// A second one with the same pages.
    pub(super) fn fork(&self, model: &Model) -> Result<Source> {
        let charge = model.engine().charge("a source text", model.kv_bytes(self.seq.len))?;
        Ok(Source { seq: model.runner()?.pool.fork(&self.seq)?, ids: self.ids.clone(), _charge: charge })
    }
}

impl Session {
    /// Makes `ids` what the answer is about: runs the encoder over them and forgets all tokens of the session. The next
    /// token that is fed is the decoder's first.
    ///
    /// # Errors
    /// `Argument` for a model without an encoder, no ids, or ids beyond its vocabulary; `ContextFull` for more than the
    /// model can hold; `Budget`, `Memory`, `Cancelled`. The session is then as it was before.
    pub fn set_source(&mut self, ids: &[u32]) -> Result<()> {
        self.refresh()?;
        let new = self.read(ids, self.grafts.as_ref())?;
        self.rewind(0);
        self.replace_source(Some(new));
        Ok(())
    }

    fn read(&self, ids: &[u32], grafts: Option<&Arc<Grafts>>) -> Result<Source> {
        let read = Source::read(&self.model, ids, grafts, &self.cancel);
        if matches!(read, Err(Error::Cancelled)) {
            self.cancel.store(false, Relaxed);
        }
        read
    }

    /// The source anew, with these adapters; `None` without one.
    pub(super) fn read_again(&self, grafts: Option<&Arc<Grafts>>) -> Result<Option<Source>> {
        self.source.as_ref().map(|source| self.read(&source.ids, grafts)).transpose()
    }

    /// Puts a source in the place of the one before; none changes nothing.
    pub(super) fn replace_source(&mut self, new: Option<Source>) {
        let Some(new) = new else { return };
        if let Some(mut old) = self.source.replace(new) {
            self.model.runner_anyhow().pool.close(&mut old.seq);
        }
    }
}
