//! Floor 5: answers drawn from what learns, many at once, a token of each at a time. Knows no rewards.

use super::learner::Learner;
use super::seats::seat;
use crate::arch::{Side, check_ids};
use crate::error::{Error, Result};
use crate::exec::Want;
use crate::fit::that_fit;
use crate::runner::{Feed, Mode, Pick, Runner};
use crate::sample::{Sampler, SamplerConfig};
use crate::seats::Row;
use kernels::TileMut;
use kernels::attention::Cache;
use std::sync::atomic::AtomicBool;

/// Tokens of prompts that run at once.
const ROWS: usize = 1024;

/// An answer, and what was known when each of its tokens was drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Of an encoder-decoder, the prompt, which its encoder reads; else nothing.
    pub source: Vec<u32>,
    /// The prompt; of an encoder-decoder, the token that its decoder begins with.
    pub prompt: Vec<u32>,
    /// Tokens drawn, a closing end token among them.
    pub ids: Vec<u32>,
    /// Their log-probabilities.
    pub logprobs: Vec<f32>,
    /// What the value head said before each.
    pub values: Vec<f32>,
    /// Whether the answer ended by itself, not because it was long enough.
    pub ended: bool,
}

/// Draws answers: at the learner's temperature, from all tokens, so that the log-probabilities are those that learning sees.
pub struct Drawer {
    runner: Runner,
    own: Row,
    /// Of what the encoder reads before a decoder.
    sources: Row,
    answers: Vec<Answer>,
    /// Answers whose prompts have run.
    begun: usize,
    sampler: Sampler,
    /// Most tokens of an answer, and how many drawings there were: each token of each has a random number of its own.
    limit: usize,
    drawings: u64,
}

impl Drawer {
    /// One for `learner`, by a seed.
    ///
    /// # Errors
    /// `Memory`.
    pub fn new(learner: &Learner, seed: u64) -> Result<Drawer> {
        let arch = learner.model().arch();
        let config = SamplerConfig { temperature: 1.0, seed, ..SamplerConfig::default() };
        Ok(Drawer {
            runner: Runner::new(arch, Cache::F32),
            own: Row::default(),
            sources: Row::default(),
            answers: Vec::new(),
            begun: 0,
            sampler: Sampler::with_ops(learner.model().engine().ops(), config, arch.vocab())?,
            limit: 0,
            drawings: 0,
        })
    }

    /// Goes on with the random numbers of drawing `drawings`.
    pub fn restore(&mut self, drawings: u64) {
        self.drawings = drawings;
    }

    /// Drawings so far.
    #[must_use]
    pub fn drawings(&self) -> u64 {
        self.drawings
    }

    /// Begins to draw an answer of up to `limit` tokens to each prompt.
    ///
    /// # Errors
    /// `Argument` for no prompts, an empty one, or a limit of 0; `Unsupported` for an encoder-decoder whose files do not say what
    /// an answer begins with; `ContextFull` where a prompt and its answer are longer than the
    /// model can hold; `Budget`; `Memory`.
    pub fn begin(&mut self, learner: &Learner, prompts: &[Vec<u32>], limit: usize) -> Result<()> {
        if prompts.is_empty() || prompts.iter().any(Vec::is_empty) || limit == 0 {
            let what = "expected prompts that have tokens, and answers of at least one".to_owned();
            return Err(Error::Argument { name: "prompts", what });
        }
        let model = learner.model();
        let arch = model.arch();
        let begins = if arch.reads_source() { Some(model.first_token()?) } else { None };
        let answer = |prompt: &Vec<u32>| match begins {
            Some(first) => Answer { source: prompt.clone(), prompt: vec![first], ..Answer::default() },
            None => Answer { prompt: prompt.clone(), ..Answer::default() },
        };
        let answers: Vec<Answer> = prompts.iter().map(answer).collect();
        let own = |answer: &Answer| learner.lead() + answer.prompt.len() + limit;
        for (prompt, answer) in prompts.iter().zip(&answers) {
            arch.check_len(own(answer).max(prompt.len()))?;
            check_ids(arch.first().embed.vocab, prompt)?;
        }
        self.end();
        if begins.is_some() {
            seat(&mut self.sources, model, &mut self.runner, prompts.iter().map(Vec::len))?;
        }
        seat(&mut self.own, model, &mut self.runner, answers.iter().map(own))?;
        (self.answers, self.begun, self.limit) = (answers, 0, limit);
        self.drawings += 1;
        Ok(())
    }

    /// Draws the next token of every answer that goes on, or runs some of the prompts. Returns whether there is more to draw.
    ///
    /// # Errors
    /// `Cancelled`; `Memory`; `Budget`. The same call does the same afterwards.
    pub fn step(&mut self, learner: &Learner, cancel: &AtomicBool) -> Result<bool> {
        let now = self.turn();
        if now.is_empty() {
            return Ok(false);
        }
        self.read(learner, &now, cancel)?;
        self.runner.begin(Mode::DECODE);
        let (parts, lead, mut led) = (learner.parts(), learner.lead(), Vec::new());
        for i in &now {
            let (answer, seq) = (&self.answers[*i], &mut self.own.open[*i]);
            led.clear();
            led.resize(lead, 0); // what stands there is not read
            led.extend_from_slice(&answer.prompt);
            let ids = answer.ids.last().map_or(&led[..], std::slice::from_ref);
            let source = self.sources.open.get(*i);
            self.runner.add(parts, &mut Feed { source, pick: Pick::Last, ..Feed::new(seq, ids) })?;
        }
        let shape = self.runner.go(parts, cancel)?;
        let vocab = learner.model().arch().vocab();
        let (logits, values) = (self.runner.answer(shape), self.runner.values(shape));
        let ops = learner.model().engine().ops();
        let mut scratch = Vec::new();
        for (row, i) in now.iter().enumerate() {
            let (answer, logits) = (&mut self.answers[*i], &logits[row * vocab..][..vocab]);
            let position = self.drawings << 40 | (*i as u64) << 20 | answer.ids.len() as u64;
            let id = self.sampler.choose(logits, &mut scratch, &[], position)?;
            let mut pair = [0.0; 2];
            (ops.logprob)(&mut TileMut::whole(&mut pair, 1, 2), logits, vocab, &[id]);
            self.own.open[*i].len += if answer.ids.is_empty() { lead + answer.prompt.len() } else { 1 };
            answer.ids.push(id);
            answer.logprobs.push(pair[0]);
            answer.values.push(values.get(row).copied().unwrap_or(0.0));
            answer.ended = learner.model().is_end(id);
        }
        self.begun = self.begun.max(now[now.len() - 1] + 1);
        Ok(!self.turn().is_empty())
    }

    /// Runs what the encoder has to read before answers begin, and has not read yet.
    fn read(&mut self, learner: &Learner, now: &[usize], cancel: &AtomicBool) -> Result<()> {
        let is_new = |i: &&usize| self.sources.open.get(**i).is_some_and(|seq| seq.len == 0);
        let new: Vec<usize> = now.iter().filter(is_new).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        let parts = learner.parts();
        self.runner.begin(Mode { side: Side::Encoder, want: Want::Hidden });
        for i in &new {
            let seq = &mut self.sources.open[*i];
            self.runner.add(parts, &mut Feed::new(seq, &self.answers[*i].source))?;
        }
        self.runner.go(parts, cancel)?;
        for i in new {
            self.sources.open[i].len = self.answers[i].source.len();
        }
        Ok(())
    }

    /// Answers that the next step is of: prompts that wait, as many as run at once, or all that go on.
    fn turn(&self) -> Vec<usize> {
        if self.begun < self.answers.len() {
            let waiting = self.answers[self.begun..].iter();
            let waiting = waiting.map(|answer| answer.source.len() + answer.prompt.len());
            return (self.begun..self.begun + that_fit(waiting, ROWS)).collect();
        }
        let goes_on = |answer: &Answer| !answer.ended && answer.ids.len() < self.limit;
        (0..self.answers.len()).filter(|i| goes_on(&self.answers[*i])).collect()
    }

    /// Ends the drawing: its answers, finished or not.
    pub fn end(&mut self) -> Vec<Answer> {
        self.own.clear(&mut self.runner.pool);
        self.sources.clear(&mut self.runner.pool);
        (self.begun, self.limit) = (0, 0);
        std::mem::take(&mut self.answers)
    }
}
