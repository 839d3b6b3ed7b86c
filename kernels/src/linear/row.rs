//! Floor 0: few rows of activations times outputs of a mapped matrix, straight from its bytes: no scratch, one
//! sequential stream. Knows no packed panels.

use super::elem::{Elem, chunk_bytes, last_word, parts, split, step};
use super::{Matrix, tile};
use crate::simd::{LANES, Simd};

/// Rows that take this path at most: with sixteen vectors of weights, eight sums fit AVX-512's 32 registers. Elsewhere
/// the weights do not fit by themselves, and only a single row is better off so: see [`lines`].
#[inline(always)]
pub fn most<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { 8 } else { 1 }
}

/// Outputs `first..first + 16` of `w` (`Order::Nk`, dense), all of which exist, times `M` rows of `x`, packed as one row
/// or as one tile. The weights are transposed in registers.
#[inline(always)]
pub fn sixteen<S: Simd, E: Elem, const M: usize>(s: S, w: &Matrix, first: usize, x: &[f32]) -> [S::V; M] {
    let (stride, parts) = (if M == 1 { 1 } else { tile::rows::<S>() }, parts::<S, E>());
    let mut rows: [&[u8]; LANES] = [&[]; LANES];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = w.row(first + i);
    }
    let (len, chunk) = (rows[0].len(), chunk_bytes::<E>());
    let (whole, words) = (len / chunk, len.div_ceil(E::BYTES * E::K));
    let wide = parts * stride; // what one word of weights meets
    assert!(x.len() >= words * wide && rows.iter().all(|row| row.len() == len), "a row of x is too short");
    let (mut acc, mut next) = ([s.zero(); M], w.ahead(first + LANES));
    let (x, rest) = x[..words * wide].split_at(whole * LANES * wide);
    for (j, x) in x.chunks_exact(LANES * wide).enumerate() {
        let mut t = [s.zero(); LANES];
        for i in 0..LANES {
            // SAFETY: `j < whole`, so `(j + 1) * chunk` is within every row (all have `len` bytes).
            t[i] = E::words(s, unsafe { rows[i].get_unchecked(j * chunk..(j + 1) * chunk) });
            // The next sixteen rows, in the order of their addresses: the processor sees one stream.
            if chunk == 64 || i % 2 == 0 {
                s.prefetch(next);
                next = next.wrapping_add(64);
            }
        }
        let t = s.transpose(t);
        for i in 0..LANES {
            meet::<S, E, M>(s, &mut acc, t[i], &x[i * wide..], stride);
        }
    }
    for (word, x) in (whole * LANES..words).zip(rest.chunks_exact(wide)) {
        let mut t = [0.0; LANES];
        for i in 0..LANES {
            t[i] = last_word::<E>(rows[i], word);
        }
        meet::<S, E, M>(s, &mut acc, s.load(&t), x, stride);
    }
    acc
}

/// Bytes of a line of memory.
const LINE: usize = 64;

/// Bytes of rows that a first-level cache holds beside those that are on their way there.
const NEAR: usize = 24 << 10;

/// Lines between what is read and what is asked for, where whole rows are too much.
const AHEAD: usize = 16;

/// Outputs `first..first + R` of `w` (`Order::Nk`, dense), all of which exist and lie at equal distances, times one packed row of `x`, for sets with
/// few registers and without pairs. The weights are transposed line by line into a first-level cache. `R` is 8 or 16: the
/// more rows, the better is the latency of a chain hidden; the fewer, the better does the processor foresee their streams.
#[inline(always)]
pub fn lines<S: Simd, E: Elem, const R: usize>(s: S, w: &Matrix, first: usize, x: &[f32]) -> S::V {
    let (bytes, stride) = w.rows(first, R).expect("rows at equal distances");
    let len = bytes.len() - (R - 1) * stride;
    let (lines, words) = (len / LINE, len.div_ceil(E::BYTES * E::K));
    let wide = LANES * E::LINE; // what one line of weights meets
    assert!(x.len() >= words * parts::<S, E>(), "a row of x is too short");
    let (x, rest) = x[..words * parts::<S, E>()].split_at(lines * wide);
    let (mut acc, mut words_of) = (s.zero(), [[0.0; R]; LANES]);
    for (line, x) in x.chunks_exact(wide).enumerate() {
        s.lines::<R>(&bytes[line * LINE..], stride, words_of.as_flattened_mut(), R);
        // Short rows: all of the next ones, in the order of their addresses. Long ones: each a little further on.
        let (row, at, step) = if R * stride <= NEAR {
            (first + R, R * line, LINE)
        } else if line + AHEAD < lines {
            (first, line + AHEAD, stride)
        } else {
            (first + R, line + AHEAD - lines, stride)
        };
        let mut next = w.ahead(row).wrapping_add(at * LINE);
        for (word, x) in words_of.iter().zip(x.chunks_exact(E::LINE)) {
            let halves = E::open(s, if R == LANES { s.load(word) } else { s.load_eight(word) });
            for part in 0..E::LINE {
                acc = s.fma(halves[part], s.splat(x[part]), acc);
            }
        }
        for _ in 0..R {
            s.prefetch_first(next);
            next = next.wrapping_add(step);
        }
    }
    for (word, x) in (lines * LINE / (E::BYTES * E::K)..words).zip(rest.chunks_exact(parts::<S, E>())) {
        let mut lanes = [0.0; LANES];
        for i in 0..R {
            lanes[i] = last_word::<E>(w.row(first + i), word);
        }
        let mut sums = [acc];
        meet::<S, E, 1>(s, &mut sums, s.load(&lanes), x, 1);
        [acc] = sums;
    }
    acc
}

/// One word of sixteen outputs meets `M` rows. A function and not a closure: one that is not inlined would lose the
/// instruction set.
#[inline(always)]
fn meet<S: Simd, E: Elem, const M: usize>(s: S, acc: &mut [S::V; M], word: S::V, x: &[f32], stride: usize) {
    let word = split::<S, E>(s, word);
    for part in 0..parts::<S, E>() {
        for m in 0..M {
            acc[m] = step::<S, E>(s, acc[m], word[part], s.splat(x[part * stride + m]));
        }
    }
}
