//! Floor 5: a conversation: the tokens it holds, where it stands in the cache, and the calls that move it. Knows no
//! tensors and no text; text is in `generate`.

mod config;

pub use config::{Cancel, Overflow, SessionConfig, Timings};

use crate::engine::Charge;
use crate::error::{Error, Result};
use crate::exec::Shape;
use crate::model::{CHUNK, Model};
use crate::runner::{Feed, Pick};
use crate::sample::{Sampler, SamplerConfig};
use crate::state::{Pool, Sequence};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// Most logits of one call, in words: scoring a long text runs in pieces of that size.
const LOGITS: usize = 1 << 22;

/// One conversation with a model.
pub struct Session {
    model: Arc<Model>,
    seq: Sequence,
    /// All tokens; those at and after `seq.len` have not run yet.
    tokens: Vec<u32>,
    /// Logits after the last token that ran.
    logits: Vec<f32>,
    scratch: Vec<f32>,
    sampler: Sampler,
    config: SessionConfig,
    cancel: Arc<AtomicBool>,
    timings: Timings,
    _charge: Charge,
}

impl Session {
    /// An empty conversation. Its whole context is set aside (and charged to the budget) now, so that no later call
    /// can run out of memory for it; untouched parts take none.
    ///
    /// # Errors
    /// `Argument` for sizes or sampling settings that cannot be; `Budget`; `Memory`.
    pub fn new(model: &Arc<Model>, config: SessionConfig) -> Result<Session> {
        Session::begin(model, config, Pool::open)
    }

    /// A session without tokens on the pages that `open` sets aside for so many positions.
    fn begin(
        model: &Arc<Model>,
        mut config: SessionConfig,
        open: impl FnOnce(&mut Pool, usize) -> Result<Sequence>,
    ) -> Result<Session> {
        let (most, vocab) = (model.arch().max_positions, model.arch().vocab);
        if config.context > most {
            let what = format!("expected at most {most} tokens, found {}", config.context);
            return Err(Error::Argument { name: "context", what });
        }
        config.context = if config.context == 0 { most.min(4096) } else { config.context };
        config.chunk = if config.chunk == 0 { CHUNK } else { config.chunk }.min(config.context);
        if let Overflow::DropOldest { keep } = config.overflow
            && keep + 2 > config.context
        {
            let what =
                format!("expected at most {} kept tokens, found {keep}", config.context.saturating_sub(2));
            return Err(Error::Argument { name: "keep", what });
        }
        let charge = model.engine().charge("a session's context", model.kv_bytes(config.context))?;
        let sampler = Sampler::new(config.sampler.clone(), vocab)?;
        let seq = open(&mut model.runner()?.pool, config.context)?;
        let mut session = Session {
            model: model.clone(),
            seq,
            tokens: Vec::new(),
            logits: Vec::new(),
            scratch: Vec::new(),
            sampler,
            config,
            cancel: Arc::default(),
            timings: Timings::default(),
            _charge: charge,
        };
        let refused = |_| Error::Memory { what: "a session's tokens", bytes: session_words(most, vocab) * 4 };
        session.tokens.try_reserve_exact(session.config.context).map_err(refused)?;
        session.scratch.try_reserve_exact(vocab).map_err(refused)?;
        session.logits.try_reserve_exact(vocab).map_err(refused)?;
        Ok(session)
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// All tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens it can hold.
    pub fn context(&self) -> usize {
        self.config.context
    }

    /// Time spent.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// Something that cancels this session from any thread.
    pub fn cancel(&self) -> Cancel {
        Cancel(self.cancel.clone())
    }

    /// Uses other sampling settings from now on.
    ///
    /// # Errors
    /// `Argument` for settings that cannot be.
    pub fn set_sampler(&mut self, config: SamplerConfig) -> Result<()> {
        self.sampler = Sampler::new(config.clone(), self.model.arch().vocab)?;
        self.config.sampler = config;
        Ok(())
    }

    /// Adds a prompt and runs it, in chunks.
    ///
    /// # Errors
    /// `Argument` for ids beyond the vocabulary, `ContextFull`, `Cancelled`, `Memory`, `Budget`; the session is then
    /// without `ids` (what [`Overflow::DropOldest`] dropped for them stays dropped).
    pub fn prefill(&mut self, ids: &[u32]) -> Result<()> {
        self.model.arch().check_ids(ids)?;
        let before = self.tokens.len();
        self.push(ids)?;
        let ran = self.catch_up();
        if ran.is_err() {
            self.rewind(self.tokens.len().saturating_sub(ids.len()).min(before));
        }
        ran
    }

    /// Adds a token that the host chose itself. It runs with the next call that needs logits.
    ///
    /// # Errors
    /// `Argument` for an id beyond the vocabulary, `ContextFull`.
    pub fn accept(&mut self, id: u32) -> Result<()> {
        self.model.arch().check_ids(&[id])?;
        self.push(&[id])
    }

    /// Chooses the next token, adds it and returns it.
    ///
    /// # Errors
    /// `Argument` where nothing was fed yet or all logits are NaN or masked; otherwise as [`Session::prefill`].
    pub fn step(&mut self) -> Result<u32> {
        self.catch_up()?;
        let start = Instant::now();
        self.scratch.clear();
        self.scratch.extend_from_slice(&self.logits);
        let id = self.sampler.sample(&mut self.scratch, &self.tokens, self.tokens.len() as u64)?;
        self.timings.sample += start.elapsed();
        self.timings.sampled_tokens += 1;
        self.push(&[id])?;
        Ok(id)
    }

    /// Logits `[vocab]` after the last token.
    ///
    /// # Errors
    /// As [`Session::step`].
    pub fn logits(&mut self) -> Result<&[f32]> {
        self.catch_up()?;
        Ok(&self.logits)
    }

    /// The `n` most likely next tokens with their log-probabilities, most likely first.
    ///
    /// # Errors
    /// As [`Session::step`].
    pub fn top_logprobs(&mut self, n: usize) -> Result<Vec<(u32, f32)>> {
        self.catch_up()?;
        Ok(crate::sample::top_logprobs(&self.logits, n))
    }

    /// Adds a prompt, runs it, and hands `each` the logits `[vocab]` after every token of it.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn prefill_all(&mut self, ids: &[u32], mut each: impl FnMut(&[f32])) -> Result<()> {
        self.whole(ids, &mut |session, ids| {
            let vocab = session.model.arch().vocab;
            let (runner, shape) = session.run(ids, Pick::All, &[])?;
            runner.logits(shape).chunks_exact(vocab).for_each(&mut each);
            Ok(())
        })
    }

    /// Adds a prompt, runs it, and returns the log-probability of each token of it given those before, natural logs;
    /// the first token of an empty session has none, so there is one number less then.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn score(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
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
            let (runner, shape) = session.run(ids, Pick::All, &targets)?;
            out.extend(runner.logprobs(shape).chunks_exact(2).take(wanted).map(|pair| pair[0]));
            Ok(())
        })?;
        Ok(out)
    }

    /// Forgets the tokens from `len` on.
    pub fn rewind(&mut self, len: usize) {
        self.tokens.truncate(len);
        let held = self.tokens.len();
        self.forget_from(held);
    }

    /// Makes `ids` the conversation: what the cache already holds of its beginning stays, the rest is forgotten and
    /// the remainder is added, to run with the next call that needs logits. Returns how many tokens stayed.
    ///
    /// # Errors
    /// `Argument` for ids beyond the vocabulary; `ContextFull`; the session is then as it was before.
    pub fn resume(&mut self, ids: &[u32]) -> Result<usize> {
        self.model.arch().check_ids(ids)?;
        if ids.len() > self.config.context {
            return Err(Error::ContextFull { used: 0, wanted: ids.len(), limit: self.config.context });
        }
        let same = self.tokens.iter().zip(ids).take_while(|(a, b)| a == b).count().min(self.seq.len);
        self.rewind(same);
        self.tokens.extend_from_slice(&ids[same..]);
        Ok(same)
    }

    /// A second conversation with the same past, which is stored once.
    ///
    /// # Errors
    /// `Budget`, `Memory`.
    pub fn fork(&self) -> Result<Session> {
        let mut twin = Session::begin(&self.model, self.config.clone(), |pool, _| pool.fork(&self.seq))?;
        twin.tokens.extend_from_slice(&self.tokens);
        twin.logits.extend_from_slice(&self.logits);
        Ok(twin)
    }

    /// Whether so many tokens fit without dropping any.
    fn check_room(&self, wanted: usize) -> Result<()> {
        let (used, limit) = (self.tokens.len(), self.config.context);
        if wanted > limit - used { Err(Error::ContextFull { used, wanted, limit }) } else { Ok(()) }
    }

    /// Adds tokens that will run later, making room by the session's policy.
    fn push(&mut self, ids: &[u32]) -> Result<()> {
        let limit = self.config.context;
        if self.tokens.len() + ids.len() > limit {
            let full = Error::ContextFull { used: self.tokens.len(), wanted: ids.len(), limit };
            let Overflow::DropOldest { keep } = self.config.overflow else { return Err(full) };
            if keep + ids.len() > limit {
                return Err(full);
            }
            let over = self.tokens.len() + ids.len() - limit;
            let keep = keep.min(self.tokens.len());
            let drop = over.max((self.tokens.len() - keep) / 2).min(self.tokens.len() - keep);
            self.tokens.drain(keep..keep + drop);
            self.forget_from(keep);
        }
        self.tokens.extend_from_slice(ids);
        Ok(())
    }

    /// Runs the tokens that have not run yet.
    fn catch_up(&mut self) -> Result<()> {
        if self.tokens.is_empty() {
            return Err(Error::Argument { name: "session", what: "no token was fed yet".to_owned() });
        }
        if self.seq.len == self.tokens.len() && self.logits.is_empty() {
            // After a rewind: the last token runs again, for its logits.
            self.forget_from(self.seq.len - 1);
        }
        while self.seq.len < self.tokens.len() {
            let left = &self.tokens[self.seq.len..];
            let n = left.len().min(self.config.chunk);
            let pick = if n == left.len() { Pick::Last } else { Pick::None };
            // The tokens leave the session for the call that reads them and writes the session.
            let tokens = std::mem::take(&mut self.tokens);
            let at = self.seq.len;
            let ran = self.run_into_logits(&tokens[at..at + n], pick);
            self.tokens = tokens;
            ran?;
        }
        Ok(())
    }

    fn run_into_logits(&mut self, ids: &[u32], pick: Pick) -> Result<()> {
        let mut logits = std::mem::take(&mut self.logits);
        logits.clear();
        let ran =
            self.run(ids, pick, &[]).map(|(runner, shape)| logits.extend_from_slice(runner.logits(shape)));
        self.logits = logits;
        ran
    }

    /// Runs `ids` as the next positions.
    fn run(&mut self, ids: &[u32], pick: Pick, targets: &[u32]) -> Result<(RunnerGuard<'_>, Shape)> {
        let start = Instant::now();
        let mut runner = self.model.runner()?;
        let feed = Feed { seq: &mut self.seq, ids, pick, targets };
        let ran = runner.run(self.model.parts(), &mut [feed], &self.cancel);
        if matches!(ran, Err(Error::Cancelled)) {
            self.cancel.store(false, Relaxed);
        }
        let (shape, t) = (ran?, &mut self.timings);
        let (time, tokens) = if ids.len() == 1 {
            (&mut t.decode, &mut t.decode_tokens)
        } else {
            (&mut t.prefill, &mut t.prefill_tokens)
        };
        *time += start.elapsed();
        *tokens += ids.len() as u64;
        Ok((runner, shape))
    }

    /// Feeds `ids` through `run` in pieces whose logits fit in memory; all or nothing.
    fn whole(&mut self, ids: &[u32], run: &mut dyn FnMut(&mut Session, &[u32]) -> Result<()>) -> Result<()> {
        self.model.arch().check_ids(ids)?;
        self.check_room(ids.len())?;
        if self.seq.len < self.tokens.len() {
            self.catch_up()?;
        }
        let before = self.tokens.len();
        let rows = (LOGITS / self.model.arch().vocab).clamp(1, self.config.chunk);
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

    fn forget_from(&mut self, len: usize) {
        if len < self.seq.len {
            self.model.runner_anyhow().pool.rewind(&mut self.seq, len);
        }
        self.logits.clear();
    }
}

type RunnerGuard<'a> = std::sync::MutexGuard<'a, crate::runner::Runner>;

fn session_words(context: usize, vocab: usize) -> u64 {
    context as u64 + 2 * vocab as u64
}

impl Drop for Session {
    fn drop(&mut self) {
        self.model.runner_anyhow().pool.close(&mut self.seq);
    }
}
