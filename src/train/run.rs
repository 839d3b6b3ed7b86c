//! Floor 5: a run: steps over a task's examples, each a bounded piece of work. Knows no files.

use super::learner::Learner;
use super::optim::{Optimizer, Rule};
use super::order::Order;
use super::schedule::Schedule;
use super::task::Task;
use crate::error::{Error, Result};
use crate::fit::that_fit;
use std::sync::atomic::AtomicBool;

/// How a run learns.
#[derive(Clone, Debug, PartialEq)]
pub struct RunConfig {
    /// Steps in all.
    pub steps: u64,
    /// Examples of a step.
    pub batch: usize,
    /// Most tokens of one pass, unless one example has more: a step is made of as many passes as it takes.
    pub tokens: usize,
    /// Largest learning rate.
    pub rate: f32,
    /// How the rate goes.
    pub schedule: Schedule,
    /// The optimiser.
    pub rule: Rule,
    /// Largest norm of the gradient; 0: any.
    pub clip: f32,
    /// Decides the order of examples.
    pub seed: u64,
}

impl Default for RunConfig {
    fn default() -> RunConfig {
        RunConfig {
            steps: 100,
            batch: 8,
            tokens: 2048,
            rate: 1e-4,
            schedule: Schedule::Cosine { warmup: 10, floor: 0.1 },
            rule: Rule::default(),
            clip: 1.0,
            seed: 0,
        }
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Steps done, this one among them.
    pub step: u64,
    /// The loss before the step.
    pub loss: f64,
    /// The learning rate.
    pub rate: f32,
    /// Norm of the gradient before clipping.
    pub norm: f64,
    /// Tokens that ran.
    pub tokens: usize,
    /// Epochs begun, with their fraction.
    pub epoch: f64,
}

/// A run. Everything it does depends on its config, data and parameters alone: one that goes on from a checkpoint has the bits
/// of one that was never interrupted.
pub struct Run {
    /// What learns.
    pub learner: Learner,
    /// How.
    pub optimizer: Optimizer,
    task: Box<dyn Task>,
    order: Order,
    config: RunConfig,
}

impl Run {
    /// A run of `learner` over `task`.
    ///
    /// # Errors
    /// `Argument` for settings out of their range.
    pub fn new(learner: Learner, task: Box<dyn Task>, config: RunConfig) -> Result<Run> {
        let fits = config.batch > 0 && config.tokens > 0 && config.rate >= 0.0 && config.rate.is_finite();
        if !fits {
            let what =
                format!("expected a batch and tokens above 0 and a rate of 0 or more, found {config:?}");
            return Err(Error::Argument { name: "run", what });
        }
        let optimizer = Optimizer::new(&learner, config.rule, config.clip)?;
        let order = Order::new(task.examples(), config.seed);
        Ok(Run { learner, optimizer, task, order, config })
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// Whether all steps are done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.optimizer.steps() >= self.config.steps
    }

    /// One step.
    ///
    /// # Errors
    /// As the task's passes and [`Optimizer::step`]; `Cancelled`. The run is where it was before the step then.
    pub fn step(&mut self, cancel: &AtomicBool) -> Result<Report> {
        let done = self.optimizer.steps();
        let rate = self.config.rate * self.config.schedule.at(done, self.config.steps);
        let (loss, tokens) = match self.passes(done, cancel) {
            Ok(passed) => passed,
            Err(e) => {
                self.learner.clear();
                return Err(e);
            }
        };
        let norm = self.optimizer.step(&mut self.learner, rate)?;
        let seen = (done + 1) * self.config.batch as u64;
        let epoch = seen as f64 / self.task.examples() as f64;
        Ok(Report { step: done + 1, loss, rate, norm, tokens, epoch })
    }

    fn passes(&mut self, done: u64, cancel: &AtomicBool) -> Result<(f64, usize)> {
        let first = done * self.config.batch as u64;
        let examples: Vec<usize> = (0..self.config.batch as u64).map(|i| self.order.at(first + i)).collect();
        self.task.begin(first);
        passes(&mut *self.task, &mut self.learner, &examples, 1.0, self.config.tokens, cancel)
    }
}

/// Runs `examples` forward and backward, in as many passes of up to `most` tokens as it takes. Returns `coef` times the loss,
/// whose gradients were added, and tokens that ran.
pub(super) fn passes(
    task: &mut dyn Task,
    learner: &mut Learner,
    examples: &[usize],
    coef: f64,
    most: usize,
    cancel: &AtomicBool,
) -> Result<(f64, usize)> {
    let total = examples.iter().map(|i| task.weight(*i)).sum::<f64>() / coef;
    let (mut loss, mut tokens, mut left) = (0.0, 0, examples);
    while !left.is_empty() {
        let fit = that_fit(left.iter().map(|i| task.tokens(*i)), most);
        let (now, rest) = left.split_at(fit);
        tokens += now.iter().map(|i| task.tokens(*i)).sum::<usize>();
        loss += task.pass(learner, now, total, cancel)?;
        left = rest;
    }
    Ok((loss, tokens))
}
