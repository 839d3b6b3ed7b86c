//! Floor 0: RMSNorm and LayerNorm of rows. Knows nothing of blocks and residuals.

#[cfg(feature = "train")]
mod back;

#[cfg(feature = "train")]
pub use back::{norm_dgain_isa, norm_dx_isa};

use crate::ops::per_isa;
use crate::plan::TileMut;
use crate::simd::{LANES, Simd};

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Over the root of the mean square (Zhang and Sennrich 2019).
    Rms,
    /// Over the standard deviation, about the mean (Ba et al. 2016).
    Layer,
}

per_isa! {
    /// out `[rows, n]`, cut in pieces of n: `(x - mean) / sqrt(var + eps) * gain + bias + add`, n = the length of gain
    /// `[n]`; for RMSNorm the mean counts as zero. bias `[n]`; add `[rows, n]`. A row may be a head of a longer one.
    pub fn norm(out: &mut TileMut, x: &[f32], gain: &[f32], bias: Option<&[f32]>, eps: f32, kind: Norm, add: Option<&[f32]>) = norm_with as norm_isa on scalar avx2;
}

#[inline(always)]
fn norm_with<S: Simd>(
    s: S,
    out: &mut TileMut,
    x: &[f32],
    gain: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
    kind: Norm,
    add: Option<&[f32]>,
) {
    let n = gain.len();
    for r in out.rows() {
        let x = &x[r * n..][..n];
        let (mean, inv) = moments(s, x, eps, kind);
        let out = &mut out.row(r)[..n];
        for i in 0..n {
            out[i] = (x[i] - mean) * inv * gain[i];
        }
        if let Some(bias) = bias {
            for (out, bias) in out.iter_mut().zip(bias) {
                *out += bias;
            }
        }
        if let Some(add) = add {
            for (out, add) in out.iter_mut().zip(&add[r * n..][..n]) {
                *out += add;
            }
        }
    }
}

/// What is subtracted from the elements of a row, and what they are multiplied by then.
#[inline(always)]
fn moments<S: Simd>(s: S, x: &[f32], eps: f32, kind: Norm) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = if kind == Norm::Layer { sum(s, x) / n } else { 0.0 };
    (mean, 1.0 / (squares(s, x, mean) / n + eps).sqrt())
}

/// Sum over 16 lanes, then over the lanes.
#[inline(always)]
fn sum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (whole, tail) = x.as_chunks::<LANES>();
    let mut acc = s.zero();
    for x in whole {
        acc = s.add(acc, s.load(x));
    }
    s.fold_sum(s.add(acc, s.load(&filled(tail, 0.0))))
}

/// Sum of squared distances from `mean`, over 16 lanes, then over the lanes.
#[inline(always)]
fn squares<S: Simd>(s: S, x: &[f32], mean: f32) -> f32 {
    let (whole, tail) = x.as_chunks::<LANES>();
    let (mut acc, center) = (s.zero(), s.splat(mean));
    for x in whole {
        let d = s.sub(s.load(x), center);
        acc = s.fma(d, d, acc);
    }
    let d = s.sub(s.load(&filled(tail, mean)), center); // no distance where there is no element
    s.fold_sum(s.fma(d, d, acc))
}

/// A vector that ends early, filled up.
#[inline(always)]
pub(crate) fn filled(tail: &[f32], with: f32) -> [f32; LANES] {
    let mut all = [with; LANES];
    for (all, x) in all.iter_mut().zip(tail) {
        *all = *x;
    }
    all
}
