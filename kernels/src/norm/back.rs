//! Floor 0: gradients of norms. Mean and deviation are computed anew from x, with the bits they had. Knows nothing of
//! blocks and residuals.

use super::{Norm, filled, moments};
use crate::ops::per_isa;
use crate::plan::TileMut;
use crate::simd::{LANES, Simd};

per_isa! {
    /// dx `[rows, n]`, cut in pieces of n = the length of gain `[n]`: the gradient of a norm's x `[rows, n]`, dy `[rows, n]` being
    /// that of its output, plus `add [rows, n]`. With `h = (x - mean) * inv` and `g = dy * gain` it is
    /// `inv * (g - mean(g) - h * mean(g * h))` (Ba et al. 2016); for RMSNorm the means of x and g count as zero.
    pub fn norm_dx(dx: &mut TileMut, dy: &[f32], x: &[f32], gain: &[f32], eps: f32, kind: Norm, add: Option<&[f32]>) =
        dx_with as norm_dx_isa on scalar avx2;
}

#[inline(always)]
fn dx_with<S: Simd>(
    s: S,
    dx: &mut TileMut,
    dy: &[f32],
    x: &[f32],
    gain: &[f32],
    eps: f32,
    kind: Norm,
    add: Option<&[f32]>,
) {
    let n = gain.len();
    for r in dx.rows() {
        let (dy, x, dx) = (&dy[r * n..][..n], &x[r * n..][..n], &mut dx.row(r)[..n]);
        let (mean, inv) = moments(s, x, eps, kind);
        let [of_g, of_gh] = sums(s, dy, x, gain, [mean, inv]).map(|sum| sum / n as f32);
        let of_g = if kind == Norm::Layer { of_g } else { 0.0 };
        for i in 0..n {
            let h = (x[i] - mean) * inv;
            dx[i] = (dy[i] * gain[i] - of_g - h * of_gh) * inv;
        }
        if let Some(add) = add {
            for (dx, add) in dx.iter_mut().zip(&add[r * n..][..n]) {
                *dx += add;
            }
        }
    }
}

/// Sums of g and of g * h, over 16 lanes, then over the lanes.
#[inline(always)]
fn sums<S: Simd>(s: S, dy: &[f32], x: &[f32], gain: &[f32], [mean, inv]: [f32; 2]) -> [f32; 2] {
    let (dy, x, gain) = (dy.as_chunks::<LANES>(), x.as_chunks::<LANES>(), gain.as_chunks::<LANES>());
    // No gradient where there is no element.
    let last = [filled(dy.1, 0.0), filled(x.1, mean), filled(gain.1, 0.0)];
    let (mut of_g, mut of_gh) = (s.zero(), s.zero());
    for i in 0..=dy.0.len() {
        let [dy, x, gain] = if i < dy.0.len() { [&dy.0[i], &x.0[i], &gain.0[i]] } else { last.each_ref() };
        let h = s.mul(s.sub(s.load(x), s.splat(mean)), s.splat(inv));
        let g = s.mul(s.load(dy), s.load(gain));
        (of_g, of_gh) = (s.add(of_g, g), s.fma(g, h, of_gh));
    }
    [s.fold_sum(of_g), s.fold_sum(of_gh)]
}

per_isa! {
    /// dgain `[1, n]`, cut by columns: `+=` over the pieces of x and dy `[rows, n]`, in order, `dy * (x - mean) * inv`; and where
    /// the norm has a bias, dbias `[1, n]`, cut alike: `+= dy`.
    pub fn norm_dgain(dgain: &mut TileMut, dbias: Option<&mut TileMut>, dy: &[f32], x: &[f32], n: usize, eps: f32, kind: Norm) =
        dgain_with as norm_dgain_isa on scalar avx2;
}

#[inline(always)]
fn dgain_with<S: Simd>(
    s: S,
    dgain: &mut TileMut,
    dbias: Option<&mut TileMut>,
    dy: &[f32],
    x: &[f32],
    n: usize,
    eps: f32,
    kind: Norm,
) {
    let cols = dgain.cols();
    if cols.is_empty() {
        return;
    }
    let dgain = dgain.row(0);
    for (dy, x) in dy.chunks_exact(n).zip(x.chunks_exact(n)) {
        let (mean, inv) = moments(s, x, eps, kind);
        for ((dgain, dy), x) in dgain.iter_mut().zip(&dy[cols.clone()]).zip(&x[cols.clone()]) {
            *dgain += dy * ((x - mean) * inv);
        }
    }
    if let Some(dbias) = dbias {
        crate::linear::bias_db(dbias, dy, n);
    }
}
