//! Floor 5: choosing a token from logits. Knows no tensors, models or text.
//!
//! The order is that of `transformers`' `generate`: logit bias, repetition penalty, frequency and presence penalties,
//! temperature, top-k, top-p, min-p, then one draw from what is left. (llama.cpp takes the temperature last; with
//! temperature 1 both orders choose alike.)

mod config;
mod nucleus;

pub use config::SamplerConfig;

use crate::error::{Error, Result};
use crate::rng::{Stream, uniform};
use kernels::Ops;
use kernels::sample::BLOCK;
use nucleus::{Candidate, LEAST, Weights, likelier};
use std::fmt;

/// Chooses tokens. It has no state that a choice changes, so the order of calls does not matter.
#[derive(Clone)]
pub struct Sampler {
    config: SamplerConfig,
    vocab: usize,
    ops: &'static Ops,
    /// How often each token was seen; all zero between two calls; empty without penalties.
    seen: Vec<u32>,
    /// The largest logit or weight of each block.
    maxima: Vec<f32>,
    /// The sum of the weights of each block.
    sums: Vec<f32>,
    /// Where maxima are put in order.
    order: Vec<f32>,
    /// Empty without filters.
    candidates: Vec<Candidate>,
    /// Of the candidates of top-k.
    logits: Vec<f32>,
    /// Of those, or of all tokens; empty where none are drawn.
    weights: Vec<f32>,
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Sampler").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Sampler {
    /// A sampler over `vocab` tokens. All its memory is set aside here.
    ///
    /// # Errors
    /// `Argument` for a setting out of its range; `Memory`.
    pub fn new(config: SamplerConfig, vocab: usize) -> Result<Sampler> {
        Sampler::with_ops(Ops::best(), config, vocab)
    }

    /// The same with given kernels; the choices do not depend on them.
    ///
    /// # Errors
    /// As [`Sampler::new`].
    pub fn with_ops(ops: &'static Ops, config: SamplerConfig, vocab: usize) -> Result<Sampler> {
        config.check(vocab)?;
        let (blocks, top) = (vocab.div_ceil(BLOCK), config.top_k.min(vocab));
        let weighed = match config.top_k {
            _ if config.temperature == 0.0 => 0,
            0 => vocab,
            _ => top,
        };
        let mut candidates = Vec::new();
        candidates.try_reserve_exact(if config.filters() { vocab } else { 0 }).map_err(|_| refused(vocab))?;
        Ok(Sampler {
            seen: zeros(if config.penalises() { vocab } else { 0 })?,
            maxima: zeros(blocks)?,
            sums: zeros(blocks)?,
            order: zeros(blocks)?,
            candidates,
            logits: zeros(top)?,
            weights: zeros(weighed)?,
            config,
            vocab,
            ops,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// Chooses a token from `logits` `[vocab]`, which it changes. `history` holds the tokens before; `position` names the
    /// random number. NaN and minus infinity are never chosen.
    ///
    /// # Errors
    /// `Argument` where `logits` has another length, or holds nothing that can be chosen.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32], position: u64) -> Result<u32> {
        self.check_len(logits)?;
        self.adjust(logits, history);
        self.pick(logits, position)
    }

    /// As [`Sampler::sample`], with the logits left as they are: where they have to be changed, that is done in `scratch`.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn choose(
        &mut self,
        logits: &[f32],
        scratch: &mut Vec<f32>,
        history: &[u32],
        position: u64,
    ) -> Result<u32> {
        if self.config.penalises() || !self.config.logit_bias.is_empty() {
            scratch.clear();
            scratch.extend_from_slice(logits);
            return self.sample(scratch, history, position);
        }
        self.check_len(logits)?;
        self.pick(logits, position)
    }

    /// The choice from logits as they are.
    fn pick(&mut self, logits: &[f32], position: u64) -> Result<u32> {
        let (best, max) = self.most_likely(logits)?;
        let c = &self.config;
        if c.temperature == 0.0 || max == f32::INFINITY {
            return Ok(best);
        }
        let u = uniform(c.seed, Stream::Sample, position);
        if c.top_k != 0 {
            return Ok(self.of_top_k(logits, max, u).unwrap_or(best));
        }
        (self.ops.weigh)(&mut self.weights, logits, max, c.temperature, &mut self.maxima, &mut self.sums);
        if !c.filters() {
            return Ok(draw_in_blocks(&self.weights, &self.sums, u).unwrap_or(best));
        }
        Ok(self.of_nucleus(u).unwrap_or(best))
    }

    fn check_len(&self, logits: &[f32]) -> Result<()> {
        if logits.len() == self.vocab {
            return Ok(());
        }
        let what = format!("expected {} numbers, found {}", self.vocab, logits.len());
        Err(Error::Argument { name: "logits", what })
    }

    /// The highest logit with the lowest id that has it. `maxima` are those of the logits then.
    fn most_likely(&mut self, logits: &[f32]) -> Result<Candidate> {
        (self.ops.block_max)(&mut self.maxima, logits);
        let max = self.maxima.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let block = self.maxima.iter().position(|block| *block == max).unwrap_or(0) * BLOCK;
        let found = logits[block..].iter().position(|logit| *logit == max && max > f32::NEG_INFINITY);
        let found = found.map(|at| ((block + at) as u32, max));
        found.ok_or_else(|| Error::Argument {
            name: "logits",
            what: "expected a number to choose, found only NaN and minus infinity".to_owned(),
        })
    }

    /// Applies bias and penalties.
    fn adjust(&mut self, logits: &mut [f32], history: &[u32]) {
        let c = &self.config;
        for &(id, bias) in &c.logit_bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit += bias;
            }
        }
        if !c.penalises() {
            return;
        }
        let window = if c.penalty_window == 0 { history.len() } else { c.penalty_window.min(history.len()) };
        let recent = &history[history.len() - window..];
        for &id in recent {
            if let Some(count) = self.seen.get_mut(id as usize) {
                *count = count.saturating_add(1);
            }
        }
        for &id in recent {
            let (Some(count), Some(logit)) = (self.seen.get_mut(id as usize), logits.get_mut(id as usize))
            else {
                continue;
            };
            if *count == 0 {
                continue; // done at its first mention
            }
            *logit = if *logit < 0.0 { *logit * c.repetition_penalty } else { *logit / c.repetition_penalty };
            *logit -= *count as f32 * c.frequency_penalty + c.presence_penalty;
            *count = 0;
        }
    }

    /// The choice where top-k is the first filter; `maxima` are those of the logits.
    fn of_top_k(&mut self, logits: &[f32], max: f32, u: f64) -> Option<u32> {
        let (k, c) = (self.config.top_k, &self.config);
        // As many blocks as elements are wanted hold one of at least this.
        let bound = bound(&self.maxima, &mut self.order, k).max(f32::MIN);
        let list = &mut self.candidates;
        gather(list, logits, &self.maxima, bound);
        if k < list.len() {
            list.select_nth_unstable_by(k - 1, likelier);
            list.truncate(k);
        }
        self.logits.clear();
        self.logits.extend(list.iter().map(|(_, logit)| *logit));
        let weights = &mut self.weights[..list.len()];
        (self.ops.weigh)(weights, &self.logits, max, c.temperature, &mut self.maxima, &mut self.sums);
        list.iter_mut().zip(weights).for_each(|((_, value), weight)| *value = *weight);
        list.retain(|(_, weight)| *weight >= LEAST);
        let wanted = c.wanted(Weights::new(list).total() as f64);
        list.retain(|(_, weight)| *weight >= c.min_p);
        Weights::new(list).draw(wanted, u)
    }

    /// The choice from what top-p and min-p leave of all tokens; `maxima` and `sums` are those of the weights.
    fn of_nucleus(&mut self, u: f64) -> Option<u32> {
        let (c, unit) = (&self.config, f64::from(LEAST));
        let wanted = c.wanted(self.sums.iter().map(|sum| f64::from(*sum)).sum::<f64>() / unit);
        let least = c.min_p.max(LEAST);
        // In growing pieces: mostly the first is enough.
        let mut blocks = if c.top_p < 1.0 { 64 } else { usize::MAX };
        loop {
            let bound = bound(&self.maxima, &mut self.order, blocks).max(least);
            // They cannot weigh more than their blocks do.
            let heavy = self.maxima.iter().zip(&self.sums).filter(|(max, _)| **max >= bound);
            let most = heavy.map(|(_, sum)| f64::from(*sum)).sum::<f64>() / unit;
            if bound <= least || most >= wanted as f64 {
                gather(&mut self.candidates, &self.weights, &self.maxima, bound);
                let mut weights = Weights::new(&mut self.candidates);
                if bound <= least || weights.total() >= wanted {
                    return weights.draw(wanted, u);
                }
            }
            blocks = blocks.saturating_mul(4);
        }
    }
}

fn refused(n: usize) -> Error {
    Error::Memory { what: "a sampler", bytes: n as u64 * size_of::<Candidate>() as u64 }
}

/// So many zeros.
fn zeros<T: Clone + Default>(n: usize) -> Result<Vec<T>> {
    let mut all = Vec::new();
    all.try_reserve_exact(n).map_err(|_| refused(n))?;
    all.resize(n, T::default());
    Ok(all)
}

/// What the `n` largest of the `maxima` of blocks reach; minus infinity where there are no more. In `order` they are put in
/// order.
fn bound(maxima: &[f32], order: &mut [f32], n: usize) -> f32 {
    if n >= maxima.len() {
        return f32::NEG_INFINITY;
    }
    order.copy_from_slice(maxima);
    *order.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a)).1
}

/// Fills `list` with the elements of `x` that are not below `bound`; `maxima` are those of the blocks of `x`.
fn gather(list: &mut Vec<Candidate>, x: &[f32], maxima: &[f32], bound: f32) {
    list.clear();
    for (block, max) in maxima.iter().enumerate() {
        if *max < bound {
            continue;
        }
        let first = block * BLOCK;
        for (i, &x) in x[first..x.len().min(first + BLOCK)].iter().enumerate() {
            if x >= bound {
                list.push(((first + i) as u32, x));
            }
        }
    }
}

/// The candidate with which the sum of weights, begun with `sum`, exceeds `target`; else the last one.
fn reach(candidates: impl Iterator<Item = Candidate>, mut sum: f64, target: f64) -> Option<u32> {
    let mut last = None;
    for (id, weight) in candidates.filter(|(_, weight)| *weight > 0.0) {
        sum += f64::from(weight);
        last = Some(id);
        if sum > target {
            break;
        }
    }
    last
}

/// The token in which a share `u` of all weight ends, in the order of ids; `sums` are those of the blocks.
fn draw_in_blocks(weights: &[f32], sums: &[f32], u: f64) -> Option<u32> {
    let target = u * sums.iter().map(|sum| f64::from(*sum)).sum::<f64>();
    let (mut before, mut found) = (0.0, (0, 0.0));
    for (block, sum) in sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
        found = (block * BLOCK, before);
        before += f64::from(*sum);
        if before > target {
            break;
        }
    }
    let (first, before) = found;
    reach((first as u32..).zip(weights[first..].iter().copied().take(BLOCK)), before, target)
}

/// The highest logit with the lowest id that has it.
fn most_likely(logits: &[f32]) -> Option<Candidate> {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in (0..).zip(logits) {
        if logit > best.1 {
            best = (id, logit);
        }
    }
    (best.1 > f32::NEG_INFINITY).then_some(best)
}

/// ln of the sum of exp over all logits that are not NaN; minus infinity for none.
fn log_sum(logits: &[f32]) -> f64 {
    let Some((_, max)) = most_likely(logits) else { return f64::NEG_INFINITY };
    let weight = |logit: &f32| if logit.is_nan() { 0.0 } else { libm::expf(logit - max) };
    let sum: f64 = logits.iter().map(|logit| f64::from(weight(logit))).sum();
    f64::from(max) + libm::log(sum)
}

/// The `n` most likely tokens with their log-probabilities (natural), most likely first, the lower id first among equals.
/// NaN and minus infinity are left out.
pub fn top_logprobs(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    let all = (0..).zip(logits.iter().copied());
    let mut top: Vec<Candidate> = all.filter(|(_, logit)| *logit > f32::NEG_INFINITY).collect();
    if n < top.len() {
        top.select_nth_unstable_by(n, likelier);
        top.truncate(n);
    }
    top.sort_unstable_by(likelier);
    let lse = log_sum(logits);
    top.iter_mut().for_each(|(_, logit)| *logit = (f64::from(*logit) - lse) as f32);
    top
}

/// The log-probability (natural) of token `id`; minus infinity for one beyond `logits`, or whose logit is NaN.
pub fn logprob(logits: &[f32], id: u32) -> f32 {
    let logit = logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
    if logit > f32::NEG_INFINITY { (f64::from(logit) - log_sum(logits)) as f32 } else { f32::NEG_INFINITY }
}
