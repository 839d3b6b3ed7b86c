//! Floor 5: what a policy learns by, and what a round says of itself. Knows no model.

use super::advantage::KlControl;
use super::objective::{Clip, Figures};
use crate::error::{Error, Result};
use crate::train::optim::Rule;

/// How a policy learns. The defaults are the published ones (Ouyang et al. 2022, appendix C; lm-human-preferences).
#[derive(Clone, Debug, PartialEq)]
pub struct PpoConfig {
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// Weight of a token's divergence from the reference, at first.
    pub kl_coef: f64,
    /// How that weight is kept.
    pub kl_control: KlControl,
    /// Discount of later rewards.
    pub gamma: f64,
    /// Share of later errors in advantages.
    pub lam: f64,
    /// What the objective weighs.
    pub clip: Clip,
    /// Times that each answer is learnt from.
    pub epochs: usize,
    /// Answers of a minibatch: a step of the optimiser each.
    pub minibatch: usize,
    /// Most tokens of one pass, unless one answer has more.
    pub tokens: usize,
    /// Whether rewards are brought to variance 1 first, with their mean kept.
    pub whiten_rewards: bool,
    /// Weight of the loss of pretraining, where lessons for it are given: see [`Ppo::set_mix`](super::Ppo::set_mix).
    pub mix_coef: f64,
    /// Lessons of pretraining in each minibatch.
    pub mix_batch: usize,
    /// What an answer that did not end by itself gets in the place of its score; `None`: its score.
    pub unfinished: Option<f32>,
    /// Learning rate.
    pub rate: f32,
    /// Optimiser.
    pub rule: Rule,
    /// Largest norm of a gradient; 0: any.
    pub max_norm: f32,
    /// Decides what is drawn, and the order of minibatches.
    pub seed: u64,
}

impl Default for PpoConfig {
    fn default() -> PpoConfig {
        PpoConfig {
            max_tokens: 64,
            kl_coef: 0.05,
            kl_control: KlControl::Fixed,
            gamma: 1.0,
            lam: 0.95,
            clip: Clip { policy: 0.2, value: 0.2, vf_coef: 0.1, entropy_coef: 0.0 },
            epochs: 4,
            minibatch: 4,
            tokens: 2048,
            whiten_rewards: false,
            mix_coef: 27.8,
            mix_batch: 4,
            unfinished: None,
            rate: 1e-5,
            rule: Rule::AdamW { betas: [0.9, 0.95], eps: 1e-8, decay: 0.0 },
            max_norm: 1.0,
            seed: 0,
        }
    }
}

impl PpoConfig {
    pub(super) fn check(&self) -> Result<()> {
        let c = &self.clip;
        let parts = [self.kl_coef, self.gamma, self.lam, c.policy, c.value, c.vf_coef, c.entropy_coef];
        let fits = parts.iter().all(|x| *x >= 0.0 && x.is_finite()) && self.gamma <= 1.0 && self.lam <= 1.0;
        let control = match self.kl_control {
            KlControl::Fixed => true,
            KlControl::Adaptive { target, horizon } => target > 0.0 && horizon > 0.0,
        };
        let counts = [self.max_tokens, self.epochs, self.minibatch, self.tokens].iter().all(|n| *n > 0);
        if fits && control && counts && self.rate >= 0.0 && self.rate.is_finite() {
            return Ok(());
        }
        let what =
            format!("expected counts above 0, weights of 0 or more, gamma and lam up to 1, found {self:?}");
        Err(Error::Argument { name: "ppo", what })
    }
}

/// What one round of answers and updates did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Rounds done, this one among them.
    pub round: u64,
    /// Mean score of an answer.
    pub reward: f64,
    /// Mean divergence of an answer from the reference, in nats: the sum over its tokens of the difference of
    /// log-probabilities.
    pub kl: f64,
    /// Weight of the divergence in this round.
    pub kl_coef: f64,
    /// Mean over updates and tokens: losses, entropy, clipped share, divergence from the policy that drew.
    pub figures: Figures,
    /// Share of the returns' variance that the values explained, before the updates.
    pub explained_variance: f64,
    /// Mean tokens of an answer.
    pub tokens: f64,
    /// Mean norm of a gradient before clipping.
    pub norm: f64,
    /// Mean loss of the pretraining that was mixed in, in nats a token, without its weight; 0 where there was none.
    pub mix_loss: f64,
}

/// What a call left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Call again.
    More,
    /// Answers are drawn: say what they are worth ([`Ppo::set_rewards`](super::Ppo::set_rewards)), then call again.
    Rewards,
    /// The round is done.
    Done,
}
