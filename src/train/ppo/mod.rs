//! Floor 5: proximal policy optimisation of a language model (Schulman et al. 2017; Ziegler et al. 2019; Ouyang et al. 2022):
//! answers are drawn, the host says what they are worth, and the policy moves towards what was worth more, near what it was.
//!
//! All numbers come from the same kernels: the log-probability of a token has the same bits when it is drawn and when it is
//! learnt from, so before the first update every ratio is exactly 1. Work comes in small pieces ([`Ppo::advance`]), between
//! which a host can do something else.

pub mod advantage;
mod config;
pub mod mix;
pub mod objective;
mod view;

pub use config::{PpoConfig, Progress, Stats};

use super::data::Lesson;
use super::draw::{Answer, Drawer};
use super::learner::Learner;
use super::loss::Scored;
use super::optim::Optimizer;
use super::order::Order;
use super::reference::Reference;
use super::what::Sample;
use crate::error::{Error, Result};
use crate::fit::that_fit;
use advantage::{gae, token_rewards, whiten};
use mix::Mix;
use objective::{Figures, Step, clipped};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use view::View;

/// Where a round is.
enum Phase {
    /// Nothing was begun.
    Idle,
    /// Answers are being drawn.
    Drawing,
    /// The host has to say what they are worth.
    Waiting,
    /// The reference is asked, from this answer on.
    Referring(usize),
    /// Minibatches are learnt from, this many of them done.
    Updating(usize),
}

/// A policy that learns from rewards. Used from one thread at a time.
pub struct Ppo {
    learner: Learner,
    optimizer: Optimizer,
    reference: Reference,
    drawer: Drawer,
    config: PpoConfig,
    kl_coef: f64,
    rounds: u64,
    phase: Phase,
    answers: Vec<Answer>,
    scores: Vec<f32>,
    /// Of each answer's tokens: what the reference says.
    said: Vec<Vec<f32>>,
    /// Of each answer's tokens.
    steps: Vec<Vec<Step>>,
    order: Option<Order>,
    mix: Option<Mix>,
    stats: Stats,
    /// Updates of this round.
    updates: f64,
}

impl Ppo {
    /// A policy that `learner`, which has a value head, becomes.
    ///
    /// # Errors
    /// `Argument` for settings out of their range, or a learner without a value head; `Unsupported` for a model that draws no
    /// tokens by itself; `Memory`.
    pub fn new(learner: Learner, config: PpoConfig) -> Result<Ppo> {
        config.check()?;
        let model = learner.model().clone();
        if learner.value_head().is_empty() {
            let what = "expected a learner with a value head".to_owned();
            return Err(Error::Argument { name: "learner", what });
        }
        if !model.arch().writes() {
            let what = format!("drawing answers from a {} model", model.arch().family);
            return Err(Error::Unsupported { file: model.tensors().file().to_owned(), what });
        }
        let optimizer = Optimizer::new(&learner, config.rule, config.max_norm)?;
        let (reference, drawer) = (Reference::new(&model), Drawer::new(&learner, config.seed)?);
        Ok(Ppo {
            learner,
            optimizer,
            reference,
            drawer,
            kl_coef: config.kl_coef,
            config,
            rounds: 0,
            phase: Phase::Idle,
            answers: Vec::new(),
            scores: Vec::new(),
            said: Vec::new(),
            steps: Vec::new(),
            order: None,
            mix: None,
            stats: Stats::default(),
            updates: 0.0,
        })
    }

    /// Lessons of pretraining, of which some are learnt beside every minibatch from now on (Ouyang et al. 2022, eq. 2); an empty
    /// list ends that. They are no part of a checkpoint: who goes on brings the same ones.
    ///
    /// # Errors
    /// `Argument` as [`Mix::new`], for tokens beyond the vocabulary, or sources where the model reads none and none where
    /// it reads them; `ContextFull` for a lesson that is longer than the model
    /// can hold. What was mixed in before stays then.
    pub fn set_mix(&mut self, lessons: Vec<Lesson>) -> Result<()> {
        mix::check(self.learner.model().arch(), &lessons)?;
        let PpoConfig { mix_coef, mix_batch, seed, .. } = self.config;
        let any = !lessons.is_empty();
        self.mix = any.then(|| Mix::new(lessons, mix_coef, mix_batch, seed)).transpose()?;
        Ok(())
    }

    /// What learns.
    pub fn learner_mut(&mut self) -> &mut Learner {
        &mut self.learner
    }

    /// What learns, and its optimiser: what a checkpoint has to hold beside [`Ppo::position`].
    pub fn state_mut(&mut self) -> (&mut Learner, &mut Optimizer) {
        (&mut self.learner, &mut self.optimizer)
    }

    /// Rounds done and the weight of the divergence: with the learner and its optimiser, all that a later run goes on from.
    #[must_use]
    pub fn position(&self) -> (u64, f64) {
        (self.rounds, self.kl_coef)
    }

    /// Goes on from what [`Ppo::position`] said.
    pub fn restore(&mut self, rounds: u64, kl_coef: f64) {
        (self.rounds, self.kl_coef) = (rounds, kl_coef);
        self.drawer.restore(rounds);
    }

    /// Begins a round: an answer will be drawn to each of `prompts`, which an encoder reads where there is one. What another round left is dropped.
    ///
    /// # Errors
    /// As [`Drawer::begin`].
    pub fn begin(&mut self, prompts: &[Vec<u32>]) -> Result<()> {
        self.phase = Phase::Idle;
        self.drawer.restore(self.rounds);
        self.drawer.begin(&self.learner, prompts, self.config.max_tokens)?;
        self.phase = Phase::Drawing;
        Ok(())
    }

    /// The answers of this round, once they are drawn.
    #[must_use]
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// What each answer is worth.
    ///
    /// # Errors
    /// `Argument` for another number of scores than answers, one that is not finite, or where none are waited for: nothing has
    /// changed then.
    pub fn set_rewards(&mut self, scores: &[f32]) -> Result<()> {
        let refuse = |what: String| Err(Error::Argument { name: "rewards", what });
        if !matches!(self.phase, Phase::Waiting) {
            return refuse("expected answers to have been drawn first".to_owned());
        }
        if scores.len() != self.answers.len() {
            return refuse(format!("expected {}, found {}", self.answers.len(), scores.len()));
        }
        if let Some(i) = scores.iter().position(|score| !score.is_finite()) {
            return refuse(format!("expected numbers, found {} for answer {i}", scores[i]));
        }
        self.scores = scores.to_vec();
        self.said = Vec::new();
        self.phase = Phase::Referring(0);
        Ok(())
    }

    /// Does pieces of the round until `budget` is over or the host is asked something; at least one piece: a token of every
    /// answer, a look at the reference, or a minibatch.
    ///
    /// # Errors
    /// As [`Learner::forward`] and [`Optimizer::step`]; `Argument` where no round was begun; `Cancelled`. The piece is done
    /// again by the next call.
    pub fn advance(&mut self, budget: Duration, cancel: &AtomicBool) -> Result<Progress> {
        let start = Instant::now();
        loop {
            let progress = self.piece(cancel)?;
            if progress != Progress::More || start.elapsed() >= budget {
                return Ok(progress);
            }
        }
    }

    /// What the last round did.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn piece(&mut self, cancel: &AtomicBool) -> Result<Progress> {
        match self.phase {
            Phase::Idle => {
                let what = "expected a round to have been begun".to_owned();
                Err(Error::Argument { name: "ppo", what })
            }
            Phase::Drawing => {
                if self.drawer.step(&self.learner, cancel)? {
                    return Ok(Progress::More);
                }
                self.answers = self.drawer.end();
                self.phase = Phase::Waiting;
                Ok(Progress::Rewards)
            }
            Phase::Waiting => Ok(Progress::Rewards),
            Phase::Referring(from) => {
                let to = self.refer(from, cancel)?;
                self.phase = Phase::Referring(to);
                if to == self.answers.len() {
                    self.weigh();
                    self.phase = Phase::Updating(0);
                }
                Ok(Progress::More)
            }
            Phase::Updating(done) => {
                self.update(done, cancel)?;
                if (done + 1) < self.minibatches() * self.config.epochs {
                    self.phase = Phase::Updating(done + 1);
                    return Ok(Progress::More);
                }
                self.finish();
                Ok(Progress::Done)
            }
        }
    }

    fn minibatches(&self) -> usize {
        self.answers.len().div_ceil(self.config.minibatch)
    }

    /// How many of the first of `answers` share a pass.
    fn share(&self, answers: &[usize]) -> usize {
        let len = |answer: &Answer| answer.source.len() + answer.prompt.len() + answer.ids.len();
        that_fit(answers.iter().map(|i| len(&self.answers[*i])), self.config.tokens)
    }

    /// Asks the reference about the next answers; returns how many were asked about in all.
    fn refer(&mut self, from: usize, cancel: &AtomicBool) -> Result<usize> {
        let left: Vec<usize> = (from..self.answers.len()).collect();
        let now = &left[..self.share(&left)];
        let views: Vec<View> = now.iter().map(|i| View::of(&self.answers[*i])).collect();
        let batch: Vec<Sample> = views.iter().map(View::sample).collect();
        let all = self.reference.logprobs_at(self.learner.served(), &batch, cancel)?;
        let mut rest = &all[..];
        self.said.truncate(from);
        for view in &views {
            let (own, others) = rest.split_at(view.targets.len());
            self.said.push(own.to_vec());
            rest = others;
        }
        Ok(from + now.len())
    }

    /// Rewards, advantages and returns of every token.
    fn weigh(&mut self) {
        let config = &self.config;
        let score = |i: usize| match config.unfinished {
            Some(other) if !self.answers[i].ended => other,
            _ => self.scores[i],
        };
        let mut rewards: Vec<Vec<f64>> = (0..self.answers.len())
            .map(|i| token_rewards(&self.answers[i].logprobs, &self.said[i], score(i), self.kl_coef))
            .collect();
        if config.whiten_rewards {
            let mut all: Vec<f64> = rewards.concat();
            whiten(&mut all, false);
            let mut all = all.into_iter();
            rewards.iter_mut().flatten().for_each(|reward| *reward = all.next().unwrap_or(*reward));
        }
        let estimated = rewards.iter().zip(&self.answers);
        let estimated: Vec<_> =
            estimated.map(|(rewards, a)| gae(rewards, &a.values, config.gamma, config.lam)).collect();
        let mut all: Vec<f64> =
            estimated.iter().flat_map(|(advantages, _)| advantages.iter().copied()).collect();
        whiten(&mut all, true);
        let mut whitened = all.into_iter();
        let steps = self.answers.iter().zip(&estimated).map(|(answer, (_, returns))| {
            let step = |t: usize| Step {
                logprob: answer.logprobs[t],
                value: answer.values[t],
                advantage: whitened.next().unwrap_or(0.0) as f32,
                returns: returns[t] as f32,
            };
            (0..answer.ids.len()).map(step).collect()
        });
        self.steps = steps.collect();
        self.stats = self.before(&estimated);
        self.updates = 0.0;
        self.order = Some(Order::new(self.answers.len(), self.config.seed ^ (self.rounds + 1) << 20));
    }

    /// What can be said before the updates.
    fn before(&self, estimated: &[(Vec<f64>, Vec<f64>)]) -> Stats {
        let n = self.answers.len() as f64;
        let kl = |(answer, said): (&Answer, &Vec<f32>)| -> f64 {
            answer.logprobs.iter().zip(said).map(|(own, other)| f64::from(*own) - f64::from(*other)).sum()
        };
        let returns = || estimated.iter().flat_map(|(_, returns)| returns.iter().copied());
        let errors = estimated.iter().flat_map(|(advantages, _)| advantages.iter().copied());
        let spread = variance(&returns().collect::<Vec<_>>());
        let left = variance(&errors.collect::<Vec<_>>());
        Stats {
            round: self.rounds + 1,
            reward: self.scores.iter().map(|x| f64::from(*x)).sum::<f64>() / n,
            kl: self.answers.iter().zip(&self.said).map(kl).sum::<f64>() / n,
            kl_coef: self.kl_coef,
            explained_variance: if spread > 0.0 { 1.0 - left / spread } else { 0.0 },
            tokens: self.answers.iter().map(|answer| answer.ids.len() as f64).sum::<f64>() / n,
            ..Stats::default()
        }
    }

    /// One minibatch: a step of the optimiser.
    fn update(&mut self, done: usize, cancel: &AtomicBool) -> Result<()> {
        let (count, n) = (self.minibatches(), self.answers.len());
        let (epoch, part) = ((done / count) as u64, done % count);
        let size = self.config.minibatch.min(n - part * self.config.minibatch);
        let Some(order) = &mut self.order else { return Ok(()) };
        let first = epoch * n as u64 + (part * self.config.minibatch) as u64;
        let answers: Vec<usize> = (0..size as u64).map(|i| order.at(first + i)).collect();
        let ran = self.passes(&answers, cancel).and_then(|figures| Ok((figures, self.mixed(cancel)?)));
        let (figures, mix_loss) = ran.inspect_err(|_| self.learner.clear())?;
        self.stats.figures.add(figures);
        self.stats.mix_loss += mix_loss;
        self.stats.norm += self.optimizer.step(&mut self.learner, self.config.rate)?;
        self.updates += 1.0;
        Ok(())
    }

    /// The pretraining of a minibatch; the mean loss of its tokens.
    fn mixed(&mut self, cancel: &AtomicBool) -> Result<f64> {
        let Some(mix) = &mut self.mix else { return Ok(0.0) };
        mix.pass(&mut self.learner, self.optimizer.steps(), self.config.tokens, cancel)
    }

    fn passes(&mut self, answers: &[usize], cancel: &AtomicBool) -> Result<Figures> {
        let total: usize = answers.iter().map(|i| self.answers[*i].ids.len()).sum();
        let (mut figures, mut left) = (Figures::default(), answers);
        while !left.is_empty() {
            let (now, rest) = left.split_at(self.share(left));
            left = rest;
            let views: Vec<View> = now.iter().map(|i| View::of(&self.answers[*i])).collect();
            let batch: Vec<Sample> = views.iter().map(View::sample).collect();
            self.learner.forward(&batch, cancel)?;
            let steps: Vec<Step> = now.iter().flat_map(|i| self.steps[*i].iter().copied()).collect();
            let logits = if self.config.clip.entropy_coef > 0.0 { self.learner.answer() } else { &[] };
            let scored = Scored { logprobs: self.learner.logprobs(), logits };
            let (loss, own) = clipped(scored, self.learner.values(), &steps, &self.config.clip, total as f64);
            figures.add(own);
            self.learner.backward(&loss.seeds, &loss.values, cancel)?;
        }
        Ok(figures)
    }

    fn finish(&mut self) {
        self.rounds += 1;
        self.stats.figures = self.stats.figures.mean();
        self.stats.norm /= self.updates.max(1.0);
        self.stats.mix_loss /= self.updates.max(1.0);
        self.kl_coef = self.config.kl_control.next(self.kl_coef, self.stats.kl, self.answers.len());
        self.phase = Phase::Idle;
    }
}

fn variance(x: &[f64]) -> f64 {
    let n = x.len().max(1) as f64;
    let mean = x.iter().sum::<f64>() / n;
    x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n
}
