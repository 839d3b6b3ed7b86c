//! Floor 5: how the tokens of a session run that have not run yet. Knows no sampling.

use super::Session;
use crate::error::{Error, Result};
use crate::exec::Shape;
use crate::runner::{Feed, Pick, Runner};
use kernels::attention::PAGE;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

impl Session {
    /// Tokens that must run before the next one can be chosen.
    ///
    /// # Errors
    /// `Argument` where nothing was fed yet.
    pub(super) fn pending(&mut self) -> Result<usize> {
        if self.tokens.is_empty() {
            return Err(Error::Argument { name: "session", what: "no token was fed yet".to_owned() });
        }
        if self.source.is_none() && self.model.arch().reads_source() {
            return Err(Error::Argument { name: "source", what: "no source text was given yet".to_owned() });
        }
        if self.seq.len == self.tokens.len() && self.logits.is_empty() {
            // After a rewind: the last token runs again, for its logits.
            self.forget_from(self.seq.len - 1);
        }
        Ok(self.tokens.len() - self.seq.len)
    }

    /// Takes over what sessions of the model already hold of the tokens that have not run, but for the last one: its
    /// logits are wanted. The bits are those that would be computed, and as each session's whole context is set aside,
    /// the memory that is charged stays the same.
    pub(super) fn adopt(&mut self) -> Result<()> {
        if self.source.is_some() {
            return Ok(()); // what a decoder keeps hangs on its source as well
        }
        let (last, from) = (self.tokens.len().saturating_sub(1), self.seq.len);
        if last / PAGE > from / PAGE {
            self.model.runner()?.pool.adopt(&mut self.seq, &self.tokens[..last]);
            self.timings.shared_tokens += self.seq.len.saturating_sub(from) as u64;
        }
        Ok(())
    }

    /// Runs the tokens that have not run yet.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        self.refresh()?;
        self.settle();
        if self.pending()? > 1 {
            self.adopt()?;
        }
        while self.seq.len < self.tokens.len() {
            let left = &self.tokens[self.seq.len..];
            let n = left.len().min(self.config.chunk);
            let pick = if n == left.len() { Pick::Last } else { Pick::None };
            self.logits.clear();
            let (start, model) = (Instant::now(), self.model.clone());
            let mut runner = model.runner()?;
            if runner.epoch() != self.epoch {
                drop(runner);
                return self.catch_up();
            }
            let shape = self.run(&mut runner, n, pick, &[])?;
            self.logits.extend_from_slice(runner.answer(shape));
            self.timings.ran(n, start.elapsed());
        }
        Ok(())
    }

    /// Runs the next `n` tokens.
    pub(super) fn run(
        &mut self,
        runner: &mut Runner,
        n: usize,
        pick: Pick,
        targets: &[u32],
    ) -> Result<Shape> {
        let from = self.seq.len;
        if runner.epoch() != self.epoch {
            return Err(self.changed());
        }
        let filled = runner.fill_lead(self.model.parts(), &mut self.seq, self.grafts.as_ref(), &self.cancel);
        self.cancelled(filled)?;
        let source = self.source.as_ref().map(|source| &source.seq);
        let grafts = self.grafts.as_ref();
        let feed =
            Feed { source, pick, targets, grafts, ..Feed::new(&mut self.seq, &self.tokens[from..from + n]) };
        let ran = runner.run(self.model.parts(), feed, &self.cancel);
        let shape = self.cancelled(ran)?;
        self.publish(runner, from);
        Ok(shape)
    }

    /// A cancel ends one call.
    pub(super) fn cancelled<T>(&self, ran: Result<T>) -> Result<T> {
        if matches!(ran, Err(Error::Cancelled)) {
            self.cancel.store(false, Relaxed);
        }
        ran
    }

    /// Makes the pages that became full since the sequence had `from` positions known to other sessions.
    pub(super) fn publish(&mut self, runner: &mut Runner, from: usize) {
        if self.source.is_none() {
            runner.pool.publish(&mut self.seq, from, &self.tokens);
        }
    }
}
