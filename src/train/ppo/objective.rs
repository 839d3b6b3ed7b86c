//! Floor 5: the clipped objective of proximal policy optimisation (Schulman et al. 2017) and its derivatives, for the rows of
//! a minibatch. Pure arithmetic; knows no model.

use crate::train::loss::{Loss, Scored};

/// What the objective weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// How far a ratio counts: within `1 - policy` and `1 + policy` (eq. 7).
    pub policy: f64,
    /// How far a value may move from the old one.
    pub value: f64,
    /// Weight of the values' loss.
    pub vf_coef: f64,
    /// Weight of the entropy.
    pub entropy_coef: f64,
}

/// What a row of the rollout said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// The log-probability of the token when it was drawn.
    pub logprob: f32,
    /// The value when it was drawn.
    pub value: f32,
    /// Its advantage, whitened.
    pub advantage: f32,
    /// Its return.
    pub returns: f32,
}

/// Sums over rows; means after [`Figures::mean`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Rows.
    pub rows: f64,
    /// The policy's loss.
    pub policy_loss: f64,
    /// The values' loss, before `vf_coef`.
    pub value_loss: f64,
    /// Entropy, where it was asked for.
    pub entropy: f64,
    /// Rows whose ratio was clipped.
    pub clip_fraction: f64,
    /// `ratio - 1 - log(ratio)`, an estimate of the divergence from the old policy that is never negative (Schulman 2020, k3).
    pub approx_kl: f64,
    /// Ratios.
    pub ratio: f64,
}

impl Figures {
    /// Adds those of other rows.
    pub fn add(&mut self, other: Figures) {
        self.rows += other.rows;
        self.policy_loss += other.policy_loss;
        self.value_loss += other.value_loss;
        self.entropy += other.entropy;
        self.clip_fraction += other.clip_fraction;
        self.approx_kl += other.approx_kl;
        self.ratio += other.ratio;
    }

    /// Of each row.
    #[must_use]
    pub fn mean(self) -> Figures {
        let n = self.rows.max(1.0);
        Figures {
            rows: self.rows,
            policy_loss: self.policy_loss / n,
            value_loss: self.value_loss / n,
            entropy: self.entropy / n,
            clip_fraction: self.clip_fraction / n,
            approx_kl: self.approx_kl / n,
            ratio: self.ratio / n,
        }
    }
}

/// The loss of the rows of a minibatch, each with weight `1 / total` (a mean over all tokens of the minibatch):
/// `max(-A ratio, -A clip(ratio))`, `vf_coef / 2 * max((V - R)^2, (clip(V) - R)^2)`, less `entropy_coef` times the entropy.
#[must_use]
pub fn clipped(rows: Scored, values: &[f32], steps: &[Step], clip: &Clip, total: f64) -> (Loss, Figures) {
    let (mut loss, mut figures) = (Loss::default(), Figures::default());
    for (row, step) in steps.iter().enumerate() {
        let log_ratio = rows.logprob(row) - f64::from(step.logprob);
        let (ratio, advantage) = (log_ratio.exp(), f64::from(step.advantage));
        let bounded = ratio.clamp(1.0 - clip.policy, 1.0 + clip.policy);
        let (free, held) = (-advantage * ratio, -advantage * bounded);
        // Where both are equal the ratio is within its bounds, and the gradient flows.
        let by_logprob = if free >= held { -advantage * ratio } else { 0.0 };

        let (value, old, returns) = (f64::from(values[row]), f64::from(step.value), f64::from(step.returns));
        let near = value.clamp(old - clip.value, old + clip.value);
        let (free_error, near_error) = ((value - returns).powi(2), (near - returns).powi(2));
        let by_value = if free_error >= near_error {
            value - returns
        } else if near == value {
            near - returns
        } else {
            0.0
        };

        let entropy = if clip.entropy_coef == 0.0 { 0.0 } else { rows.entropy(row) };
        let (policy_loss, value_loss) = (free.max(held), 0.5 * free_error.max(near_error));
        loss.value += (policy_loss + clip.vf_coef * value_loss - clip.entropy_coef * entropy) / total;
        loss.seeds.extend([by_logprob / total, 0.0, -clip.entropy_coef / total].map(|x| x as f32));
        loss.values.push((clip.vf_coef * by_value / total) as f32);
        figures.add(Figures {
            rows: 1.0,
            policy_loss,
            value_loss,
            entropy,
            clip_fraction: f64::from(u8::from(held > free)),
            approx_kl: ratio - 1.0 - log_ratio,
            ratio,
        });
    }
    (loss, figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP: Clip = Clip { policy: 0.2, value: 0.2, vf_coef: 0.1, entropy_coef: 0.0 };

    fn loss(logprob: f64, value: f64, step: Step) -> Loss {
        let pairs = [logprob as f32, 0.0];
        clipped(Scored { logprobs: &pairs, logits: &[0.0] }, &[value as f32], &[step], &CLIP, 1.0).0
    }

    #[test]
    fn derivatives_are_those_of_the_value() {
        for (logprob, advantage) in [(-1.0, 1.0), (-1.4, 1.0), (-0.7, 1.0), (-1.4, -1.0), (-0.7, -1.0)] {
            for (value, returns) in [(0.1, 0.5), (0.9, 0.5), (0.9, 1.5), (-0.9, -1.5), (-0.9, 0.0)] {
                let step = Step { logprob: -1.0, value: 0.2, advantage, returns };
                let at = loss(logprob, value, step);
                let h = 1.0 / 1024.0;
                let by_logprob =
                    (loss(logprob + h, value, step).value - loss(logprob - h, value, step).value) / (2.0 * h);
                let by_value =
                    (loss(logprob, value + h, step).value - loss(logprob, value - h, step).value) / (2.0 * h);
                assert!((f64::from(at.seeds[0]) - by_logprob).abs() < 2e-3, "{step:?} at {logprob}");
                assert!((f64::from(at.values[0]) - by_value).abs() < 2e-3, "{step:?} at {value}");
            }
        }
    }

    #[test]
    fn a_policy_that_has_not_moved_has_ratio_one() {
        let step = Step { logprob: -1.25, value: 0.0, advantage: 2.0, returns: 0.0 };
        let pairs = [-1.25, 0.0];
        let rows = Scored { logprobs: &pairs, logits: &[0.0] };
        let (loss, figures) = clipped(rows, &[0.0], &[step], &CLIP, 1.0);
        assert_eq!((figures.ratio, figures.clip_fraction, figures.approx_kl), (1.0, 0.0, 0.0));
        assert_eq!(loss.seeds[0], -2.0);
    }
}
