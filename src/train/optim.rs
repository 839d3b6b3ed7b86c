//! Floor 5: optimisers: gradients into steps. Knows no losses.

use super::learner::{Learned, Learner};
use crate::error::{Error, Result};
use kernels::optim::{AdamW, BLOCK, Sgd, blocks, total};
use kernels::{Ops, TileMut};
use rayon::ThreadPool;
use rayon::prelude::*;

/// Elements that a thread takes at once: whole blocks of the sum of squares.
const PIECE: usize = 16 * BLOCK;

/// How gradients become steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// AdamW (Loshchilov and Hutter 2019) as PyTorch has it: `eps` is added to the root of the corrected mean of squares, and
    /// weight decay is apart from the gradient. It falls on matrices alone, not on gains and biases.
    AdamW {
        /// Decay of the means of gradients and of their squares.
        betas: [f32; 2],
        /// Keeps a step finite where gradients vanish.
        eps: f32,
        /// Weight decay.
        decay: f32,
    },
    /// Gradient descent, with momentum or (0) without.
    Sgd {
        /// What the sum of gradients so far is multiplied by.
        momentum: f32,
        /// Weight decay of matrices.
        decay: f32,
    },
}

impl Default for Rule {
    fn default() -> Rule {
        Rule::AdamW { betas: [0.9, 0.999], eps: 1e-8, decay: 0.0 }
    }
}

/// What an optimiser remembers of one parameter: nothing before the first step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Mean of gradients, or their sum with momentum.
    pub first: Vec<f32>,
    /// Mean of their squares.
    pub second: Vec<f32>,
}

/// An optimiser of one learner.
pub struct Optimizer {
    rule: Rule,
    /// Largest norm of the gradient of all parameters together; 0: any.
    clip: f32,
    steps: u64,
    moments: Vec<Moments>,
    pool: ThreadPool,
}

impl Optimizer {
    /// One that has seen nothing yet, on the threads of `learner`'s engine. Gradients whose norm is above `clip` are scaled to
    /// it; 0: none are.
    ///
    /// # Errors
    /// `Argument` for settings out of their range; `Internal` where the system gives no threads.
    pub fn new(learner: &Learner, rule: Rule, clip: f32) -> Result<Optimizer> {
        let fits = match rule {
            Rule::AdamW { betas: [a, b], eps, decay } => {
                (0.0..1.0).contains(&a)
                    && (0.0..1.0).contains(&b)
                    && eps > 0.0
                    && eps.is_finite()
                    && decay >= 0.0
            }
            Rule::Sgd { momentum, decay } => (0.0..1.0).contains(&momentum) && decay >= 0.0,
        };
        if !(fits && clip >= 0.0 && clip.is_finite()) {
            let what = format!(
                "expected betas and momentum from 0 to below 1, eps above 0, decay and clip 0 or more, found {rule:?} and clip {clip}"
            );
            return Err(Error::Argument { name: "optimizer", what });
        }
        let threads = learner.model().engine().threads();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::Internal(format!("{threads} threads to step on: {e}")))?;
        Ok(Optimizer { rule, clip, steps: 0, moments: Vec::new(), pool })
    }

    /// Steps taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What it remembers, in the order of [`Learner::learned`], and steps taken: all that a later run goes on from.
    #[must_use]
    pub fn state(&self) -> (&[Moments], u64) {
        (&self.moments, self.steps)
    }

    /// Goes on from what [`Optimizer::state`] said.
    pub fn restore(&mut self, moments: Vec<Moments>, steps: u64) {
        (self.moments, self.steps) = (moments, steps);
    }

    /// One step against the gradients that `learner` holds, which it then forgets. Returns the norm of the gradient of all
    /// parameters together, before it was clipped.
    ///
    /// # Errors
    /// `Argument` where a gradient is not finite: nothing is changed but that gradients are forgotten. `Memory`.
    pub fn step(&mut self, learner: &mut Learner, rate: f32) -> Result<f64> {
        let ops = learner.model().engine().ops();
        let mut learned = learner.learned();
        let norm = self.norm(ops, &learned);
        if !norm.is_finite() {
            drop(learned);
            learner.clear();
            let what =
                "expected finite gradients: no step was taken (are the rewards, the data and the rate sane?)";
            return Err(Error::Argument { name: "gradients", what: what.to_owned() });
        }
        let clip = f64::from(self.clip);
        let scale = if clip > 0.0 && norm > clip { (clip / norm) as f32 } else { 1.0 };
        let (steps, rule) = (self.steps + 1, self.rule);
        self.reserve(&learned)?;
        for (one, moments) in learned.iter_mut().zip(&mut self.moments) {
            let update = Update { rule, rate, scale, steps, decays: one.is_matrix };
            step(&self.pool, ops, update, one.values, one.grads, moments);
        }
        drop(learned);
        self.steps = steps;
        learner.clear();
        learner.follow();
        Ok(norm)
    }

    /// The norm of the gradient of all parameters together.
    fn norm(&self, ops: &Ops, learned: &[Learned]) -> f64 {
        let sums = |grads: &[f32]| -> f64 {
            let mut sums = vec![0.0_f32; blocks(grads.len())];
            let pieces = sums.par_chunks_mut(PIECE / BLOCK).zip(grads.par_chunks(PIECE));
            self.pool.install(|| {
                pieces.for_each(|(sums, grads)| {
                    let rows = sums.len();
                    (ops.back.squares)(&mut TileMut::whole(sums, rows, 1), grads);
                });
            });
            total(&sums)
        };
        learned.iter().map(|one| sums(one.grads)).sum::<f64>().sqrt()
    }

    fn reserve(&mut self, learned: &[Learned]) -> Result<()> {
        let [first, second] = match self.rule {
            Rule::AdamW { .. } => [true, true],
            Rule::Sgd { momentum, .. } => [momentum > 0.0, false],
        };
        self.moments.resize(learned.len(), Moments::default());
        for (moments, one) in self.moments.iter_mut().zip(learned) {
            for (memory, wanted) in [(&mut moments.first, first), (&mut moments.second, second)] {
                let n = if wanted { one.values.len() } else { 0 };
                let refused = |_| Error::Memory { what: "an optimiser's memory", bytes: n as u64 * 4 };
                memory.try_reserve_exact(n.saturating_sub(memory.len())).map_err(refused)?;
                memory.resize(n, 0.0);
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Update {
    rule: Rule,
    rate: f32,
    scale: f32,
    steps: u64,
    decays: bool,
}

/// One parameter's step, in pieces that the threads share.
fn step(
    pool: &ThreadPool,
    ops: &Ops,
    update: Update,
    values: &mut [f32],
    grads: &[f32],
    moments: &mut Moments,
) {
    let Update { rule, rate: lr, scale, steps, decays } = update;
    match rule {
        Rule::AdamW { betas, eps, decay } => {
            let corrections = AdamW::corrections(betas, u32::try_from(steps).unwrap_or(u32::MAX));
            let decay = if decays { decay } else { 0.0 };
            let step = AdamW { lr, betas, eps, decay, scale, corrections };
            let memories = moments.first.par_chunks_mut(PIECE).zip(moments.second.par_chunks_mut(PIECE));
            let pieces = values.par_chunks_mut(PIECE).zip(memories).zip(grads.par_chunks(PIECE));
            pool.install(|| {
                pieces.for_each(|((values, (first, second)), grads)| {
                    let n = values.len();
                    let [mut p, mut m, mut v] = [values, first, second].map(|mem| TileMut::whole(mem, 1, n));
                    (ops.back.adamw)(&mut p, &mut m, &mut v, grads, &step);
                });
            });
        }
        Rule::Sgd { momentum, decay } => {
            let step = Sgd { lr, momentum, decay: if decays { decay } else { 0.0 }, scale };
            let mut sums: Vec<&mut [f32]> = moments.first.chunks_mut(PIECE).collect();
            sums.resize_with(values.len().div_ceil(PIECE), Default::default);
            let pieces = values.par_chunks_mut(PIECE).zip(sums).zip(grads.par_chunks(PIECE));
            pool.install(|| {
                pieces.for_each(|((values, sum), grads)| {
                    let n = values.len();
                    let mut p = TileMut::whole(values, 1, n);
                    let mut sum = (!sum.is_empty()).then(|| TileMut::whole(sum, 1, n));
                    (ops.back.sgd)(&mut p, sum.as_mut(), grads, &step);
                });
            });
        }
    }
}
