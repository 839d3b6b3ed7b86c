//! Floor 5: a conversation: the tokens it holds, where it stands in the cache, and the calls that move it. Knows no
//! tensors and no text; text is in `generate`.

mod adapters;
pub mod batch;
mod catch_up;
mod config;
mod score;
mod source;
mod speculate;

pub use config::{Cancel, Overflow, SessionConfig, Speculation, Timings};

use crate::adapter::{Grafts, lead_of};
use crate::engine::Charge;
use crate::error::{Error, Result};
use crate::model::{CHUNK, Model};
use crate::rules::Place;
use crate::sample::{Sampler, SamplerConfig};
use crate::state::{Pool, ROOT, Sequence};
pub(crate) use source::Source;
use speculate::Ahead;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// One conversation with a model.
pub struct Session {
    model: Arc<Model>,
    seq: Sequence,
    /// What the decoder attends to, of a model with an encoder.
    source: Option<Source>,
    /// All tokens; those at and after `seq.len` have not run yet. (Where tokens were chosen ahead, `seq` may hold more.)
    tokens: Vec<u32>,
    /// How many there were when the host last gave some: what follows is the answer.
    fed: usize,
    /// Logits after the last token that ran.
    logits: Vec<f32>,
    scratch: Vec<f32>,
    sampler: Sampler,
    config: SessionConfig,
    cancel: Arc<AtomicBool>,
    timings: Timings,
    ahead: Ahead,
    /// What its adapters do.
    grafts: Option<Arc<Grafts>>,
    /// Of the weights that it has computed with.
    epoch: u64,
    /// Rows in the pass of a batch that is being put together.
    planned: usize,
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
        let (most, vocab) = (model.arch().max_positions, model.arch().vocab());
        if !model.arch().writes() {
            let task = model.arch().head.task.name();
            let what = format!("expected a language model, found an {} with {task}", model.arch().branch());
            return Err(Error::Argument { name: "model", what });
        }
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
        let sampler = Sampler::with_ops(model.engine().ops(), config.sampler.clone(), vocab)?;
        let ahead = Ahead::new(model, &config)?;
        let grafts = model.attached();
        let mut runner = model.runner()?;
        let (mut seq, epoch) = (open(&mut runner.pool, config.context)?, runner.epoch());
        drop(runner);
        seq.root = grafts.as_ref().map_or(ROOT, |grafts| grafts.root);
        config.context = config.context.saturating_sub(lead_of(grafts.as_ref())).max(1);
        let mut session = Session {
            model: model.clone(),
            seq,
            source: None,
            tokens: Vec::new(),
            fed: 0,
            logits: Vec::new(),
            scratch: Vec::new(),
            sampler,
            config,
            cancel: Arc::default(),
            timings: Timings::default(),
            ahead,
            grafts,
            epoch,
            planned: 0,
            _charge: charge,
        };
        let refused = |_| Error::Memory { what: "a session's tokens", bytes: session_words(most, vocab) * 4 };
        session.tokens.try_reserve_exact(session.config.context).map_err(refused)?;
        session.scratch.try_reserve_exact(vocab).map_err(refused)?;
        session.logits.try_reserve_exact(vocab).map_err(refused)?;
        session.ahead.obey(&session.cancel);
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
        let (ops, vocab) = (self.model.engine().ops(), self.model.arch().vocab());
        self.sampler = Sampler::with_ops(ops, config.clone(), vocab)?;
        self.settle();
        self.ahead.set_sampler(&config)?;
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
        self.settle();
        let before = self.tokens.len();
        self.push(ids)?;
        self.fed = self.tokens.len();
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
        self.settle();
        self.push(&[id])?;
        self.fed = self.tokens.len();
        Ok(())
    }

    /// Chooses the next token, adds it and returns it.
    ///
    /// # Errors
    /// `Argument` where nothing was fed yet or all logits are NaN or masked; otherwise as [`Session::prefill`].
    pub fn step(&mut self) -> Result<u32> {
        if !self.speculate()? {
            self.catch_up()?;
        }
        self.choose()
    }

    /// Chooses the next token from what has run, and adds it.
    fn choose(&mut self) -> Result<u32> {
        if let Some(id) = self.ahead.next() {
            self.push(&[id])?;
            return Ok(id);
        }
        let start = Instant::now();
        let (logits, scratch, held) = (&self.logits, &mut self.scratch, self.tokens.len() as u64);
        let id = if self.config.rules.is_empty() {
            self.sampler.choose(logits, scratch, &self.tokens, held)?
        } else {
            scratch.clear();
            scratch.extend_from_slice(logits);
            let place = Place { ids: &self.tokens, prompt: self.fed, longest: self.config.context };
            self.config.rules.apply(scratch, place);
            self.sampler.sample(scratch, &self.tokens, held)?
        };
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

    /// Forgets the tokens from `len` on.
    pub fn rewind(&mut self, len: usize) {
        self.ahead.clear();
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
        self.fed = self.tokens.len();
        Ok(same)
    }

    /// A second conversation with the same past, which is stored once.
    ///
    /// # Errors
    /// `Budget`, `Memory`.
    pub fn fork(&self) -> Result<Session> {
        let mut twin = Session::begin(&self.model, self.config.clone(), |pool, _| pool.fork(&self.seq))?;
        (twin.grafts, twin.epoch, twin.seq.root) = (self.grafts.clone(), self.epoch, self.seq.root);
        twin.source = self.source.as_ref().map(|source| source.fork(&self.model)).transpose()?;
        twin.tokens.extend_from_slice(&self.tokens);
        twin.fed = self.fed;
        twin.logits.extend_from_slice(&self.logits);
        if self.seq.len > self.tokens.len() {
            twin.forget_from(self.tokens.len()); // what was chosen ahead is no part of the past
        }
        Ok(twin)
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

    fn forget_from(&mut self, len: usize) {
        if len < self.seq.len {
            self.model.runner_anyhow().pool.rewind(&mut self.seq, len);
        }
        self.logits.clear();
    }
}

fn session_words(context: usize, vocab: usize) -> u64 {
    context as u64 + 2 * vocab as u64
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut runner = self.model.runner_anyhow();
        runner.pool.close(&mut self.seq);
        if let Some(source) = &mut self.source {
            runner.pool.close(&mut source.seq);
        }
    }
}
