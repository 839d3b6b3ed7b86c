//! Floor 0: gradients of activations, alone or as the gate of another product. Knows nothing of the matrices around them.

use super::{Act, value};
use crate::math::{erf, exp, exp_below, tanh};
use crate::norm::filled;
use crate::ops::per_isa;
use crate::plan::TileMut;
use crate::simd::{LANES, Simd};

per_isa! {
    /// dx `[rows, n]`, cut by columns: `dy * up * act'(x)`, or `dy * act'(x)`; and dup `[rows, n]`, cut alike: `dy * act(x)`,
    /// where it is wanted. dy, x, up `[rows, n]`. At 0, the slope of ReLU is 0.
    pub fn act_bwd(dx: &mut TileMut, dup: Option<&mut TileMut>, dy: &[f32], x: &[f32], up: Option<&[f32]>, n: usize, kind: Act) =
        act_bwd_with as act_bwd_isa on scalar avx2;
}

#[inline(always)]
fn act_bwd_with<S: Simd>(
    s: S,
    dx: &mut TileMut,
    mut dup: Option<&mut TileMut>,
    dy: &[f32],
    x: &[f32],
    up: Option<&[f32]>,
    n: usize,
    kind: Act,
) {
    for r in dx.rows() {
        let cols = r * n + dx.cols().start..r * n + dx.cols().end;
        let row = Row { dy: &dy[cols.clone()], x: &x[cols.clone()], up: up.map(|up| &up[cols.clone()]) };
        let (dx, dup) = (dx.row(r), dup.as_mut().map(|dup| dup.row(r)));
        row.each(s, dx, dup, kind);
    }
}

/// A worker's columns of one row.
struct Row<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    up: Option<&'a [f32]>,
}

impl Row<'_> {
    /// Every element. What to compute is asked for each sixteen, which costs little beside it: one loop for all kinds.
    #[inline(always)]
    fn each<S: Simd>(&self, s: S, dx: &mut [f32], mut dup: Option<&mut [f32]>, kind: Act) {
        for at in (0..self.x.len()).step_by(LANES) {
            let dy = self.lanes(s, self.dy, at);
            let x = self.lanes(s, self.x, at);
            if let Some(dup) = &mut dup {
                put(s, dup, at, s.mul(dy, value(s, x, kind)));
            }
            let dy = if let Some(up) = self.up { s.mul(dy, self.lanes(s, up, at)) } else { dy };
            put(s, dx, at, s.mul(dy, slope(s, x, kind)));
        }
    }

    /// Sixteen elements, with zeros for those that do not exist.
    #[inline(always)]
    fn lanes<S: Simd>(&self, s: S, x: &[f32], at: usize) -> S::V {
        if at + LANES <= x.len() { s.load(&x[at..]) } else { s.load(&filled(&x[at..], 0.0)) }
    }
}

/// Those of sixteen elements that exist.
#[inline(always)]
fn put<S: Simd>(s: S, out: &mut [f32], at: usize, x: S::V) {
    if at + LANES <= out.len() {
        s.store(x, &mut out[at..]);
    } else {
        let mut lanes = [0.0; LANES];
        s.store(x, &mut lanes);
        let rest = &mut out[at..];
        rest.copy_from_slice(&lanes[..rest.len()]);
    }
}

/// act'(x)
#[inline(always)]
fn slope<S: Simd>(s: S, x: S::V, kind: Act) -> S::V {
    let (zero, one) = (s.zero(), s.splat(1.0));
    match kind {
        Act::Silu => logistic(s, x, 1.0),
        Act::QuickGelu => logistic(s, x, 1.702),
        Act::GeluErf => gelu_erf(s, x),
        Act::GeluTanh => gelu_tanh(s, x),
        Act::Relu => s.select(s.lt(zero, x), one, zero),
        Act::Tanh => slope(s, x, Act::Cap(1.0)),
        Act::Cap(c) => {
            let t = tanh(s, s.div(x, s.splat(c)));
            s.sub(one, s.mul(t, t))
        }
        Act::Scale(c) => s.splat(c),
    }
}

/// x, no further from zero than `far`: beyond that a slope is 0 or 1, and nothing is to overflow.
#[inline(always)]
fn near<S: Simd>(s: S, x: S::V, far: f32) -> S::V {
    let far = s.splat(far);
    s.select(s.lt(far, s.copysign(x, s.splat(1.0))), s.copysign(far, x), x)
}

/// Of `x * sigma(a x)`: `sigma * (1 + a x (1 - sigma))`.
#[inline(always)]
fn logistic<S: Simd>(s: S, x: S::V, a: f32) -> S::V {
    let (one, ax) = (s.splat(1.0), near(s, s.mul(x, s.splat(a)), 100.0));
    let sigma = s.div(one, s.add(one, exp(s, s.sub(s.zero(), ax))));
    s.mul(sigma, s.fma(ax, s.sub(one, sigma), one))
}

/// Beyond this, either way, the slopes of both GELU are 0 or 1 in f32.
const FAR: f32 = 14.0;

/// The normal distribution's share below x, and x times its density there.
#[inline(always)]
fn gelu_erf<S: Simd>(s: S, x: S::V) -> S::V {
    const ONE_OVER_ROOT_2_PI: f32 = 0.398_942_3;
    let (x, half) = (near(s, x, FAR), s.splat(0.5));
    let share = s.fma(erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), half, half);
    let density = exp_below(s, s.mul(s.mul(x, x), s.splat(-0.5)));
    s.fma(s.mul(x, s.splat(ONE_OVER_ROOT_2_PI)), density, share)
}

/// With u the argument of tanh: `(1 + t) / 2 + x / 2 * (1 - t^2) * u'`.
#[inline(always)]
fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    const ROOT_2_OVER_PI: f32 = 0.797_884_6;
    let (x, half, one) = (near(s, x, FAR), s.splat(0.5), s.splat(1.0));
    let square = s.mul(x, x);
    let inner = s.mul(s.fma(s.splat(0.044_715), s.mul(square, x), x), s.splat(ROOT_2_OVER_PI));
    let t = tanh(s, inner);
    let of_inner = s.mul(s.fma(s.splat(3.0 * 0.044_715), square, one), s.splat(ROOT_2_OVER_PI));
    let rest = s.mul(s.mul(s.mul(x, half), s.sub(one, s.mul(t, t))), of_inner);
    s.add(s.fma(t, half, half), rest)
}
