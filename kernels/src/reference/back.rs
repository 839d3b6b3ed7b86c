//! Floor 0: the specification of gradients, in naive f64, as the derivatives are written down. Read by tests alone; knows
//! nothing of instruction sets and tiles. Every function takes the gradient of an output first; `dy` is that of `y`.

use crate::act::Act;
use crate::norm::Norm;

/// Of `linear`'s x: `dy [rows, n] w [n, k]`, plus `add [rows, k]`: `[rows, k]`.
#[must_use]
pub fn linear_dx(dy: &[f64], w: &[f64], [rows, n, k]: [usize; 3], add: Option<&[f64]>) -> Vec<f64> {
    let dot = |r: usize, i: usize| (0..n).map(|j| dy[r * n + j] * w[j * k + i]).sum::<f64>();
    (0..rows * k).map(|at| dot(at / k, at % k) + add.map_or(0.0, |add| add[at])).collect()
}

/// Of `linear`'s w: the transpose of `dy [rows, n]` times `x [rows, k]`: `[n, k]`.
#[must_use]
pub fn linear_dw(dy: &[f64], x: &[f64], [rows, n, k]: [usize; 3]) -> Vec<f64> {
    let dot = |j: usize, i: usize| (0..rows).map(|r| dy[r * n + j] * x[r * k + i]).sum::<f64>();
    (0..n * k).map(|at| dot(at / k, at % k)).collect()
}

/// Sums of the columns of `dy [rows, n]`: of `linear`'s bias, and of a norm's.
#[must_use]
pub fn bias_db(dy: &[f64], n: usize) -> Vec<f64> {
    (0..n).map(|j| dy.iter().skip(j).step_by(n).sum()).collect()
}

/// Of the x and of the gain of [`norm`](super::norm): `[rows, n]` and `[n]`.
#[must_use]
pub fn norm(dy: &[f64], x: &[f64], gain: &[f64], eps: f64, kind: Norm) -> (Vec<f64>, Vec<f64>) {
    let n = gain.len();
    let (mut dx, mut dgain) = (Vec::new(), vec![0.0; n]);
    for (dy, x) in dy.chunks_exact(n).zip(x.chunks_exact(n)) {
        let average = |f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
        let layer = if kind == Norm::Layer { 1.0 } else { 0.0 };
        let mean = layer * average(&|i| x[i]);
        let inv = 1.0 / (average(&|i| (x[i] - mean) * (x[i] - mean)) + eps).sqrt();
        let (h, g) = (|i: usize| (x[i] - mean) * inv, |i: usize| dy[i] * gain[i]);
        let (of_g, of_gh) = (layer * average(&g), average(&|i| g(i) * h(i)));
        dx.extend((0..n).map(|i| inv * (g(i) - of_g - h(i) * of_gh)));
        (0..n).for_each(|i| dgain[i] += dy[i] * h(i));
    }
    (dx, dgain)
}

/// The slope of [`act`](super::act); 0 for ReLU at 0.
#[must_use]
pub fn act(x: f64, kind: Act) -> f64 {
    use std::f64::consts::{FRAC_1_SQRT_2, PI};
    let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
    match kind {
        Act::Silu => sigma(x) * (1.0 + x * (1.0 - sigma(x))),
        Act::QuickGelu => sigma(1.702 * x) * (1.0 + 1.702 * x * (1.0 - sigma(1.702 * x))),
        Act::GeluErf => {
            let density = (-x * x / 2.0).exp() / (2.0 * PI).sqrt();
            0.5 * (1.0 + super::erf(x * FRAC_1_SQRT_2)) + x * density
        }
        Act::GeluTanh => {
            let root = (2.0 / PI).sqrt();
            let t = (root * (x + 0.044715 * x * x * x)).tanh();
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * root * (1.0 + 3.0 * 0.044715 * x * x)
        }
        Act::Relu => f64::from(u8::from(x > 0.0)),
        Act::Tanh => 1.0 - x.tanh().powi(2),
        Act::Cap(c) => 1.0 - (x / f64::from(c)).tanh().powi(2),
        Act::Scale(c) => f64::from(c),
    }
}

/// Of the x of [`rope`](super::rope): turned back.
#[must_use]
pub fn rope(dy: &[f64], angles: &[f64], interleaved: bool, scale: f64) -> Vec<f64> {
    let back: Vec<f64> = angles.iter().map(|angle| -angle).collect();
    super::rope(dy, &back, interleaved, scale)
}

/// Mean log-probability over the vocabulary, and entropy, of one row of logits.
#[must_use]
pub fn logprob_stats(logits: &[f64]) -> [f64; 2] {
    let lse = super::lse(logits);
    let entropy = logits.iter().map(|x| -(x - lse).exp() * (x - lse)).sum();
    [logits.iter().map(|x| x - lse).sum::<f64>() / logits.len() as f64, entropy]
}

/// Of one row of logits, where the target's log-probability, the mean one and the entropy have the weights `seeds`.
#[must_use]
pub fn logprob(logits: &[f64], target: usize, seeds: [f64; 3]) -> Vec<f64> {
    let (lse, [_, entropy]) = (super::lse(logits), logprob_stats(logits));
    let of = |i: usize| {
        let (log, p) = (logits[i] - lse, (logits[i] - lse).exp());
        let hit = f64::from(u8::from(i == target));
        let mean = 1.0 / logits.len() as f64;
        seeds[0] * (hit - p) + seeds[1] * (mean - p) - seeds[2] * p * (log + entropy)
    };
    (0..logits.len()).map(of).collect()
}

/// Of one query of [`attend`](super::attend), `dout [dim]` being the gradient of its output.
pub struct Attended {
    /// Weights of the positions seen: `[seen]`.
    pub p: Vec<f64>,
    /// Gradients of their scores, capped and biased: those of the biases.
    pub dbias: Vec<f64>,
    /// The same of raw scores.
    pub dscores: Vec<f64>,
    /// Of the query: `[dim]`.
    pub dq: Vec<f64>,
    /// Of the keys and values seen: `[seen, dim]`.
    pub dk: Vec<f64>,
    /// See `dk`.
    pub dv: Vec<f64>,
}

/// The gradients of one query of [`attend`](super::attend), which is called alike.
#[must_use]
pub fn attend(
    dout: &[f64],
    [q, keys, values]: [&[f64]; 3],
    seen: std::ops::Range<usize>,
    scale: f64,
    cap: Option<f64>,
    bias: impl Fn(usize) -> f64,
) -> Attended {
    let dim = q.len();
    let dot = |a: &[f64], b: &[f64], i: usize| {
        a.iter().zip(&b[i * dim..(i + 1) * dim]).map(|(a, b)| a * b).sum::<f64>()
    };
    let raw: Vec<f64> = seen.clone().map(|i| scale * dot(q, keys, i)).collect();
    let capped = raw.iter().map(|x| cap.map_or(*x, |cap| cap * (x / cap).tanh()));
    let p = super::softmax(&capped.zip(seen.clone()).map(|(x, i)| x + bias(i)).collect::<Vec<_>>());
    let dp: Vec<f64> = seen.clone().map(|i| dot(dout, values, i)).collect();
    let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
    let dbias: Vec<f64> = p.iter().zip(&dp).map(|(p, dp)| p * (dp - delta)).collect();
    let slope = |x: &f64| cap.map_or(1.0, |cap| 1.0 - (x / cap).tanh().powi(2));
    let dscores: Vec<f64> = dbias.iter().zip(&raw).map(|(d, x)| d * slope(x) * scale).collect();
    let pairs = || dscores.iter().zip(seen.clone());
    let dq = (0..dim).map(|d| pairs().map(|(ds, i)| ds * keys[i * dim + d]).sum()).collect();
    let dk = dscores.iter().flat_map(|ds| q.iter().map(move |q| ds * q)).collect();
    let dv = p.iter().flat_map(|p| dout.iter().map(move |dout| p * dout)).collect();
    Attended { p, dbias, dscores, dq, dk, dv }
}

/// A step of AdamW: parameter, mean of gradients, mean of their squares. Rates as in
/// [`AdamW`](crate::optim::AdamW).
#[must_use]
pub fn adamw([p, m, v]: [f64; 3], g: f64, step: &crate::optim::AdamW) -> [f64; 3] {
    let [lr, eps, decay] = [step.lr, step.eps, step.decay].map(f64::from);
    let ([beta, beta2], [c, c2]) = (step.betas.map(f64::from), step.corrections.map(f64::from));
    let g = g * f64::from(step.scale);
    let (m, v) = (m * beta + g * (1.0 - beta), v * beta2 + g * g * (1.0 - beta2));
    [p - lr * decay * p - lr * (m / c) / ((v / c2).sqrt() + eps), m, v]
}
