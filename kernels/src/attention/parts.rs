//! Floor 0: the fold tree of attention over a sequence: which chunks make a part, and how parts become an output. Knows
//! no queries and no pages.
//!
//! A part is a run of chunks at fixed absolute positions, folded from zero; parts fold left in order. They grow with
//! their position as floating-point numbers do, eight to a doubling: so many workers share a long context evenly, a
//! short one is shared too, and what has to be kept of the parts grows with the logarithm of the length.

use super::tile::folded;
use super::{AttendArgs, PAGE};
use crate::math::exp_below;
use crate::ops::per_isa;
use crate::plan::TileMut;
use crate::simd::{Apart, LANES, Simd};
use std::ops::Range;

/// Bits of a chunk's number below its leading one that a part's number keeps.
const BITS: u32 = 3;

/// Heads whose statistics are folded together: a lane each.
pub const HEADS: usize = LANES;

/// The part that a chunk belongs to.
pub fn part_of(chunk: usize) -> usize {
    let e = chunk.checked_ilog2().unwrap_or(0).saturating_sub(BITS);
    ((e as usize) << BITS) + (chunk >> e)
}

/// The chunks of a part.
pub fn chunks_of(part: usize) -> Range<usize> {
    let first = |part: usize| {
        let e = (part >> BITS).saturating_sub(1);
        (part - (e << BITS)) << e
    };
    first(part)..first(part + 1)
}

/// Parts that sequences of up to `len` positions have.
#[must_use]
pub fn parts(len: usize) -> usize {
    len.checked_sub(1).map_or(0, |last| part_of(last / PAGE) + 1)
}

/// Words that are kept of one head of one row of one part: the outputs, the largest score, and the sum of weights.
#[must_use]
pub fn part_words(dim: usize) -> usize {
    dim.next_multiple_of(LANES) + LANES
}

/// Folds the maxima and sums of what comes next into `max` and `sum`, a query a lane, and returns what old outputs and
/// new ones are multiplied by. Lanes where nothing comes (maximum -inf, sum 0) keep their bits.
#[inline(always)]
pub fn fold_stats<S: Simd>(
    s: S,
    max: &mut [f32; LANES],
    sum: &mut [f32; LANES],
    new_max: &[f32; LANES],
    new_sum: &[f32; LANES],
) -> ([f32; LANES], [f32; LANES]) {
    s.apart(Stats { max, sum, new_max, new_sum })
}

struct Stats<'a> {
    max: &'a mut [f32; LANES],
    sum: &'a mut [f32; LANES],
    new_max: &'a [f32; LANES],
    new_sum: &'a [f32; LANES],
}

impl<S: Simd> Apart<S> for Stats<'_> {
    type Out = ([f32; LANES], [f32; LANES]);

    #[inline(always)]
    fn run(self, s: S) -> Self::Out {
        let (old_max, new_max) = (s.load(self.max), s.load(self.new_max));
        let (top, nothing) = (s.max(old_max, new_max), s.splat(f32::NEG_INFINITY));
        // -inf - 0 keeps an exponential zero; -inf - -inf would not.
        let base = s.select(s.lt(nothing, top), top, s.zero());
        let (old, new) = (exp_below(s, s.sub(old_max, base)), exp_below(s, s.sub(new_max, base)));
        s.store(top, self.max);
        s.store(s.fma(s.load(self.sum), old, s.mul(s.load(self.new_sum), new)), self.sum);
        let mut out = ([0.0; LANES], [0.0; LANES]);
        s.store(old, &mut out.0);
        s.store(new, &mut out.1);
        out
    }
}

/// Folds one query's outputs `next` into `out`, both whole vectors.
#[inline(always)]
pub fn fold_outputs<S: Simd>(s: S, out: &mut [f32], next: &[f32], old: f32, new: f32) {
    s.apart(Outputs { out, next, factors: [old, new] });
}

struct Outputs<'a> {
    out: &'a mut [f32],
    next: &'a [f32],
    factors: [f32; 2],
}

impl<S: Simd> Apart<S> for Outputs<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let (old, new) = (s.splat(self.factors[0]), s.splat(self.factors[1]));
        let (out, next) = (self.out.as_chunks_mut::<LANES>().0, self.next.as_chunks::<LANES>().0);
        for (out, next) in out.iter_mut().zip(next) {
            s.store(folded(s, s.load(out), s.load(next), [old, new]), out);
        }
    }
}

per_isa! {
    /// out `[rows, heads * dim]`, cut in blocks of up to sixteen whole heads of one row: the parts
    /// `[parts, rows, heads, part_words]` that attention left, folded in order. Rows that see no position are zero.
    ///
    /// Panics where a row's position is beyond the parts.
    pub fn merge(out: &mut TileMut, from: &[f32], args: &AttendArgs) = merge_with as merge_isa on scalar avx2;
}

#[inline(always)]
fn merge_with<S: Simd>(s: S, out: &mut TileMut, from: &[f32], args: &AttendArgs) {
    let (dim, heads, words) = (args.shape.dim, args.shape.heads, part_words(args.shape.dim));
    let width = words - LANES;
    for cell in out.cells() {
        let own = cell.cols.start / dim..cell.cols.end / dim;
        for r in cell.rows.clone() {
            let (mut max, mut sum) = ([f32::NEG_INFINITY; LANES], [0.0; LANES]);
            let mut acc = [[0.0; super::MAX_DIM]; HEADS];
            let seen = args.seen_of(r);
            let parts = if seen.is_empty() {
                0..0
            } else {
                part_of(seen.start / PAGE)..part_of((seen.end - 1) / PAGE) + 1
            };
            for part in parts {
                let at = ((part * args.rows.len() + r) * heads + own.start) * words;
                let next = &from[at..at + own.len() * words];
                let (mut new_max, mut new_sum) = ([f32::NEG_INFINITY; LANES], [0.0; LANES]);
                for (i, next) in next.chunks_exact(words).enumerate() {
                    (new_max[i], new_sum[i]) = (next[width], next[width + 1]);
                }
                let (max, sum, new_max, new_sum) = (&mut max, &mut sum, &new_max, &new_sum);
                let (old, new) = fold_stats(s, max, sum, new_max, new_sum);
                for (i, next) in next.chunks_exact(words).enumerate() {
                    fold_outputs(s, &mut acc[i][..width], &next[..width], old[i], new[i]);
                }
            }
            let row = out.cell_row(&cell, r);
            for (i, out) in row.chunks_exact_mut(dim).enumerate() {
                finish(s, out, &acc[i][..width], if seen.is_empty() { 1.0 } else { sum[i] });
            }
        }
    }
}

/// Weighted sums over the sum of weights: `out [dim]` of `acc`, filled up to whole vectors.
#[inline(always)]
pub fn finish<S: Simd>(s: S, out: &mut [f32], acc: &[f32], sum: f32) {
    s.apart(Finish { out, acc, sum });
}

struct Finish<'a> {
    out: &'a mut [f32],
    acc: &'a [f32],
    sum: f32,
}

impl<S: Simd> Apart<S> for Finish<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let divisor = s.splat(self.sum);
        for (out, acc) in self.out.chunks_mut(LANES).zip(self.acc.chunks_exact(LANES)) {
            let x = s.div(s.load(acc), divisor);
            if out.len() == LANES {
                s.store(x, out);
            } else {
                let mut lanes = [0.0; LANES];
                s.store(x, &mut lanes);
                out.copy_from_slice(&lanes[..out.len()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_runs_of_chunks_without_gaps() {
        let mut next = 0;
        for part in 0..400 {
            let chunks = chunks_of(part);
            assert_eq!(chunks.start, next);
            assert!(!chunks.is_empty() && chunks.len() * 8 <= chunks.start.max(8));
            assert_eq!((part_of(chunks.start), part_of(chunks.end - 1)), (part, part));
            next = chunks.end;
        }
        assert_eq!((chunks_of(15), chunks_of(16), chunks_of(24)), (15..16, 16..18, 32..36));
    }

    #[test]
    fn few_parts_hold_long_contexts() {
        assert_eq!([0, 1, 64, 65, 512, 1024, 8192, 131_072].map(parts), [0, 1, 1, 2, 8, 16, 40, 72]);
    }
}
