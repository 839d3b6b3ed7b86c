//! Floor 5: beam search: the most likely answers as a whole, not token by token. Knows ids and no text.
//!
//! What is kept and when the search ends follow the transformers library (its generation/utils.py), so that answers are the
//! same: of the `2 * beams` best continuations of an answer's beams those that end are set aside, if they are among the
//! first `beams`, and the best that go on become the next beams.

use crate::adapter::{Grafts, lead_of};
use crate::engine::Charge;
use crate::error::{Error, Result};
use crate::format::files::Load;
use crate::format::source::{Progress, Reading};
use crate::model::Model;
use crate::rules::{EarlyStopping, Place, Rules};
use crate::runner::{Feed, Mode, Pick};

use crate::session::Source;
use crate::state::Sequence;
use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How to search.
#[derive(Clone, Debug)]
pub struct BeamConfig {
    /// Beams of each answer, from 1 to 64.
    pub beams: usize,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// An answer's score is its log-probability over its length to this power: above 0 favours long ones.
    pub length_penalty: f32,
    /// When to stop.
    pub early_stopping: EarlyStopping,
    /// What may not and what must appear; `ends` are the tokens that end an answer.
    pub rules: Rules,
}

/// What an answer begins with.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    /// The source text, of an encoder-decoder.
    pub source: &'a [u32],
    /// The decoder's first tokens, at least one.
    pub ids: &'a [u32],
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// Its tokens, a closing end token included.
    pub ids: Vec<u32>,
    /// Its log-probability over its length to the power of the penalty.
    pub score: f32,
}

/// The score of what cannot be.
const NEVER: f32 = -1e9;

/// The `beams` best answers of each prompt, best first. Prompts share runs. `progress` is told tokens done and most
/// tokens there can be.
///
/// # Errors
/// `Argument` for numbers that cannot be or ids beyond the vocabulary; `ContextFull` for prompts that leave no room;
/// `Budget`, `Memory`, `Cancelled`.
pub fn search(
    model: &Model,
    prompts: &[Prompt],
    config: &BeamConfig,
    cancel: &AtomicBool,
    progress: &mut Option<Progress>,
) -> Result<Vec<Vec<Hypothesis>>> {
    if !(1..=64).contains(&config.beams) {
        let what = format!("expected 1 to 64 beams, found {}", config.beams);
        return Err(Error::Argument { name: "beams", what });
    }
    let mut reading = Reading::new(Load::Map, progress);
    reading.expect(config.max_tokens as u64)?;
    let (grafts, epoch) = (model.attached(), model.runner()?.epoch());
    let mut search = Search { model, config, grafts, epoch, answers: Vec::new(), fresh: Vec::new() };
    for prompt in prompts {
        let answer = search.begin(prompt, cancel)?;
        search.answers.push(answer);
    }
    for _ in 0..config.max_tokens {
        if search.answers.iter().all(|answer| answer.over) {
            break;
        }
        search.step(cancel)?;
        reading.advance(1)?;
    }
    Ok(search.answers.iter_mut().map(|answer| std::mem::take(&mut answer.ended)).collect())
}

struct Search<'a> {
    model: &'a Model,
    config: &'a BeamConfig,
    grafts: Option<Arc<Grafts>>,
    /// Of the weights that it began with.
    epoch: u64,
    answers: Vec<Answer>,
    /// Log-probabilities of one beam.
    fresh: Vec<f32>,
}

/// One prompt's search.
struct Answer {
    source: Option<Source>,
    /// Keys and values of each beam.
    seqs: Vec<Sequence>,
    beams: Vec<Beam>,
    ended: Vec<Hypothesis>,
    prompt: usize,
    longest: usize,
    over: bool,
    _charge: Charge,
}

#[derive(Clone)]
struct Beam {
    ids: Vec<u32>,
    score: f32,
}

/// A beam with one more token.
#[derive(Clone, Copy)]
struct Next {
    beam: usize,
    id: u32,
    score: f32,
}

impl Search<'_> {
    fn begin(&self, prompt: &Prompt, cancel: &AtomicBool) -> Result<Answer> {
        let (arch, beams) = (self.model.arch(), self.config.beams);
        if prompt.ids.is_empty() {
            let what = "expected a first token of the answer, found none".to_owned();
            return Err(Error::Argument { name: "prompt", what });
        }
        arch.check_ids(prompt.ids)?;
        let lead = lead_of(self.grafts.as_ref());
        let most = arch.max_positions.saturating_sub(lead);
        let longest = prompt.ids.len().saturating_add(self.config.max_tokens).min(most);
        if longest <= prompt.ids.len() {
            let (wanted, limit) = (prompt.ids.len() + 1, arch.max_positions);
            return Err(Error::ContextFull { used: 0, wanted, limit });
        }
        let bytes = self.model.kv_bytes(lead + longest).saturating_mul(beams as u64);
        let charge = self.model.engine().charge("the beams of an answer", bytes)?;
        let mut answer = Answer {
            source: None,
            seqs: Vec::new(),
            beams: vec![Beam { ids: prompt.ids.to_vec(), score: 0.0 }],
            ended: Vec::new(),
            prompt: prompt.ids.len(),
            longest,
            over: false,
            _charge: charge,
        };
        let opened = self.open(&mut answer, prompt, cancel);
        if let Err(e) = opened {
            self.close(&mut answer);
            return Err(e);
        }
        Ok(answer)
    }

    fn open(&self, answer: &mut Answer, prompt: &Prompt, cancel: &AtomicBool) -> Result<()> {
        if self.model.arch().reads_source() {
            answer.source = Some(Source::read(self.model, prompt.source, self.grafts.as_ref(), cancel)?);
        }
        let lead = lead_of(self.grafts.as_ref());
        let mut runner = self.model.runner()?;
        for _ in 0..self.config.beams {
            answer.seqs.push(runner.pool.open(lead + answer.longest)?);
        }
        if let Some(first) = answer.seqs.first_mut() {
            runner.fill_lead(self.model.parts(), first, self.grafts.as_ref(), cancel)?;
        }
        Ok(())
    }

    fn close(&self, answer: &mut Answer) {
        let mut runner = self.model.runner_anyhow();
        let source = answer.source.as_mut().map(|source| &mut source.seq);
        answer.seqs.iter_mut().chain(source).for_each(|seq| runner.pool.close(seq));
    }

    /// One more token of every answer that is not over, all in one run.
    fn step(&mut self, cancel: &AtomicBool) -> Result<()> {
        let mut runner = self.model.runner()?;
        if runner.epoch() != self.epoch {
            let what =
                "adapters were merged into it, or taken out, during the search: begin again".to_owned();
            return Err(Error::Argument { name: "model", what });
        }
        runner.begin(Mode::DECODE);
        for answer in self.answers.iter_mut().filter(|answer| !answer.over) {
            let source = answer.source.as_ref().map(|source| &source.seq);
            for (beam, seq) in answer.beams.iter().zip(&mut answer.seqs) {
                let ids = &beam.ids[seq.len..];
                // Any target will do: what is wanted is the sum that every log-probability has in common.
                let (pick, grafts) = (Pick::Last, self.grafts.as_ref());
                let mut feed = Feed { source, pick, grafts, targets: &[0], ..Feed::new(seq, ids) };
                runner.add(self.model.parts(), &mut feed)?;
            }
        }
        let shape = runner.go(self.model.parts(), cancel)?;
        let mut at = 0;
        for answer in self.answers.iter_mut().filter(|answer| !answer.over) {
            let vocab = self.model.arch().vocab();
            let range = at..at + answer.beams.len();
            at = range.end;
            let rows = &runner.answer(shape)[range.start * vocab..range.end * vocab];
            let sums = &runner.logprobs(shape)[range.start * 2..range.end * 2];
            answer.beams.iter().zip(&mut answer.seqs).for_each(|(beam, seq)| seq.len = beam.ids.len());
            let next = candidates(answer, rows, sums, self.config, &mut self.fresh);
            let parents = answer.take(&next, self.config);
            runner.pool.reorder(&mut answer.seqs, &parents);
        }
        Ok(())
    }
}

impl Drop for Search<'_> {
    fn drop(&mut self) {
        for mut answer in std::mem::take(&mut self.answers) {
            self.close(&mut answer);
        }
    }
}

/// The best continuations of an answer's beams, best first; `rows` are their logits, `sums` pairs of which the second is
/// the logarithm of the sum of their exponentials.
fn candidates(
    answer: &Answer,
    rows: &[f32],
    sums: &[f32],
    config: &BeamConfig,
    fresh: &mut Vec<f32>,
) -> Vec<Next> {
    let keep = config.beams * (1 + config.rules.ends.len()).max(2);
    let mut best: Vec<Next> = Vec::with_capacity(keep + 1);
    let rows = rows.chunks_exact(rows.len() / answer.beams.len());
    for (b, ((beam, logits), sum)) in answer.beams.iter().zip(rows).zip(sums.chunks_exact(2)).enumerate() {
        fresh.clear();
        fresh.extend(logits.iter().map(|x| x - sum[1]));
        let place = Place { ids: &beam.ids, prompt: answer.prompt, longest: answer.longest };
        config.rules.apply(fresh, place);
        for (id, logprob) in fresh.iter().enumerate() {
            let score = beam.score + logprob;
            if best.len() == keep && best[keep - 1].score >= score || score.is_nan() {
                continue;
            }
            let at = best.partition_point(|next| next.score >= score);
            best.insert(at, Next { beam: b, id: id as u32, score });
            best.truncate(keep);
        }
    }
    best
}

impl Answer {
    /// Takes the continuations over; returns the parent of each new beam.
    fn take(&mut self, next: &[Next], config: &BeamConfig) -> Vec<usize> {
        let (beams, len) = (config.beams, self.beams[0].ids.len() + 1);
        let ends = |n: &Next| config.rules.ends.contains(&n.id) || len >= self.longest;
        let new = |n: &Next| [&self.beams[n.beam].ids[..], &[n.id]].concat();
        let penalty = |len: usize| ((len - self.prompt) as f32).powf(config.length_penalty);
        let over = next.iter().enumerate().filter(|(rank, n)| *rank < beams && ends(n) && n.score > NEVER);
        let over = over
            .map(|(_, n)| Hypothesis { ids: new(n)[self.prompt..].to_vec(), score: n.score / penalty(len) });
        let over: Vec<Hypothesis> = over.collect();
        let going = next.iter().filter(|n| !ends(n) && n.score > f32::NEG_INFINITY).take(beams);
        let (parents, going): (Vec<usize>, Vec<Beam>) =
            going.map(|n| (n.beam, Beam { ids: new(n), score: n.score })).unzip();
        self.ended.extend(over);
        self.ended.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal));
        self.ended.truncate(beams);
        let full = self.ended.len() == beams;
        let hypothetical = match config.early_stopping {
            EarlyStopping::Never if config.length_penalty > 0.0 => self.longest,
            _ => len,
        };
        let best = going.first().map_or(NEVER, |beam| beam.score / penalty(hypothetical));
        let worst = self.ended.last().map_or(NEVER, |worst| worst.score);
        self.over = going.is_empty()
            || len >= self.longest
            || full && (config.early_stopping == EarlyStopping::Full || best <= worst);
        if !going.is_empty() {
            self.beams = going;
        }
        parents
    }
}
