//! Floor 5: what a session says of every token of a text: logits and log-probabilities. Knows no text.

use super::Session;
use crate::error::{Error, Result};
use crate::runner::Pick;
use std::time::Instant;

/// Most logits of one call, in words: a long text runs in pieces of that size.
pub(super) const LOGITS: usize = 1 << 22;

impl Session {
    /// Adds a prompt, runs it, and hands `each` the logits `[vocab]` after every token of it.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn prefill_all(&mut self, ids: &[u32], mut each: impl FnMut(&[f32])) -> Result<()> {
        self.whole(ids, &mut |session, ids| {
            let vocab = session.model.arch().vocab();
            let (start, model) = (Instant::now(), session.model.clone());
            let mut runner = model.runner()?;
            let shape = session.run(&mut runner, ids.len(), Pick::All, &[])?;
            session.timings.ran(ids.len(), start.elapsed());
            runner.answer(shape).chunks_exact(vocab).for_each(&mut each);
            Ok(())
        })
    }

    /// Adds a prompt, runs it, and returns the log-probability of each token of it given those before, natural logs;
    /// the first token of an empty session has none, so there is one number less then.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn score(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        self.settle();
        self.model.arch().check_ids(ids)?;
        self.check_room(ids.len())?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        // The last token runs again, for the number of the first: from the kernel that gives all others.
        let before = self.tokens.len();
        let last = self.tokens.last().copied();
        let all: Vec<u32> = last.into_iter().chain(ids.iter().copied()).collect();
        self.rewind(before.saturating_sub(1));
        let scores = self.score_all(&all);
        if scores.is_err() {
            self.tokens.extend(last); // it runs with the next call that needs logits
        }
        scores
    }

    /// The log-probability of each of `ids` but the first.
    fn score_all(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        let (mut out, mut next) = (Vec::new(), ids.iter().skip(1));
        self.whole(ids, &mut |session, ids| {
            let mut targets: Vec<u32> = next.by_ref().take(ids.len()).copied().collect();
            let wanted = targets.len();
            targets.resize(ids.len(), 0);
            let (start, model) = (Instant::now(), session.model.clone());
            let mut runner = model.runner()?;
            let shape = session.run(&mut runner, ids.len(), Pick::All, &targets)?;
            session.timings.ran(ids.len(), start.elapsed());
            out.extend(runner.logprobs(shape).chunks_exact(2).take(wanted).map(|pair| pair[0]));
            Ok(())
        })?;
        Ok(out)
    }

    /// Whether so many tokens fit without dropping any.
    fn check_room(&self, wanted: usize) -> Result<()> {
        let (used, limit) = (self.tokens.len(), self.config.context);
        if wanted > limit - used { Err(Error::ContextFull { used, wanted, limit }) } else { Ok(()) }
    }

    /// Feeds `ids` through `run` in pieces whose logits fit in memory; all or nothing.
    fn whole(&mut self, ids: &[u32], run: &mut dyn FnMut(&mut Session, &[u32]) -> Result<()>) -> Result<()> {
        self.refresh()?;
        self.settle();
        self.model.arch().check_ids(ids)?;
        self.check_room(ids.len())?;
        if self.seq.len < self.tokens.len() {
            self.catch_up()?;
        }
        let before = self.tokens.len();
        let rows = (LOGITS / self.model.arch().vocab()).clamp(1, self.config.chunk);
        for ids in ids.chunks(rows) {
            self.tokens.extend_from_slice(ids);
            if let Err(e) = run(self, ids) {
                self.rewind(before);
                return Err(e);
            }
        }
        // `logits` would need the last row; the next call that wants it runs the last token again.
        self.logits.clear();
        Ok(())
    }
}
