//! Floor 5: rewards of tokens, advantages and returns. Pure arithmetic over lists; knows no model.

/// Rewards of an answer's tokens: `-kl_coef * (logprob - reference)` each, and the answer's score at the last (Ziegler et al.
/// 2019, eq. 2; Ouyang et al. 2022, eq. 2).
#[must_use]
pub fn token_rewards(logprobs: &[f32], reference: &[f32], score: f32, kl_coef: f64) -> Vec<f64> {
    let kl = logprobs.iter().zip(reference).map(|(own, other)| f64::from(*own) - f64::from(*other));
    let mut rewards: Vec<f64> = kl.map(|kl| -kl_coef * kl).collect();
    if let Some(last) = rewards.last_mut() {
        *last += f64::from(score);
    }
    rewards
}

/// Advantages and returns of one answer whose episode ends with its last token: generalised advantage estimation (Schulman et
/// al. 2016, eq. 16), `delta_t = r_t + gamma V_(t+1) - V_t`, `A_t = delta_t + gamma lam A_(t+1)`; returns are `A + V`.
#[must_use]
pub fn gae(rewards: &[f64], values: &[f32], gamma: f64, lam: f64) -> (Vec<f64>, Vec<f64>) {
    let (mut advantages, mut next, mut after) = (vec![0.0; rewards.len()], 0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let value = f64::from(values[t]);
        next = rewards[t] + gamma * after - value + gamma * lam * next;
        (advantages[t], after) = (next, value);
    }
    let returns = advantages.iter().zip(values).map(|(a, v)| a + f64::from(*v)).collect();
    (advantages, returns)
}

/// Brings numbers to variance 1, and to mean 0 if `shift`. Only what counts is handed in: masked tokens are left out before.
/// Fewer than two numbers, or equal ones, only lose their mean.
pub fn whiten(values: &mut [f64], shift: bool) {
    let n = values.len() as f64;
    if values.is_empty() {
        return;
    }
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let scale = 1.0 / (variance + 1e-8).sqrt();
    for value in values {
        *value = (*value - mean) * scale + if shift { 0.0 } else { mean };
    }
}

/// How the weight of the divergence is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KlControl {
    /// As it is.
    Fixed,
    /// Moved towards a divergence of `target` nats per answer: `kl_coef *= 1 + clip(kl / target - 1, -0.2, 0.2) * n /
    /// horizon` after n answers (Ziegler et al. 2019, section 2.2).
    Adaptive {
        /// Nats per answer.
        target: f64,
        /// Answers over which an error counts once.
        horizon: f64,
    },
}

impl KlControl {
    /// The next weight, after `n` answers with a mean divergence of `kl`.
    #[must_use]
    pub fn next(self, kl_coef: f64, kl: f64, n: usize) -> f64 {
        match self {
            KlControl::Fixed => kl_coef,
            KlControl::Adaptive { target, horizon } => {
                kl_coef * (1.0 + (kl / target - 1.0).clamp(-0.2, 0.2) * n as f64 / horizon)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_are_the_weighted_sum_of_all_n_step_advantages() {
        let rewards = [0.1, -0.4, 0.3, 2.0];
        let values = [0.5_f32, -0.25, 1.5, 0.75];
        let (gamma, lam) = (0.9, 0.8);
        let (advantages, returns) = gae(&rewards, &values, gamma, lam);
        // The definition (Schulman et al. 2016, eq. 11 to 16) by hand: n-step advantages with weights (1 - lam) lam^(n-1), of
        // which the last takes what is left.
        let n_step = |t: usize, n: usize| {
            let value = |i: usize| values.get(i).map_or(0.0, |v| f64::from(*v));
            let sum: f64 = (0..n).map(|i| gamma.powi(i as i32) * rewards[t + i]).sum();
            sum + gamma.powi(n as i32) * value(t + n) - value(t)
        };
        for t in 0..rewards.len() {
            let left = rewards.len() - t;
            let weighted: f64 = (1..left).map(|n| (1.0 - lam) * lam.powi(n as i32 - 1) * n_step(t, n)).sum();
            let want = weighted + lam.powi(left as i32 - 1) * n_step(t, left);
            assert!((advantages[t] - want).abs() < 1e-12, "{} for {want}", advantages[t]);
            assert!((returns[t] - want - f64::from(values[t])).abs() < 1e-12);
        }
    }

    #[test]
    fn whitening_keeps_the_mean_where_it_is_asked_to() {
        let mut shifted = [1.0, 2.0, 3.0, 6.0];
        let mut kept = shifted;
        whiten(&mut shifted, true);
        whiten(&mut kept, false);
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        assert!(mean(&shifted).abs() < 1e-12 && (mean(&kept) - 3.0).abs() < 1e-12);
        let variance = shifted.iter().map(|x| x * x).sum::<f64>() / 4.0;
        assert!((variance - 1.0).abs() < 1e-6);
        let mut none: [f64; 0] = [];
        whiten(&mut none, true);
        let mut equal = [4.0; 3];
        whiten(&mut equal, true);
        assert_eq!(equal, [0.0; 3]);
    }

    #[test]
    fn the_controller_moves_a_fifth_at_most() {
        let control = KlControl::Adaptive { target: 6.0, horizon: 100.0 };
        assert!((control.next(0.2, 60.0, 100) - 0.24).abs() < 1e-12);
        assert!((control.next(0.2, 0.0, 50) - 0.18).abs() < 1e-12);
        assert!((control.next(0.2, 6.0, 50) - 0.2).abs() < 1e-12);
        assert_eq!(KlControl::Fixed.next(0.2, 60.0, 100), 0.2);
    }

    #[test]
    fn the_score_comes_with_the_last_token() {
        let rewards = token_rewards(&[-1.0, -2.0], &[-1.5, -1.0], 3.0, 0.1);
        assert!((rewards[0] + 0.05).abs() < 1e-9 && (rewards[1] - 3.1).abs() < 1e-9);
        assert!(token_rewards(&[], &[], 3.0, 0.1).is_empty());
    }
}
