//! Floor 0: what choosing a token from a long row of logits needs: largest elements and weights, by blocks. Knows nothing
//! of samplers.
//!
//! A row is worked on in blocks of [`BLOCK`]: with the largest element (or the sum) of each, what is looked for is found in
//! a few blocks, and the row need not be sorted or walked through.

use crate::math::exp;
use crate::norm::filled;
use crate::ops::per_isa;
use crate::simd::{LANES, Simd};

/// Elements of a block: so many that folding lanes costs little beside them, so few that looking through one does too.
pub const BLOCK: usize = 128;

per_isa! {
    /// `out[b]`: the largest element of block `b` of `x`, NaN left out; minus infinity where there is none.
    ///
    /// Panics where `out` has fewer than `x.len() / BLOCK` elements, rounded up.
    pub fn block_max(out: &mut [f32], x: &[f32]) = block_max_with as block_max_isa on scalar avx2;
}

per_isa! {
    /// out `[x.len()]`: `exp((x - max) / temperature)`, and 0 of NaN; `maxima[b]` and `sums[b]`: the largest element and the
    /// sum of block `b`, in 16 lanes and by one fold tree. `max` is finite and no element is larger.
    ///
    /// Panics where `out` has another length, or `maxima` or `sums` has fewer than `x.len() / BLOCK` elements, rounded up.
    pub fn weigh(out: &mut [f32], x: &[f32], max: f32, temperature: f32, maxima: &mut [f32], sums: &mut [f32]) = weigh_with as weigh_isa on scalar avx2;
}

#[inline(always)]
fn block_max_with<S: Simd>(s: S, out: &mut [f32], x: &[f32]) {
    for (x, out) in x.chunks(BLOCK).zip(out[..x.len().div_ceil(BLOCK)].iter_mut()) {
        let (whole, tail) = x.as_chunks::<LANES>();
        let none = s.splat(f32::NEG_INFINITY);
        let mut acc = s.max(s.load(&filled(tail, f32::NEG_INFINITY)), none);
        for x in whole {
            acc = s.max(s.load(x), acc);
        }
        *out = s.fold_max(acc);
    }
}

#[inline(always)]
fn weigh_with<S: Simd>(
    s: S,
    out: &mut [f32],
    x: &[f32],
    max: f32,
    temperature: f32,
    maxima: &mut [f32],
    sums: &mut [f32],
) {
    assert_eq!(out.len(), x.len(), "a weight for each element");
    let blocks = x.len().div_ceil(BLOCK);
    let (base, by) = (s.splat(max), s.splat(temperature));
    let totals = maxima[..blocks].iter_mut().zip(sums[..blocks].iter_mut());
    for ((out, x), (maximum, sum)) in out.chunks_mut(BLOCK).zip(x.chunks(BLOCK)).zip(totals) {
        let (mut most, mut acc) = (s.zero(), s.zero());
        let ((whole, tail), (out, end)) = (x.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
        for (x, out) in whole.iter().zip(out) {
            let w = weight(s, s.div(s.sub(s.load(x), base), by));
            s.store(w, out);
            (most, acc) = (s.max(w, most), s.add(acc, w));
        }
        if !tail.is_empty() {
            let mut last = filled(tail, f32::NEG_INFINITY);
            let w = weight(s, s.div(s.sub(s.load(&last), base), by));
            s.store(w, &mut last);
            end.copy_from_slice(&last[..end.len()]);
            (most, acc) = (s.max(w, most), s.add(acc, w));
        }
        (*maximum, *sum) = (s.fold_max(most), s.fold_sum(acc));
    }
}

/// exp(x), 0 of NaN.
#[inline(always)]
fn weight<S: Simd>(s: S, x: S::V) -> S::V {
    // Never negative, so the maximum only replaces NaN.
    s.max(exp(s, x), s.zero())
}
