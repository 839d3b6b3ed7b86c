//! Floor 5: losses: numbers of rows in, a value and its derivatives out. Host code over one number per row, so in f64; knows
//! no tensors. Sums run in the order of rows.

/// A loss and its derivatives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loss {
    /// Its value, in nats where it is a likelihood.
    pub value: f64,
    /// By log-probability of the target, mean log-probability and entropy of each row; or by each score.
    pub seeds: Vec<f32>,
    /// By what the value head said of each row.
    pub values: Vec<f32>,
}

/// Rows whose targets have a log-probability.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    /// Pairs of log-probability and log-sum-exp, as [`Learner::logprobs`](super::Learner::logprobs) returns them.
    pub logprobs: &'a [f32],
    /// The logits `[rows, n]`; read only where a loss needs the whole distribution.
    pub logits: &'a [f32],
}

impl Scored<'_> {
    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.logprobs.len() / 2
    }

    /// The log-probability of a row's target.
    #[must_use]
    pub fn logprob(&self, row: usize) -> f64 {
        f64::from(self.logprobs[2 * row])
    }

    fn lse(&self, row: usize) -> f64 {
        f64::from(self.logprobs[2 * row + 1])
    }

    fn row(&self, row: usize) -> &[f32] {
        let n = self.logits.len() / self.rows().max(1);
        &self.logits[row * n..(row + 1) * n]
    }

    /// The mean of a row's log-probabilities over all tokens.
    #[must_use]
    pub fn mean(&self, row: usize) -> f64 {
        let logits = self.row(row);
        logits.iter().map(|x| f64::from(*x)).sum::<f64>() / logits.len().max(1) as f64 - self.lse(row)
    }

    /// A row's entropy.
    #[must_use]
    pub fn entropy(&self, row: usize) -> f64 {
        let logprobs = self.row(row).iter().map(|x| f64::from(*x) - self.lse(row));
        -logprobs.map(|logprob| if logprob.is_finite() { logprob.exp() * logprob } else { 0.0 }).sum::<f64>()
    }
}

/// Cross-entropy of the targets: the sum over rows, over `total`, with `smoothing` of each row's weight spread evenly over all
/// tokens (Szegedy et al. 2016; Vaswani et al. 2017, section 5.4). `total` is the number of rows of all that is accumulated
/// before a step, so that the mean is one over all.
#[must_use]
pub fn cross_entropy(rows: Scored, smoothing: f32, total: f64) -> Loss {
    let (smoothing, share, mut loss) = (f64::from(smoothing), 1.0 / total, Loss::default());
    for row in 0..rows.rows() {
        loss.seeds.extend([-share * (1.0 - smoothing), -share * smoothing, 0.0].map(|seed| seed as f32));
        loss.value -= share * (1.0 - smoothing) * rows.logprob(row);
        if smoothing > 0.0 {
            loss.value -= share * smoothing * rows.mean(row);
        }
    }
    loss
}

/// `log(1 / (1 + exp(-x)))`, without overflow.
#[must_use]
pub fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// `1 / (1 + exp(-x))`
#[must_use]
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A reward model's loss on answers to one prompt, the best first: the mean over all pairs of `-log sigmoid(better - worse)`
/// (Ouyang et al. 2022, eq. 1; with two answers Stiennon et al. 2020), times `share`. Seeds are by each score.
#[must_use]
pub fn ranked(scores: &[f32], share: f64) -> Loss {
    let pairs = scores.len() * scores.len().saturating_sub(1) / 2;
    let share = share / pairs.max(1) as f64;
    let (mut value, mut by) = (0.0, vec![0.0_f64; scores.len()]);
    for better in 0..scores.len() {
        for worse in better + 1..scores.len() {
            let margin = f64::from(scores[better]) - f64::from(scores[worse]);
            value -= share * log_sigmoid(margin);
            let slope = -share * sigmoid(-margin);
            by[better] += slope;
            by[worse] -= slope;
        }
    }
    Loss { value, seeds: by.into_iter().map(|x| x as f32).collect(), values: Vec::new() }
}

/// What preference optimisation compares: the sums of an answer's log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preferred {
    /// Of the preferred answer: of the policy, and of the reference.
    pub chosen: [f64; 2],
    /// Of the other one.
    pub rejected: [f64; 2],
}

/// `-log sigmoid(beta * margin)` with the margin by which the policy prefers the chosen answer more than the reference does
/// (Rafailov et al. 2023, eq. 7). Returns the loss, its derivative by the policy's log-probability of the chosen answer (that
/// of the rejected one is its opposite), and the margin.
#[must_use]
pub fn dpo(of: Preferred, beta: f64) -> (f64, f64, f64) {
    let margin = (of.chosen[0] - of.chosen[1]) - (of.rejected[0] - of.rejected[1]);
    (-log_sigmoid(beta * margin), -beta * sigmoid(-beta * margin), margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The derivative by central differences.
    fn slope(mut f: impl FnMut(f64) -> f64) -> f64 {
        let h = 1e-5;
        (f(h) - f(-h)) / (2.0 * h)
    }

    #[test]
    fn derivatives_are_those_of_the_values() {
        let scores = [0.3_f32, -0.7, 1.1, 0.2];
        let loss = ranked(&scores, 0.5);
        for i in 0..scores.len() {
            let want = slope(|h| {
                let mut moved = scores.map(f64::from);
                moved[i] += h;
                let pairs = (0..4).flat_map(|a| (a + 1..4).map(move |b| (a, b)));
                pairs.map(|(a, b)| -log_sigmoid(moved[a] - moved[b])).sum::<f64>() * 0.5 / 6.0
            });
            assert!((f64::from(loss.seeds[i]) - want).abs() < 1e-6, "{} for {want}", loss.seeds[i]);
        }
        let of = Preferred { chosen: [-3.0, -3.5], rejected: [-4.0, -3.8] };
        let want = slope(|h| dpo(Preferred { chosen: [-3.0 + h, -3.5], ..of }, 0.1).0);
        assert!((dpo(of, 0.1).1 - want).abs() < 1e-8);
    }

    #[test]
    fn smoothing_is_spread_over_all_tokens() {
        let logits = [0.0_f32, 1.0, 2.0, 5.0, f32::NEG_INFINITY, 0.0];
        let lse = |row: &[f32]| row.iter().map(|x| x.exp()).sum::<f32>().ln();
        let pairs = [1.0 - lse(&logits[..3]), lse(&logits[..3]), 0.0 - lse(&logits[3..]), lse(&logits[3..])];
        let rows = Scored { logprobs: &pairs, logits: &logits };
        let one = Scored { logprobs: &pairs[..2], logits: &logits[..3] };
        let loss = cross_entropy(one, 0.1, 2.0);
        let want = -(0.9 * rows.logprob(0) + 0.1 * rows.mean(0)) / 2.0;
        assert!((loss.value - want).abs() < 1e-12);
        assert_eq!(loss.seeds, [-0.45, -0.05, 0.0]);
        assert!(rows.entropy(1).is_finite(), "a token that cannot be chosen adds nothing");
    }

    #[test]
    fn sigmoids_do_not_overflow() {
        assert_eq!(log_sigmoid(-1e4), -1e4);
        assert_eq!(log_sigmoid(1e4), 0.0);
        assert_eq!((sigmoid(-1e4), sigmoid(1e4)), (0.0, 1.0));
    }
}
