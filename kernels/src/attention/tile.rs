//! Floor 0: up to [`ROWS`] queries against one chunk of keys and values, in registers. Knows nothing of pages.
//!
//! A score is one chain over the head dimension, an output one chain over the positions it sees, in order; tiles only
//! choose which chains run side by side.

use super::cache::{self, Elem};
use super::{Cache, MAX_DIM, PAGE};
use crate::math::exp_below_all;
use crate::simd::{Apart, LANES, Simd, times};
use std::marker::PhantomData;
use std::ops::Range;

/// Queries of a tile at most. With 4 vectors of 16 lanes each they take 24 of AVX-512's 32 registers, and with one vector
/// (two registers) 12 of AVX2's 16; the others hold a row of keys or values and a broadcast query.
pub const ROWS: usize = 6;

/// Queries that a panel can have: five take no less time than six.
const PANELS: [usize; 5] = [6, 4, 3, 2, 1];

/// Queries of a tile that leave time to ask for memory.
const FEW: usize = 4;

/// Vectors of a tile of `M` queries: enough chains to hide the latency of a multiply-add, few enough for the
/// registers.
const fn vectors<S: Simd, const M: usize>() -> usize {
    match M {
        _ if S::REGISTERS >= 32 => 4,
        _ if S::REGISTERS < 16 => 1,
        1 => 4,
        2 | 3 => 2,
        _ => 1,
    }
}

/// Queries of each panel of `queries`: what takes the least time, as few as possible being left over. Plain Rust, which is
/// not there for speed, takes them one by one and stays small.
pub fn panel_of<S: Simd>(queries: usize) -> usize {
    if S::REGISTERS < 16 {
        return 1;
    }
    // One alone waits for its own chains.
    let time = |m: &usize| queries.div_ceil(*m) * if *m == 1 { 3 } else { 2 * m };
    PANELS.into_iter().min_by_key(time).unwrap_or(1)
}

/// Queries of the largest panel that `queries` fill.
pub fn panel_within(queries: usize) -> usize {
    PANELS.into_iter().find(|m| *m <= queries).unwrap_or(1)
}

/// Queries of a panel that reads keys and values in the cache's own type, at most. For more it pays to widen a chunk once.
const NARROW: usize = 3;

/// Whether a panel reads keys and values in the cache's own type, where it is the only one to do so.
pub const fn reads<S: Simd>(cache: Cache, panel: usize) -> bool {
    matches!(cache, Cache::F32) || S::REGISTERS >= 16 && panel <= NARROW
}

/// Calls `$f` with a panel's number of queries as a constant, of keys and values in f32 or (see [`reads`]) in the type of
/// a cache.
macro_rules! with_panel {
    ($s:ty, $m:expr, $cache:expr, $f:ident $args:tt) => {
        match $cache {
            Cache::F32 if const { <$s as Simd>::REGISTERS < 16 } => $f::<$s, cache::F32, 1> $args,
            Cache::F32 => with_panel!($m, $f, $s, cache::F32, $args, 1 2 3 4 6),
            // A constant block: plain Rust does not even compile the others.
            _ if const { <$s as Simd>::REGISTERS < 16 } => unreachable!("a narrow cache is widened"),
            Cache::F16 => with_panel!($m, $f, $s, cache::F16, $args, 1 2 3),
            Cache::BF16 => with_panel!($m, $f, $s, cache::Bf16, $args, 1 2 3),
            Cache::Q8 => with_panel!($m, $f, $s, cache::Q8, $args, 1 2 3),
        }
    };
    ($m:expr, $f:ident, $s:ty, $e:ty, $args:tt, $($each:literal)*) => {
        match $m {
            $($each => $f::<$s, $e, $each> $args,)*
            m => unreachable!("a panel of {m} queries"),
        }
    };
}
pub(super) use with_panel;

/// A chunk's keys or values as f32.
pub struct Widen<'a> {
    pub out: &'a mut [f32],
    pub bytes: &'a [u8],
    pub cache: Cache,
}

impl<S: Simd> Apart<S> for Widen<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let bytes = self.bytes.chunks_exact(LANES * self.cache.bytes());
        for (out, bytes) in self.out.as_chunks_mut::<LANES>().0.iter_mut().zip(bytes) {
            let x = match self.cache {
                Cache::F32 => cache::F32::load(s, bytes),
                Cache::F16 => cache::F16::load(s, bytes),
                Cache::BF16 => cache::Bf16::load(s, bytes),
                Cache::Q8 => cache::Q8::load(s, bytes),
            };
            s.store(x, out);
        }
    }
}

/// Bytes from what a tile reads to what is asked for meanwhile; zero where there is nothing to come. Few queries wait for
/// memory, and rows of a page are read in pieces, which no processor foresees.
pub type Ahead = usize;

/// Raw scores `p [M][PAGE]` of the positions `reach` and some around them, by queries `q [dim][M]` and keys
/// `[dim][PAGE]`. Those of positions that do not exist are garbage.
#[inline(always)]
pub fn scores<S: Simd, E: Elem, const M: usize>(
    s: S,
    p: &mut [[f32; PAGE]],
    q: &[f32],
    keys: &[u8],
    reach: &Range<usize>,
    ahead: Ahead,
) {
    s.apart(Scores::<E, M> { p, q, keys, reach, ahead, elem: PhantomData });
}

/// [`scores`], a function by itself as all that has many sums in registers: constants of what is around would take some.
struct Scores<'a, E, const M: usize> {
    p: &'a mut [[f32; PAGE]],
    q: &'a [f32],
    keys: &'a [u8],
    reach: &'a Range<usize>,
    ahead: Ahead,
    elem: PhantomData<E>,
}

impl<S: Simd, E: Elem, const M: usize> Apart<S> for Scores<'_, E, M> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Scores { p, q, keys, reach, ahead, .. } = self;
        let p: &mut [[f32; PAGE]; M] = p.first_chunk_mut().expect("scores of each query");
        let (q, tile) = (q.as_chunks::<M>().0, const { LANES * vectors::<S, M>() });
        // Where many queries see little of a chunk, as at their own positions, only as many vectors as they need.
        if const { vectors::<S, M>() == VECS && M > FEW } {
            let (from, to) = (reach.start / LANES, reach.end.min(PAGE).div_ceil(LANES));
            match to - from {
                1 => score_tile::<S, E, M, 1>(s, p, q, keys, from * LANES, ahead),
                2 => score_tile::<S, E, M, 2>(s, p, q, keys, from * LANES, ahead),
                3 => score_tile::<S, E, M, 3>(s, p, q, keys, from * LANES, ahead),
                _ => score_tile::<S, E, M, VECS>(s, p, q, keys, 0, ahead),
            }
            return;
        }
        for at in (reach.start / tile * tile..reach.end.min(PAGE)).step_by(tile) {
            // Constant blocks, so that the widths of the other instruction sets are not even compiled.
            if const { vectors::<S, M>() == 4 } {
                score_tile::<S, E, M, 4>(s, p, q, keys, at, ahead);
            } else if const { vectors::<S, M>() == 2 } {
                score_tile::<S, E, M, 2>(s, p, q, keys, at, ahead);
            } else {
                score_tile::<S, E, M, 1>(s, p, q, keys, at, ahead);
            }
        }
    }
}

/// `N` vectors of scores, from position `at` on.
#[inline(always)]
fn score_tile<S: Simd, E: Elem, const M: usize, const N: usize>(
    s: S,
    p: &mut [[f32; PAGE]; M],
    q: &[[f32; M]],
    keys: &[u8],
    at: usize,
    ahead: Ahead,
) {
    let mut acc = [[s.zero(); N]; M];
    // Not a zip: its `next` is too large to be inlined everywhere, and a call would spill the accumulators.
    for (d, keys) in keys.chunks_exact(PAGE * E::BYTES).enumerate() {
        let q = &q[d];
        let keys = &keys[at * E::BYTES..][..N * LANES * E::BYTES];
        ask::<S, E, M, N>(s, keys, ahead);
        let mut k = [s.zero(); N];
        for z in 0..N {
            k[z] = E::load(s, &keys[z * LANES * E::BYTES..]);
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

/// What will be read after `N` vectors of `bytes`, one after the other.
#[inline(always)]
fn ask<S: Simd, E: Elem, const M: usize, const N: usize>(s: S, bytes: &[u8], ahead: Ahead) {
    if const { M <= FEW } && ahead != 0 {
        for line in (0..N * LANES * E::BYTES).step_by(64) {
            s.prefetch_first(bytes.as_ptr().wrapping_add(ahead.wrapping_add(line)));
        }
    }
}

/// Vectors of a chunk's scores.
const VECS: usize = PAGE / LANES;

/// The numbers of the lanes.
pub const INDEX: [f32; LANES] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

/// Scales a query's scores, by each position's key too where those have scales; positions that it does not see become
/// -inf. Returns the maximum.
#[inline(always)]
pub fn largest<S: Simd>(
    s: S,
    p: &mut [f32; PAGE],
    seen: &Range<usize>,
    scale: f32,
    keys: Option<&[f32; PAGE]>,
) -> f32 {
    let (scale, nothing) = (s.splat(scale), s.splat(f32::NEG_INFINITY));
    let mut x = [nothing; VECS];
    for z in 0..times::<S>(VECS) {
        x[z] = s.load(&p[z * LANES..]);
        if let Some(keys) = keys {
            x[z] = s.mul(x[z], s.load(&keys[z * LANES..]));
        }
        x[z] = s.mul(x[z], scale);
    }
    if *seen != (0..PAGE) {
        let (from, to) = (s.splat(seen.start as f32), s.splat(seen.end as f32));
        for z in 0..times::<S>(VECS) {
            let at = s.add(s.load(&INDEX), s.splat((z * LANES) as f32));
            let unseen_before = s.select(s.lt(at, from), nothing, x[z]);
            x[z] = s.select(s.lt(at, to), unseen_before, nothing);
        }
    }
    for z in 0..times::<S>(VECS) {
        s.store(x[z], &mut p[z * LANES..]);
    }
    s.fold_max(s.max(s.max(x[0], x[1]), s.max(x[2], x[3])))
}

/// A query's scores become weights, exponentials relative to `max`; returns their sum, over 16 lanes anchored at the
/// chunk's first position. What a query does not see has the weight zero, which changes no bit of a sum that is not below
/// zero. Where values have scales, the weights are multiplied by them after that.
#[inline(always)]
pub fn weights<S: Simd>(s: S, p: &mut [f32; PAGE], max: f32, values: Option<&[f32; PAGE]>) -> f32 {
    // Where every score is -inf, -inf - 0 keeps the exponentials zero; -inf - -inf would not.
    let base = s.splat(if max == f32::NEG_INFINITY { 0.0 } else { max });
    let mut x = [s.zero(); VECS];
    for z in 0..times::<S>(VECS) {
        x[z] = s.sub(s.load(&p[z * LANES..]), base);
    }
    exp_below_all(s, &mut x);
    for z in 0..times::<S>(VECS) {
        let weight = match values {
            Some(values) => s.mul(x[z], s.load(&values[z * LANES..])),
            None => x[z],
        };
        s.store(weight, &mut p[z * LANES..]);
    }
    s.fold_sum(s.add(s.add(s.add(x[0], x[1]), x[2]), x[3]))
}

/// Where the outputs of a chunk go.
pub enum To<'a> {
    /// On top of what rows have.
    Onto(&'a mut [[f32; MAX_DIM]]),
    /// Folded into rows `[M][width]`: see [`folded`].
    Fold { out: &'a mut [f32], old: &'a [f32], new: &'a [f32] },
}

/// Outputs of a chunk: the weights `p [M][PAGE]` of the positions `run` times their values `[PAGE][width]`.
#[inline(always)]
pub fn weigh<S: Simd, E: Elem, const M: usize>(
    s: S,
    to: To,
    p: &[[f32; PAGE]],
    values: &[u8],
    run: &Range<usize>,
    ahead: Ahead,
) {
    s.apart(Weigh::<E, M> { to, p, values, run, ahead, elem: PhantomData });
}

/// [`weigh`]
struct Weigh<'a, E, const M: usize> {
    to: To<'a>,
    p: &'a [[f32; PAGE]],
    values: &'a [u8],
    run: &'a Range<usize>,
    ahead: Ahead,
    elem: PhantomData<E>,
}

impl<S: Simd, E: Elem, const M: usize> Apart<S> for Weigh<'_, E, M> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Weigh { mut to, p, values, run, ahead, .. } = self;
        let width = values.len() / (PAGE * E::BYTES);
        assert!(width <= MAX_DIM, "columns of outputs");
        let p: &[[f32; PAGE]; M] = p.first_chunk().expect("weights of each query");
        let values = &values[run.start * width * E::BYTES..run.end * width * E::BYTES];
        let mut at = 0;
        while at + const { LANES * vectors::<S, M>() } <= width {
            let place = [run.start, at, width];
            at += if const { vectors::<S, M>() == 4 } {
                weigh_tile::<S, E, M, 4>(s, &mut to, p, values, place, ahead)
            } else if const { vectors::<S, M>() == 2 } {
                weigh_tile::<S, E, M, 2>(s, &mut to, p, values, place, ahead)
            } else {
                weigh_tile::<S, E, M, 1>(s, &mut to, p, values, place, ahead)
            };
        }
        if const { vectors::<S, M>() > 1 } {
            while at < width {
                at += weigh_tile::<S, E, M, 1>(s, &mut to, p, values, [run.start, at, width], ahead);
            }
        }
    }
}

/// `N` vectors of the outputs, from column `at` on; the values are those from position `first` on. Returns the columns
/// done.
#[inline(always)]
fn weigh_tile<S: Simd, E: Elem, const M: usize, const N: usize>(
    s: S,
    to: &mut To,
    p: &[[f32; PAGE]; M],
    values: &[u8],
    [first, at, width]: [usize; 3],
    ahead: Ahead,
) -> usize {
    let mut acc = [[s.zero(); N]; M];
    if let To::Onto(rows) = to {
        let rows: &[_; M] = rows.first_chunk().expect("outputs of each query");
        for i in 0..M {
            for z in 0..N {
                acc[i][z] = s.load(&rows[i][at + z * LANES..]);
            }
        }
    }
    for (k, values) in values.chunks_exact(width * E::BYTES).enumerate() {
        let values = &values[at * E::BYTES..][..N * LANES * E::BYTES];
        ask::<S, E, M, N>(s, values, ahead);
        let mut v = [s.zero(); N];
        for z in 0..N {
            v[z] = E::load(s, &values[z * LANES * E::BYTES..]);
        }
        for i in 0..M {
            let p = s.splat(p[i][(first + k) % PAGE]);
            for z in 0..N {
                acc[i][z] = s.fma(p, v[z], acc[i][z]);
            }
        }
    }
    match to {
        To::Onto(rows) => {
            let rows: &mut [_; M] = rows.first_chunk_mut().expect("outputs of each query");
            for i in 0..M {
                for z in 0..N {
                    s.store(acc[i][z], &mut rows[i][at + z * LANES..]);
                }
            }
        }
        To::Fold { out, old, new } => {
            let old: &[_; M] = old.first_chunk().expect("factors of each query");
            let new: &[_; M] = new.first_chunk().expect("factors of each query");
            let mut rows = out.chunks_exact_mut(width);
            for i in 0..M {
                let row = &mut rows.next().expect("outputs of each query")[at..][..N * LANES];
                let factors = [s.splat(old[i]), s.splat(new[i])];
                for z in 0..N {
                    let out = &mut row[z * LANES..];
                    s.store(folded(s, s.load(out), acc[i][z], factors), out);
                }
            }
        }
    }
    N * LANES
}

/// Outputs before times a factor, plus those of what comes next times another. A sum that starts from zero is never -0:
/// what was nothing before keeps no trace of that.
#[inline(always)]
pub fn folded<S: Simd>(s: S, out: S::V, next: S::V, [old, new]: [S::V; 2]) -> S::V {
    s.fma(out, old, s.mul(s.add(next, s.zero()), new))
}
