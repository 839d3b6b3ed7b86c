//! Floor 0: the specification: every kernel as the papers write it, in naive f64. Read by tests alone; knows nothing of
//! instruction sets, tiles or pages.
//!
//! Operands are f64 so that a test chooses what the numbers were rounded to before. Matrices are dense and row-major.

use crate::act::Act;
use crate::norm::Norm;

/// `x [rows, k]` times the transpose of `w [n, k]`, plus `bias [n]`, plus `add [rows, n]`: `[rows, n]`.
#[must_use]
pub fn linear(
    x: &[f64],
    w: &[f64],
    [rows, n, k]: [usize; 3],
    bias: Option<&[f64]>,
    add: Option<&[f64]>,
) -> Vec<f64> {
    let mut out = vec![0.0; rows * n];
    for r in 0..rows {
        for j in 0..n {
            let dot: f64 = (0..k).map(|i| x[r * k + i] * w[j * k + i]).sum();
            out[r * n + j] = dot + bias.map_or(0.0, |b| b[j]) + add.map_or(0.0, |a| a[r * n + j]);
        }
    }
    out
}

/// Activations as a linear with quantised weights reads them: of each 32 elements of `x` the largest magnitude stands for
/// 127, and every element for the nearest of the 255 steps.
#[must_use]
pub fn quantise(x: &[f32]) -> Vec<f64> {
    let blocks = x.chunks(32).flat_map(|x| {
        let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let (scale, inverse) = (most / 127.0, if most > 0.0 { 127.0 / most } else { 0.0 });
        x.iter().map(move |x| f64::from(scale) * (f64::from(*x) * f64::from(inverse)).round_ties_even())
    });
    blocks.collect()
}

/// RMSNorm (Zhang and Sennrich 2019, eq. 4) or LayerNorm (Ba et al. 2016) of each row of `x [rows, n]`.
#[must_use]
pub fn norm(x: &[f64], gain: &[f64], bias: Option<&[f64]>, eps: f64, kind: Norm) -> Vec<f64> {
    let n = gain.len();
    let mut out = Vec::with_capacity(x.len());
    for x in x.chunks_exact(n.max(1)) {
        let mean = if kind == Norm::Layer { x.iter().sum::<f64>() / n as f64 } else { 0.0 };
        let var = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64;
        let inv = 1.0 / (var + eps).sqrt();
        out.extend((0..n).map(|i| (x[i] - mean) * inv * gain[i] + bias.map_or(0.0, |b| b[i])));
    }
    out
}

/// Rotary positions (Su et al. 2021, eq. 34) of one head `x [dim]` by the angles `[rot_dim / 2]`; what lies behind the
/// rotated part stays. `interleaved` turns neighbours (the paper), else element `i` with `i + rot_dim / 2`.
#[must_use]
pub fn rope(x: &[f64], angles: &[f64], interleaved: bool) -> Vec<f64> {
    let mut out = x.to_vec();
    for (i, angle) in angles.iter().enumerate() {
        let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + angles.len()) };
        out[a] = x[a] * angle.cos() - x[b] * angle.sin();
        out[b] = x[b] * angle.cos() + x[a] * angle.sin();
    }
    out
}

/// erf by its Taylor series, and by the continued fraction of erfc (Abramowitz and Stegun 7.1.6, 7.1.14) where the
/// series would need many terms.
#[must_use]
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    let two_over_root_pi = std::f64::consts::FRAC_2_SQRT_PI;
    if a > 6.0 {
        return x.signum(); // 1 - erf(6) is below the last bit of 1
    }
    if a < 2.5 {
        // 2 / sqrt(pi) e^(-x^2) sum of 2^n x^(2n+1) / (2n+1)!!: all terms of one sign
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        return two_over_root_pi * (-x * x).exp() * sum;
    }
    let mut below = a;
    for n in (1..200).rev() {
        below = a + f64::from(n) / 2.0 / below;
    }
    let erfc = (-a * a).exp() / (below * std::f64::consts::PI.sqrt());
    x.signum() * (1.0 - erfc)
}

/// SiLU (Elfwing et al. 2017), GELU and its tanh form (Hendrycks and Gimpel 2016), ReLU.
#[must_use]
pub fn act(x: f64, kind: Act) -> f64 {
    match kind {
        Act::Silu => x / (1.0 + (-x).exp()),
        Act::GeluErf => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Act::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Act::Relu => x.max(0.0),
    }
}

/// Softmax of one row.
#[must_use]
pub fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

/// Log of the sum of exponentials of one row.
#[must_use]
pub fn lse(x: &[f64]) -> f64 {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

/// Softmax attention (Vaswani et al. 2017, eq. 1) of one query `q [dim]` over `keys [len, dim]`, `values [len, dim]`,
/// of which it sees the positions `seen`; zeros where it sees none.
#[must_use]
pub fn attend(q: &[f64], keys: &[f64], values: &[f64], seen: std::ops::Range<usize>, scale: f64) -> Vec<f64> {
    let dim = q.len();
    let row = |x: &[f64], i: usize| x[i * dim..(i + 1) * dim].to_vec();
    let scores: Vec<f64> =
        seen.clone().map(|i| scale * q.iter().zip(row(keys, i)).map(|(q, k)| q * k).sum::<f64>()).collect();
    let mut out = vec![0.0; dim];
    for (p, i) in softmax(&scores).iter().zip(seen) {
        for (out, v) in out.iter_mut().zip(row(values, i)) {
            *out += p * v;
        }
    }
    out
}

/// Positions that a query at `pos` of `len` sees. A window counts the query's own position.
#[must_use]
pub fn seen(pos: usize, len: usize, causal: bool, window: Option<usize>) -> std::ops::Range<usize> {
    let first = window.map_or(0, |w| (pos + 1).saturating_sub(w));
    first..if causal { pos + 1 } else { len }
}
