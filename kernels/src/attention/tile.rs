//! Floor 0: up to [`ROWS`] queries against one chunk of keys and values, in registers. Knows nothing of pages.
//!
//! A score is one chain over the head dimension, an output one chain over the positions it sees, in order; tiles only
//! choose which chains run side by side.

use super::PAGE;
use crate::math::exp;
use crate::simd::{LANES, Simd};
use std::ops::Range;

/// Queries of a tile. With 4 vectors of 16 lanes each they take 24 of AVX-512's 32 registers, and with one vector (two
/// registers) 12 of AVX2's 16; the others hold a row of keys or values and a broadcast query.
pub const ROWS: usize = 6;

/// What the chunks of a panel's queries have come to, a query a lane: the largest score, and the sum of exponentials
/// relative to it.
pub type Stat = [[f32; LANES]; 2];

/// Nothing seen yet.
pub const NOTHING: Stat = [[f32::NEG_INFINITY; LANES], [0.0; LANES]];

/// One chunk: keys `[dim][PAGE]`, values `[PAGE][width]`, of which a query reads the positions it sees.
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    pub keys: &'a [[f32; PAGE]],
    pub values: &'a [f32],
    pub width: usize,
}

/// Folds one chunk into the outputs `out [M][width]` and `stat` of a panel of queries `q [dim][M]`, each of which sees
/// the positions `seen[i]` of it. One that sees none stays as it is.
#[inline(always)]
pub fn panel<S: Simd, const M: usize>(
    s: S,
    out: &mut [f32],
    stat: &mut Stat,
    q: &[[f32; M]],
    chunk: Chunk,
    seen: &[Range<usize>],
    scale: f32,
) {
    let mut p = [[0.0f32; PAGE]; M];
    scores(s, &mut p, q, chunk.keys);
    let (mut max, mut sum) = ([f32::NEG_INFINITY; LANES], [0.0; LANES]);
    for i in 0..M {
        if !seen[i].is_empty() {
            (max[i], sum[i]) = soften(s, &mut p[i], &seen[i], scale);
        }
    }
    let (old, new) = fold_stat(s, stat, &max, &sum);
    let fold = Fold { seen, old: &old, new: &new, reach: Reach::of(seen) };
    let width = chunk.width;
    let mut at = 0;
    // Constant blocks, so that the widths of the other instruction sets are not even compiled.
    while at + const { LANES * vectors::<S, M>() } <= width {
        at += if const { vectors::<S, M>() == 4 } {
            outputs::<S, M, 4>(s, out, &p, chunk, at, &fold)
        } else if const { vectors::<S, M>() == 2 } {
            outputs::<S, M, 2>(s, out, &p, chunk, at, &fold)
        } else {
            outputs::<S, M, 1>(s, out, &p, chunk, at, &fold)
        };
    }
    while at < width {
        at += outputs::<S, M, 1>(s, out, &p, chunk, at, &fold);
    }
}

/// Vectors of a tile of `M` queries: enough chains to hide the latency of a multiply-add, few enough for the
/// registers.
const fn vectors<S: Simd, const M: usize>() -> usize {
    match M {
        _ if S::REGISTERS >= 32 => 4,
        1 => 4,
        2 | 3 => 2,
        _ => 1,
    }
}

/// Raw scores of all positions of the chunk: those of positions that do not exist are garbage.
#[inline(always)]
fn scores<S: Simd, const M: usize>(s: S, p: &mut [[f32; PAGE]; M], q: &[[f32; M]], keys: &[[f32; PAGE]]) {
    for at in (0..PAGE).step_by(const { LANES * vectors::<S, M>() }) {
        if const { vectors::<S, M>() == 4 } {
            score_tile::<S, M, 4>(s, p, q, keys, at);
        } else if const { vectors::<S, M>() == 2 } {
            score_tile::<S, M, 2>(s, p, q, keys, at);
        } else {
            score_tile::<S, M, 1>(s, p, q, keys, at);
        }
    }
}

/// `N` vectors of scores, from position `at` on.
#[inline(always)]
fn score_tile<S: Simd, const M: usize, const N: usize>(
    s: S,
    p: &mut [[f32; PAGE]; M],
    q: &[[f32; M]],
    keys: &[[f32; PAGE]],
    at: usize,
) {
    let mut acc = [[s.zero(); N]; M];
    for (q, keys) in q.iter().zip(keys) {
        let mut k = [s.zero(); N];
        for z in 0..N {
            k[z] = s.load(&keys[at + z * LANES..]);
        }
        for i in 0..M {
            let q = s.splat(q[i]);
            for z in 0..N {
                acc[i][z] = s.fma(q, k[z], acc[i][z]);
            }
        }
    }
    for i in 0..M {
        for z in 0..N {
            s.store(acc[i][z], &mut p[i][at + z * LANES..]);
        }
    }
}

/// Scores of the positions seen become exponentials relative to their maximum, the others zeros; returns the maximum
/// and the sum. The sum runs over 16 lanes anchored at the chunk's first position, whatever is seen.
#[inline(always)]
fn soften<S: Simd>(s: S, p: &mut [f32; PAGE], seen: &Range<usize>, scale: f32) -> (f32, f32) {
    const VECS: usize = PAGE / LANES;
    let (scale, nothing) = (s.splat(scale), s.splat(f32::NEG_INFINITY));
    let mut x = [nothing; VECS];
    for z in 0..VECS {
        x[z] = s.mul(s.load(&p[z * LANES..]), scale);
    }
    if *seen != (0..PAGE) {
        let (from, to) = (s.splat(seen.start as f32), s.splat(seen.end as f32));
        for z in 0..VECS {
            let at = s.add(s.load(&INDEX), s.splat((z * LANES) as f32));
            let unseen_before = s.select(s.lt(at, from), nothing, x[z]);
            x[z] = s.select(s.lt(at, to), unseen_before, nothing);
        }
    }
    let max = s.fold_max(s.max(s.max(x[0], x[1]), s.max(x[2], x[3])));
    // Where every score is -inf, -inf - 0 keeps the exponentials zero; -inf - -inf would not.
    let base = s.splat(if max == f32::NEG_INFINITY { 0.0 } else { max });
    for z in 0..VECS {
        x[z] = exp(s, s.sub(x[z], base));
        s.store(x[z], &mut p[z * LANES..]);
    }
    let sum = s.fold_sum(s.add(s.add(s.add(x[0], x[1]), x[2]), x[3]));
    (max, sum)
}

/// The numbers of the lanes.
const INDEX: [f32; LANES] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

/// Folds a chunk's maxima and sums into `stat`; returns what the old outputs and the chunk's are multiplied by. Lanes
/// whose chunk is empty (maximum -inf, sum 0) keep their bits: the old factor is exactly 1.
#[inline(always)]
fn fold_stat<S: Simd>(
    s: S,
    stat: &mut Stat,
    max: &[f32; LANES],
    sum: &[f32; LANES],
) -> ([f32; LANES], [f32; LANES]) {
    let (old_max, new_max, nothing) = (s.load(&stat[0]), s.load(max), s.splat(f32::NEG_INFINITY));
    let top = s.max(old_max, new_max);
    let base = s.select(s.lt(nothing, top), top, s.zero());
    let (old, new) = (exp(s, s.sub(old_max, base)), exp(s, s.sub(new_max, base)));
    s.store(top, &mut stat[0]);
    s.store(s.fma(s.load(&stat[1]), old, s.mul(s.load(sum), new)), &mut stat[1]);
    let mut out = ([0.0; LANES], [0.0; LANES]);
    s.store(old, &mut out.0);
    s.store(new, &mut out.1);
    out
}

/// How a chunk's outputs go into those before.
struct Fold<'a> {
    seen: &'a [Range<usize>],
    old: &'a [f32; LANES],
    new: &'a [f32; LANES],
    reach: Reach,
}

/// Positions that some query of the panel sees, in three runs: the middle one is seen by every query that sees any.
struct Reach([Range<usize>; 3]);

impl Reach {
    fn of(seen: &[Range<usize>]) -> Reach {
        let live = || seen.iter().filter(|seen| !seen.is_empty());
        let (from, to) =
            (live().map(|r| r.start).min().unwrap_or(0), live().map(|r| r.end).max().unwrap_or(0));
        let all = live().map(|r| r.start).max().unwrap_or(0)..live().map(|r| r.end).min().unwrap_or(0);
        if all.is_empty() {
            return Reach([from..to, to..to, to..to]);
        }
        Reach([from..all.start, all.start..all.end, all.end..to])
    }
}

/// `N` vectors of the chunk's outputs, from column `at` on, folded into `out`. Returns the columns done.
#[inline(always)]
fn outputs<S: Simd, const M: usize, const N: usize>(
    s: S,
    out: &mut [f32],
    p: &[[f32; PAGE]; M],
    chunk: Chunk,
    at: usize,
    fold: &Fold,
) -> usize {
    let (width, seen) = (chunk.width, &fold.seen[..M]);
    let mut acc = [[s.zero(); N]; M];
    let [before, all, after] = &fold.reach.0;
    weigh::<S, M, N, false>(s, &mut acc, p, chunk, at, before, seen);
    weigh::<S, M, N, true>(s, &mut acc, p, chunk, at, all, seen);
    weigh::<S, M, N, false>(s, &mut acc, p, chunk, at, after, seen);
    for i in 0..M {
        if !seen[i].is_empty() {
            let (old, new) = (s.splat(fold.old[i]), s.splat(fold.new[i]));
            for z in 0..N {
                let out = &mut out[i * width + at + z * LANES..];
                let folded = s.fma(s.load(out), old, s.mul(acc[i][z], new));
                s.store(folded, out);
            }
        }
    }
    N * LANES
}

/// Adds the weighted values of the positions `run`. Unless `EVERY` query sees them all, each takes those it sees: an
/// unseen position has no part at all, for 0 * NaN is not 0, and -0 + 0 is not -0.
#[inline(always)]
fn weigh<S: Simd, const M: usize, const N: usize, const EVERY: bool>(
    s: S,
    acc: &mut [[S::V; N]; M],
    p: &[[f32; PAGE]; M],
    chunk: Chunk,
    at: usize,
    run: &Range<usize>,
    seen: &[Range<usize>],
) {
    let values = chunk.values[run.start * chunk.width..run.end * chunk.width].chunks_exact(chunk.width);
    for (k, values) in run.clone().zip(values) {
        let mut v = [s.zero(); N];
        for z in 0..N {
            v[z] = s.load(&values[at + z * LANES..]);
        }
        for i in 0..M {
            if EVERY || seen[i].contains(&k) {
                let p = s.splat(p[i][k % PAGE]);
                for z in 0..N {
                    acc[i][z] = s.fma(p, v[z], acc[i][z]);
                }
            }
        }
    }
}
