//! Floor 0: the specification: every kernel as the papers write it, in naive f64. Read by tests alone; knows nothing of
//! instruction sets, tiles or pages.
//!
//! Operands are f64 so that a test chooses what the numbers were rounded to before. Matrices are dense and row-major.

use crate::act::Act;
use crate::norm::Norm;

#[cfg(feature = "train")]
pub mod back;

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

/// RMSNorm (Zhang and Sennrich 2019, eq. 4) or LayerNorm (Ba et al. 2016) of each row of `x [rows, n]`, plus
/// `add [rows, n]`.
#[must_use]
pub fn norm(
    x: &[f64],
    gain: &[f64],
    bias: Option<&[f64]>,
    eps: f64,
    kind: Norm,
    add: Option<&[f64]>,
) -> Vec<f64> {
    let n = gain.len();
    let mut out = Vec::with_capacity(x.len());
    for x in x.chunks_exact(n.max(1)) {
        let mean = if kind == Norm::Layer { x.iter().sum::<f64>() / n as f64 } else { 0.0 };
        let var = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64;
        let inv = 1.0 / (var + eps).sqrt();
        out.extend((0..n).map(|i| (x[i] - mean) * inv * gain[i] + bias.map_or(0.0, |b| b[i])));
    }
    for (out, add) in out.iter_mut().zip(add.unwrap_or_default()) {
        *out += add;
    }
    out
}

/// Rows `ids` of `tokens [_, n]` times `scale`, plus rows `of` of each `(table [_, n], of)`: `[rows, n]`.
#[must_use]
pub fn embed(tokens: &[f64], ids: &[u32], scale: f64, more: &[(&[f64], &[u32])], n: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(ids.len() * n);
    for (r, id) in ids.iter().enumerate() {
        for i in 0..n {
            let rest: f64 = more.iter().map(|(table, of)| table[of[r] as usize * n + i]).sum();
            out.push(tokens[*id as usize * n + i] * scale + rest);
        }
    }
    out
}

/// Rotary positions (Su et al. 2021, eq. 34) of one head `x [dim]` by the angles `[rot_dim / 2]`; what lies behind the
/// rotated part stays. `interleaved` turns neighbours (the paper), else element `i` with `i + rot_dim / 2`. Cosines and
/// sines are multiplied by `scale` (Peng et al. 2023, section 3.4).
#[must_use]
pub fn rope(x: &[f64], angles: &[f64], interleaved: bool, scale: f64) -> Vec<f64> {
    let mut out = x.to_vec();
    for (i, angle) in angles.iter().enumerate() {
        let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + angles.len()) };
        let (cos, sin) = (angle.cos() * scale, angle.sin() * scale);
        out[a] = x[a] * cos - x[b] * sin;
        out[b] = x[b] * cos + x[a] * sin;
    }
    out
}

/// Frequencies of YaRN (Peng et al. 2023, eq. 16 to 23, along pairs as the authors' program has it): `[rot_dim / 2]`.
/// `original` positions are those of the old context.
#[must_use]
pub fn yarn(
    theta: f64,
    rot_dim: usize,
    factor: f64,
    original: f64,
    [beta_fast, beta_slow]: [f64; 2],
    truncate: bool,
) -> Vec<f64> {
    let dim = rot_dim as f64;
    // Pair i turns original / (2 pi theta^(2i / dim)) times within the old context: the i that turns so often.
    let pair = |turns: f64| dim * (original / (turns * std::f64::consts::TAU)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    let frequency = |i: usize| {
        let freq = theta.powf(-2.0 * i as f64 / dim);
        let stretched = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        freq / factor * stretched + freq * (1.0 - stretched)
    };
    (0..rot_dim / 2).map(frequency).collect()
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

/// SiLU (Elfwing et al. 2017), GELU and its tanh and sigmoid forms (Hendrycks and Gimpel 2016), ReLU, tanh, a soft cap
/// (Gemma Team 2024), a factor.
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
        Act::Tanh => x.tanh(),
        Act::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Act::Cap(c) => f64::from(c) * (x / f64::from(c)).tanh(),
        Act::Scale(c) => x * f64::from(c),
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
/// of which it sees the positions `seen`; zeros where it sees none. Scores may be capped (Gemma Team 2024), then the bias
/// of a position is added.
#[must_use]
pub fn attend(
    q: &[f64],
    keys: &[f64],
    values: &[f64],
    seen: std::ops::Range<usize>,
    scale: f64,
    cap: Option<f64>,
    bias: impl Fn(usize) -> f64,
) -> Vec<f64> {
    let dim = q.len();
    let row = |x: &[f64], i: usize| x[i * dim..(i + 1) * dim].to_vec();
    let score = |i: usize| {
        let score = scale * q.iter().zip(row(keys, i)).map(|(q, k)| q * k).sum::<f64>();
        cap.map_or(score, |cap| cap * (score / cap).tanh()) + bias(i)
    };
    let scores: Vec<f64> = seen.clone().map(score).collect();
    let mut out = vec![0.0; dim];
    for (p, i) in softmax(&scores).iter().zip(seen) {
        for (out, v) in out.iter_mut().zip(row(values, i)) {
            *out += p * v;
        }
    }
    out
}

/// Positions that a query at `pos` sees of a sequence of `len`: those less than a window away. A causal one sees nothing
/// after itself.
#[must_use]
pub fn seen(pos: usize, len: usize, causal: bool, window: Option<usize>) -> std::ops::Range<usize> {
    let end = if causal { pos + 1 } else { len };
    let near = (0..end).filter(|at| window.is_none_or(|w| at.abs_diff(pos) < w));
    near.clone().min().map_or(0..0, |first| first..near.max().map_or(0, |last| last + 1))
}
