//! Floor 0: activations, alone or as the gate of another product. Knows nothing of the matrices around them.

#[cfg(feature = "train")]
mod back;

#[cfg(feature = "train")]
pub use back::act_bwd_isa;

use crate::math::{erf, exp, tanh};
use crate::norm::filled;
use crate::ops::{Ops, per_isa};
use crate::plan::TileMut;
use crate::simd::{LANES, Simd};

/// Which activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// `x / (1 + exp(-x))` (Elfwing et al. 2017).
    Silu,
    /// `x / 2 * (1 + erf(x / sqrt(2)))` (Hendrycks and Gimpel 2016).
    GeluErf,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`, the same paper's approximation.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `tanh(x)`.
    Tanh,
    /// `x / (1 + exp(-1.702 x))`, the sigmoid approximation of Hendrycks and Gimpel 2016.
    QuickGelu,
    /// `c * tanh(x / c)` (Gemma Team 2024).
    Cap(f32),
    /// `c * x`.
    Scale(f32),
}

impl Ops {
    /// out `[rows, n]`, cut by columns: `act(x) * up`, or `act(x)`; x, up `[rows, n]`.
    pub fn act(&self, out: &mut TileMut, x: &[f32], up: Option<&[f32]>, n: usize, kind: Act) {
        for r in out.rows() {
            let cols = r * n + out.cols().start..r * n + out.cols().end;
            let out = out.row(r);
            out.copy_from_slice(&x[cols.clone()]);
            (self.apply)(out, kind);
            if let Some(up) = up {
                for (out, up) in out.iter_mut().zip(&up[cols]) {
                    *out *= up;
                }
            }
        }
    }
}

per_isa! {
    /// `act(x)` of every element.
    pub fn apply(x: &mut [f32], kind: Act) = apply_with as act_isa;
}

#[inline(always)]
fn apply_with<S: Simd>(s: S, x: &mut [f32], kind: Act) {
    match kind {
        Act::Silu => each(s, x, Act::Silu),
        Act::GeluErf => each(s, x, Act::GeluErf),
        Act::GeluTanh => each(s, x, Act::GeluTanh),
        Act::Relu => each(s, x, Act::Relu),
        Act::QuickGelu => each(s, x, Act::QuickGelu),
        // A cap of 1 has the bits of tanh: one loop for both.
        Act::Tanh | Act::Cap(_) => each(s, x, Act::Cap(if let Act::Cap(c) = kind { c } else { 1.0 })),
        Act::Scale(c) => each(s, x, Act::Scale(c)),
    }
}

/// The activation of every element. `kind` is a constant wherever this is inlined, so that the loops do not branch; a
/// function passed in would not be inlined for sure, and would then lose the instruction set.
#[inline(always)]
fn each<S: Simd>(s: S, x: &mut [f32], kind: Act) {
    let (whole, tail) = x.as_chunks_mut::<LANES>();
    let mut rest = filled(tail, 0.0);
    // What is left over goes the way of the others, for the computation is long.
    let rest_of = if tail.is_empty() { None } else { Some(&mut rest) };
    for x in whole.iter_mut().chain(rest_of) {
        s.store(value(s, s.load(x), kind), x);
    }
    tail.copy_from_slice(&rest[..tail.len()]);
}

#[inline(always)]
fn value<S: Simd>(s: S, x: S::V, kind: Act) -> S::V {
    match kind {
        Act::Silu => silu(s, x),
        Act::GeluErf => gelu_erf(s, x),
        Act::GeluTanh => gelu_tanh(s, x),
        Act::Relu => relu(s, x),
        Act::Tanh => tanh(s, x),
        Act::QuickGelu => quick_gelu(s, x),
        Act::Cap(c) => s.mul(tanh(s, s.div(x, s.splat(c))), s.splat(c)),
        Act::Scale(c) => s.mul(x, s.splat(c)),
    }
}

#[inline(always)]
fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    s.div(x, s.add(s.splat(1.0), exp(s, s.sub(s.zero(), x))))
}

#[inline(always)]
fn quick_gelu<S: Simd>(s: S, x: S::V) -> S::V {
    s.div(x, s.add(s.splat(1.0), exp(s, s.mul(x, s.splat(-1.702)))))
}

#[inline(always)]
fn gelu_erf<S: Simd>(s: S, x: S::V) -> S::V {
    let y = erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    s.mul(s.mul(x, s.splat(0.5)), s.add(s.splat(1.0), y))
}

#[inline(always)]
fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    const ROOT_2_OVER_PI: f32 = 0.797_884_6;
    let cube = s.mul(s.mul(x, x), x);
    let inner = s.mul(s.fma(s.splat(0.044_715), cube, x), s.splat(ROOT_2_OVER_PI));
    s.mul(s.mul(x, s.splat(0.5)), s.add(s.splat(1.0), tanh(s, inner)))
}

#[inline(always)]
fn relu<S: Simd>(s: S, x: S::V) -> S::V {
    s.max(x, s.zero())
}
