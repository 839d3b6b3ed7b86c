//! Floor 0: what an optimiser does to parameters, element by element, and the sum of squares of a gradient in a fixed order.
//! Plain operations, each rounded: the same bits on every machine and however the elements are shared. Knows no schedules.

use crate::ops::per_isa;
use crate::plan::TileMut;
use crate::simd::{LANES, Simd};

/// Elements of a gradient whose squares are summed in f32.
pub const BLOCK: usize = 4096;

/// A step of AdamW (Loshchilov and Hutter 2019, alg. 2), as PyTorch does it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the mean of gradients, and of that of their squares.
    pub betas: [f32; 2],
    /// Added to the root of the corrected mean of squares.
    pub eps: f32,
    /// Weight decay, apart from the gradient.
    pub decay: f32,
    /// What the gradient is multiplied by first, as clipping wants it.
    pub scale: f32,
    /// `1 - beta^t` of both betas, t the number of this step, from 1 on: see [`AdamW::corrections`].
    pub corrections: [f32; 2],
}

impl AdamW {
    /// [`AdamW::corrections`](#structfield.corrections) of step `t`, the first one being 1.
    #[must_use]
    pub fn corrections(betas: [f32; 2], t: u32) -> [f32; 2] {
        betas.map(|beta| (1.0 - libm::pow(f64::from(beta), f64::from(t))) as f32)
    }
}

/// A step of gradient descent, with momentum where there is memory for it (Sutskever et al. 2013), as PyTorch does it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate of this step.
    pub lr: f32,
    /// What the sum of gradients so far is multiplied by.
    pub momentum: f32,
    /// Weight decay, a part of the gradient.
    pub decay: f32,
    /// What the gradient is multiplied by first.
    pub scale: f32,
}

per_isa! {
    /// param, mean and square `[rows, cols]`, cut alike, by columns or in pieces, become those after a step with the gradient
    /// `grad [rows * cols]`.
    ///
    /// Panics where the sizes do not fit.
    pub fn adamw(param: &mut TileMut, mean: &mut TileMut, square: &mut TileMut, grad: &[f32], step: &AdamW) =
        adamw_with as adamw_isa on scalar avx2;
}

#[inline(always)]
fn adamw_with<S: Simd>(
    _: S,
    param: &mut TileMut,
    mean: &mut TileMut,
    square: &mut TileMut,
    grad: &[f32],
    step: &AdamW,
) {
    let ([beta, beta2], keep) = (step.betas, 1.0 - step.lr * step.decay);
    let (size, root) = (step.lr / step.corrections[0], step.corrections[1].sqrt());
    let stride = param.stride();
    for r in param.rows() {
        let at = r * stride + param.cols().start;
        let (p, m, v) = (param.row(r), mean.row(r), square.row(r));
        let (n, g) = (p.len(), &grad[at..]);
        let (p, m, v, g) = (&mut p[..n], &mut m[..n], &mut v[..n], &g[..n]);
        for i in 0..n {
            let g = g[i] * step.scale;
            m[i] += (g - m[i]) * (1.0 - beta);
            v[i] = v[i] * beta2 + g * g * (1.0 - beta2);
            p[i] = p[i] * keep - size * (m[i] / (v[i].sqrt() / root + step.eps));
        }
    }
}

per_isa! {
    /// param `[rows, cols]`, and where it is given the sum of gradients so far, cut alike, by columns or in pieces, become
    /// those after a step with the gradient `grad [rows * cols]`.
    ///
    /// Panics where the sizes do not fit.
    pub fn sgd(param: &mut TileMut, sum: Option<&mut TileMut>, grad: &[f32], step: &Sgd) =
        sgd_with as sgd_isa on scalar avx2;
}

#[inline(always)]
fn sgd_with<S: Simd>(_: S, param: &mut TileMut, mut sum: Option<&mut TileMut>, grad: &[f32], step: &Sgd) {
    let stride = param.stride();
    for r in param.rows() {
        let at = r * stride + param.cols().start;
        let p = param.row(r);
        let (n, g) = (p.len(), &grad[at..]);
        let (p, g) = (&mut p[..n], &g[..n]);
        if let Some(sum) = &mut sum {
            let b = &mut sum.row(r)[..n];
            for i in 0..n {
                b[i] = b[i] * step.momentum + (g[i] * step.scale + p[i] * step.decay);
                p[i] -= step.lr * b[i];
            }
        } else {
            for i in 0..n {
                p[i] -= step.lr * (g[i] * step.scale + p[i] * step.decay);
            }
        }
    }
}

per_isa! {
    /// out `[blocks, 1]`, cut in pieces of 1: of each [`BLOCK`] elements of x the sum of squares, over 16 lanes, then over the
    /// lanes. [`total`] adds them up.
    ///
    /// Panics where there are fewer elements than blocks.
    pub fn squares(out: &mut TileMut, x: &[f32]) = squares_with as squares_isa on scalar avx2;
}

#[inline(always)]
fn squares_with<S: Simd>(s: S, out: &mut TileMut, x: &[f32]) {
    for b in out.rows() {
        let x = &x[b * BLOCK..];
        let (whole, tail) = x[..x.len().min(BLOCK)].as_chunks::<LANES>();
        let mut acc = s.zero();
        for x in whole {
            let x = s.load(x);
            acc = s.fma(x, x, acc);
        }
        let last = s.load(&crate::norm::filled(tail, 0.0));
        out.row(b)[0] = s.fold_sum(s.fma(last, last, acc));
    }
}

/// Blocks of [`squares`](squares_isa) of `n` elements.
#[must_use]
pub fn blocks(n: usize) -> usize {
    n.div_ceil(BLOCK)
}

/// The sum of what [`squares`](squares_isa) made of the blocks of one gradient or several, in order.
#[must_use]
pub fn total(blocks: &[f32]) -> f64 {
    blocks.iter().map(|x| f64::from(*x)).sum()
}
