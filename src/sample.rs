//! Floor 5: choosing a token from logits. Knows no tensors, models or text.
//!
//! The order is that of `transformers`' `generate`: logit bias, repetition penalty, frequency and presence penalties,
//! temperature, top-k, top-p, min-p, then one draw from what is left. (llama.cpp takes the temperature last; with
//! temperature 1 both orders choose alike.)

use crate::error::{Error, Result};
use crate::rng::{Stream, uniform};

/// How tokens are chosen. The default is the most likely one.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerConfig {
    /// Divides the logits; 0: always the most likely token, the lowest id among equals.
    pub temperature: f32,
    /// Only the `top_k` most likely tokens, the lower ids among equals; 0: all.
    pub top_k: usize,
    /// Only the most likely tokens that have this probability together (Holtzman et al. 2020), in (0, 1].
    pub top_p: f32,
    /// Only tokens with at least this share of the highest probability (Nguyen et al. 2024), in [0, 1].
    pub min_p: f32,
    /// Divides positive logits of tokens seen before and multiplies negative ones (Keskar et al. 2019); 1: none.
    pub repetition_penalty: f32,
    /// Taken from a token's logit once for each time it was seen.
    pub frequency_penalty: f32,
    /// Taken from a token's logit if it was seen.
    pub presence_penalty: f32,
    /// Only the last so many tokens count as seen; 0: all.
    pub penalty_window: usize,
    /// Added to the logits of tokens, one after the other; minus infinity bans one.
    pub logit_bias: Vec<(u32, f32)>,
    /// The same seed, tokens and logits give the same choice.
    pub seed: u64,
}

impl Default for SamplerConfig {
    fn default() -> SamplerConfig {
        SamplerConfig {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_window: 0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl SamplerConfig {
    fn check(&self, vocab: usize) -> Result<()> {
        let ranges = [
            ("temperature", self.temperature, self.temperature >= 0.0, "0 or more"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1"),
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0.0, "above 0"),
            ("frequency_penalty", self.frequency_penalty, true, "a finite number"),
            ("presence_penalty", self.presence_penalty, true, "a finite number"),
        ];
        for (name, value, within, range) in ranges {
            if !within || !value.is_finite() {
                return Err(Error::Argument { name, what: format!("expected {range}, found {value}") });
            }
        }
        for &(id, bias) in &self.logit_bias {
            if id as usize >= vocab || bias.is_nan() || bias == f32::INFINITY {
                let what = format!(
                    "expected an id below {vocab} and a number or minus infinity, found {bias} for {id}"
                );
                return Err(Error::Argument { name: "logit_bias", what });
            }
        }
        Ok(())
    }

    fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }

    fn filters(&self) -> bool {
        self.top_k != 0 || self.top_p < 1.0 || self.min_p > 0.0
    }
}

/// A token that may be chosen: its id and its logit, later its weight.
type Candidate = (u32, f32);

/// Most likely first, lower ids first among equals. No value is NaN here.
fn likelier(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.1.partial_cmp(&a.1).unwrap_or(std::cmp::Ordering::Equal).then(a.0.cmp(&b.0))
}

/// Chooses tokens. It has no state that a choice changes, so the order of calls does not matter.
#[derive(Clone, Debug)]
pub struct Sampler {
    config: SamplerConfig,
    vocab: usize,
    /// How often each token was seen; all zero between two calls; empty without penalties.
    seen: Vec<u32>,
    /// Empty without filters.
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler over `vocab` tokens. All its memory is set aside here.
    ///
    /// # Errors
    /// `Argument` for a setting out of its range; `Memory`.
    pub fn new(config: SamplerConfig, vocab: usize) -> Result<Sampler> {
        config.check(vocab)?;
        let (mut seen, mut candidates) = (Vec::new(), Vec::new());
        let refused = |_| Error::Memory { what: "a sampler", bytes: vocab as u64 * 12 };
        if config.penalises() {
            seen.try_reserve_exact(vocab).map_err(refused)?;
            seen.resize(vocab, 0);
        }
        if config.filters() {
            candidates.try_reserve_exact(vocab).map_err(refused)?;
        }
        Ok(Sampler { config, vocab, seen, candidates })
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
        if logits.len() != self.vocab {
            let what = format!("expected {} numbers, found {}", self.vocab, logits.len());
            return Err(Error::Argument { name: "logits", what });
        }
        self.adjust(logits, history);
        let (best, max) = most_likely(logits).ok_or_else(|| Error::Argument {
            name: "logits",
            what: "expected a number to choose, found only NaN and minus infinity".to_owned(),
        })?;
        if self.config.temperature == 0.0 || max == f32::INFINITY {
            return Ok(best);
        }
        let u = uniform(self.config.seed, Stream::Sample, position);
        let scale = Scale { max, temperature: self.config.temperature };
        if self.config.filters() {
            self.filter(logits, scale);
            return Ok(draw(self.candidates.iter().copied(), u).unwrap_or(best));
        }
        logits.iter_mut().for_each(|logit| *logit = scale.weight(*logit));
        Ok(draw((0..).zip(logits.iter().copied()), u).unwrap_or(best))
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

    /// Fills `candidates` with the weights of what top-k, top-p and min-p leave, most likely first.
    fn filter(&mut self, logits: &[f32], scale: Scale) {
        let (c, list) = (&self.config, &mut self.candidates);
        list.clear();
        list.extend((0..).zip(logits.iter().copied()).filter(|(_, logit)| *logit > f32::NEG_INFINITY));
        if c.top_k != 0 && c.top_k < list.len() {
            list.select_nth_unstable_by(c.top_k - 1, likelier);
            list.truncate(c.top_k);
            // In id order, so that no sum depends on how the selection moved things.
            list.sort_unstable_by_key(|(id, _)| *id);
        }
        list.iter_mut().for_each(|(_, logit)| *logit = scale.weight(*logit));
        // Without weight a token can never be drawn.
        list.retain(|(_, weight)| *weight > 0.0);
        let total: f64 = list.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let wanted = if c.top_p < 1.0 { f64::from(c.top_p) * total } else { f64::INFINITY };
        let (mut done, mut mass) = (0, 0.0);
        // Sorted in growing pieces: mostly the first is enough.
        let mut piece = 256;
        while done < list.len() {
            let rest = &mut list[done..];
            if piece < rest.len() {
                rest.select_nth_unstable_by(piece, likelier);
            }
            let n = piece.min(rest.len());
            rest[..n].sort_unstable_by(likelier);
            for i in done..done + n {
                let weight = list[i].1;
                if i > 0 && (mass >= wanted || weight < c.min_p) {
                    list.truncate(i);
                    return;
                }
                mass += f64::from(weight);
            }
            done += n;
            piece = piece.saturating_mul(4);
        }
    }
}

/// Weights are probabilities over that of the most likely token.
#[derive(Clone, Copy)]
struct Scale {
    max: f32,
    temperature: f32,
}

impl Scale {
    /// exp((logit - max) / temperature), from 0 to 1; 0 for NaN.
    fn weight(self, logit: f32) -> f32 {
        let x = (logit - self.max) / self.temperature;
        if x.is_nan() { 0.0 } else { libm::expf(x) }
    }
}

/// The candidate in which a share `u` of all weight ends.
fn draw(candidates: impl Iterator<Item = Candidate> + Clone, u: f64) -> Option<u32> {
    let total: f64 = candidates.clone().map(|(_, weight)| f64::from(weight)).sum();
    let (mut sum, target, mut last) = (0.0, u * total, None);
    for (id, weight) in candidates {
        if weight > 0.0 {
            sum += f64::from(weight);
            last = Some(id);
            if sum > target {
                break;
            }
        }
    }
    last
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
    let scale = Scale { max, temperature: 1.0 };
    let sum: f64 = logits.iter().map(|logit| f64::from(scale.weight(*logit))).sum();
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
