//! Floor 0: a panel of rows against one chunk, on the way back: the tiles of attention itself, and between them what
//! becomes of scores. Each piece is compiled once for a set. Knows no sequences.

use crate::attention::cache::F32;
use crate::attention::tile::{INDEX, ROWS, To, scores, weigh};
use crate::attention::{MAX_DIM, PAGE};
use crate::math::{exp_below, tanh};
use crate::simd::{Apart, LANES, Simd, times};
use std::ops::Range;

/// Rows of a panel: those of the largest tile, but for plain Rust, which takes them one by one.
pub const fn panel<S: Simd>() -> usize {
    if S::REGISTERS < 16 { 1 } else { ROWS }
}

/// Products of a panel `own [dim][panel]` and the rows `run` of a chunk `[dim][PAGE]`, and some around them.
pub struct Products<'a> {
    pub out: &'a mut [[f32; PAGE]; ROWS],
    pub own: &'a [f32],
    pub turned: &'a [f32],
    pub run: &'a Range<usize>,
}

impl<S: Simd> Apart<S> for Products<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let chunk = bytemuck::cast_slice(self.turned);
        if const { panel::<S>() == 1 } {
            scores::<S, F32, 1>(s, self.out, self.own, chunk, self.run, 0);
        } else {
            scores::<S, F32, ROWS>(s, self.out, self.own, chunk, self.run, 0);
        }
    }
}

/// Rows `run` of a chunk `[PAGE][width]`, weighed by a panel's `p`, on top of `acc`.
pub struct Sums<'a> {
    pub acc: &'a mut [[f32; MAX_DIM]],
    pub p: &'a [[f32; PAGE]; ROWS],
    pub plain: &'a [f32],
    pub run: &'a Range<usize>,
}

impl<S: Simd> Apart<S> for Sums<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let chunk = bytemuck::cast_slice(self.plain);
        if const { panel::<S>() == 1 } {
            weigh::<S, F32, 1>(s, To::Onto(self.acc), self.p, chunk, self.run, 0);
        } else {
            weigh::<S, F32, ROWS>(s, To::Onto(self.acc), self.p, chunk, self.run, 0);
        }
    }
}

/// Largest score, one over the sum of weights, and delta: of the one query that a row is, or of each query of the chunk.
pub enum Stats<'a> {
    One([f32; 3]),
    Each(&'a [[f32; PAGE]; 3]),
}

/// One row's scores become weights, and the gradients of its weights those of raw scores, but for `scale`.
pub struct Soft<'a> {
    pub p: &'a mut [f32; PAGE],
    pub d: &'a mut [f32; PAGE],
    /// What is read afterwards, and the part of it that the row sees: the rest becomes zero.
    pub run: &'a Range<usize>,
    pub own: &'a Range<usize>,
    pub stats: Stats<'a>,
    pub scale: f32,
    pub cap: Option<f32>,
    /// What is added after the cap: numbers and their factor.
    pub bias: Option<(f32, &'a [f32; PAGE])>,
    /// Whether the gradients wanted are those of scores after the cap.
    pub capped: bool,
}

impl<S: Simd> Apart<S> for Soft<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let (scale, one) = (s.splat(self.scale), s.splat(1.0));
        let (from, to) = (s.splat(self.own.start as f32), s.splat(self.own.end as f32));
        for z in 0..times::<S>(PAGE / LANES) {
            let at = z * LANES;
            if self.run.start >= at + LANES || at >= self.run.end {
                continue; // nothing of it is read
            }
            let [max, inv, delta] = match &self.stats {
                Stats::One(x) => [s.splat(x[0]), s.splat(x[1]), s.splat(x[2])],
                Stats::Each(x) => [s.load(&x[0][at..]), s.load(&x[1][at..]), s.load(&x[2][at..])],
            };
            let (mut x, mut slope) = (s.mul(s.load(&self.p[at..]), scale), one);
            if let Some(cap) = self.cap {
                let t = tanh(s, s.div(x, s.splat(cap)));
                x = s.mul(t, s.splat(cap));
                slope = if self.capped { one } else { s.sub(one, s.mul(t, t)) };
            }
            if let Some((factor, bias)) = self.bias {
                x = s.fma(s.splat(factor), s.load(&bias[at..]), x);
            }
            let mut p = s.mul(exp_below(s, s.sub(x, max)), inv);
            let mut d = s.mul(s.mul(p, s.sub(s.load(&self.d[at..]), delta)), slope);
            if self.own.start > at || self.own.end < at + LANES {
                let lane = s.add(s.load(&INDEX), s.splat(at as f32));
                let (before, within) = (s.lt(lane, from), s.lt(lane, to));
                p = s.select(within, s.select(before, s.zero(), p), s.zero());
                d = s.select(within, s.select(before, s.zero(), d), s.zero());
            }
            s.store(p, &mut self.p[at..]);
            s.store(d, &mut self.d[at..]);
        }
    }
}

/// Sixteen elements of sixteen rows, `stride` elements apart, to `out [16][PAGE]`, rows and elements exchanged.
pub struct Turn<'a> {
    pub out: &'a mut [f32],
    pub x: &'a [f32],
    pub stride: usize,
}

impl<S: Simd> Apart<S> for Turn<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        s.lines::<LANES>(bytemuck::cast_slice(self.x), 4 * self.stride, self.out, PAGE);
    }
}
