//! Floor 0: few rows of activations times outputs of a mapped matrix, straight from its bytes: no scratch, one
//! sequential stream. Knows no packed panels.

use super::elem::{Elem, chunk_bytes, last_word, parts, split, step};
use super::{After, Matrix, PANEL, tile};
use crate::plan::TileMut;
use crate::simd::{LANES, Simd};
use std::ops::Range;

/// Rows that take this path at most: with sixteen vectors of weights, eight sums fit AVX-512's 32 registers. Elsewhere
/// the weights do not fit by themselves, and pass by a first-level cache: see [`lines`]. A second tile finds them in the
/// next cache; for more it pays to transpose once.
#[inline(always)]
pub fn most<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { 8 } else { 2 * tile::rows::<S>() }
}

/// Asks for the first of outputs `cols`, or for the beginnings of their rows where those are long: all that AVX-512 reads
/// together, eight elsewhere, where eight or sixteen are. Those that follow are asked for while they are read.
#[inline(always)]
pub fn begin<S: Simd>(s: S, w: &Matrix, cols: Range<usize>) {
    let some = if S::REGISTERS >= 32 { LANES } else { LANES / 2 };
    for first in cols.take(some) {
        let bytes = w.row(first);
        for line in bytes[..bytes.len().min(BEGINNING)].chunks(LINE) {
            s.prefetch_first(line.as_ptr());
        }
    }
}

/// A panel of outputs of all `rows`, straight from the file; the worker's outputs end with `end`.
#[inline(always)]
pub fn panel<S: Simd, E: Elem>(
    s: S,
    out: &mut TileMut,
    w: &Matrix,
    x: &[f32],
    rows: usize,
    [first, end]: [usize; 2],
    after: &After,
) {
    let mut all = [[0.0; PANEL]; tile::MOST];
    // The next larger number of rows that is compiled.
    macro_rules! sixteens {
        ($($m:literal)*) => {
            for half in [0, LANES] {
                match rows {
                    $(..=$m => {
                        let sums = sixteen::<S, E, $m>(s, w, [first + half, end], x);
                        for (all, sums) in all.iter_mut().zip(sums) {
                            s.store(sums, &mut all[half..]);
                        }
                    })*
                    _ => unreachable!("{rows} rows are not few"),
                }
            }
        };
    }
    macro_rules! eights {
        ($m:literal) => {
            let words = (w.k().div_ceil(E::K) * parts::<S, E>() * $m).max(1);
            for at in (0..PANEL).step_by(8) {
                for (all, x) in all[..rows.next_multiple_of($m)].chunks_mut($m).zip(x.chunks_exact(words)) {
                    let sums = lines::<S, E, 8, $m>(s, w, [first + at, end], x);
                    for (all, sums) in all.iter_mut().zip(sums) {
                        let mut lanes = [0.0; LANES];
                        s.store(sums, &mut lanes);
                        all[at..][..8].copy_from_slice(&lanes[..8]);
                    }
                }
            }
        };
    }
    if const { S::REGISTERS >= 32 } {
        sixteens!(1 2 4 8);
    } else if rows > 1 {
        // The chains of a tile hide each other's latency: few outputs at a time.
        eights!(6);
    } else if S::REGISTERS >= 16 && (E::LINE == 1 || w.stride().is_multiple_of(SET)) {
        eights!(1);
    } else {
        for half in [0, LANES] {
            let [sums] = lines::<S, E, LANES, 1>(s, w, [first + half, end], x);
            s.store(sums, &mut all[0][half..]);
        }
    }
    let piece = if const { S::REGISTERS >= 32 } { rows } else { tile::rows::<S>() };
    for (r, sums) in (0..).step_by(piece).zip(all[..rows].chunks_mut(piece)) {
        after.finish(s, out, r, first, PANEL, sums);
    }
}

/// Outputs `first..first + 16` of `w` (`Order::Nk`, dense), all of which exist, times `M` rows of `x`, packed as one row
/// or as one tile, and those before `end` that follow are asked for. The weights are transposed in registers.
#[inline(always)]
pub fn sixteen<S: Simd, E: Elem, const M: usize>(
    s: S,
    w: &Matrix,
    [first, end]: [usize; 2],
    x: &[f32],
) -> [S::V; M] {
    let (stride, parts) = (if M == 1 { 1 } else { tile::rows::<S>() }, parts::<S, E>());
    let mut rows: [&[u8]; LANES] = [&[]; LANES];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = w.row(first + i);
    }
    let (len, chunk) = (rows[0].len(), chunk_bytes::<E>());
    let (whole, words) = (len / chunk, len.div_ceil(E::BYTES * E::K));
    let wide = parts * stride; // what one word of weights meets
    assert!(x.len() >= words * wide && rows.iter().all(|row| row.len() == len), "a row of x is too short");
    let (mut acc, mut next) = ([s.zero(); M], following(w, [first, end], LANES));
    let (x, rest) = x[..words * wide].split_at(whole * LANES * wide);
    for (j, x) in x.chunks_exact(LANES * wide).enumerate() {
        let mut t = [s.zero(); LANES];
        for i in 0..LANES {
            // SAFETY: `j < whole`, so `(j + 1) * chunk` is within every row (all have `len` bytes).
            t[i] = E::words(s, unsafe { rows[i].get_unchecked(j * chunk..).get_unchecked(..chunk) });
            // The next sixteen rows, in the order of their addresses: the processor sees one stream.
            if chunk == LINE || i % 2 == 0 {
                s.prefetch_first(next);
                next = next.wrapping_add(LINE);
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

/// Lines so many bytes apart meet in one set of a first-level cache, which has room for eight of them.
const SET: usize = 4 << 10;

/// Bytes of a row at most that are asked for before it is read.
const BEGINNING: usize = 4 << 10;

/// Outputs `first..first + R` of `w` (`Order::Nk`, dense), all of which exist and lie at equal distances, times `M` rows of
/// `x`, packed as one row or as one tile, for sets with few registers and without pairs. The weights are transposed line by
/// line into a first-level cache, and the rows before `end` that follow are asked for. `R` is 8 or 16: the more outputs, the
/// better is the latency of few chains hidden; the fewer, the better does the processor foresee their streams.
#[inline(always)]
pub fn lines<S: Simd, E: Elem, const R: usize, const M: usize>(
    s: S,
    w: &Matrix,
    [first, end]: [usize; 2],
    x: &[f32],
) -> [S::V; M] {
    let stride_of_x = if M == 1 { 1 } else { tile::rows::<S>() };
    let (bytes, stride) = w.rows(first, R).expect("rows at equal distances");
    let len = bytes.len() - (R - 1) * stride;
    let (lines, words) = (len / LINE, len.div_ceil(E::BYTES * E::K));
    let (wide, word_wide) = (LANES * E::LINE * stride_of_x, parts::<S, E>() * stride_of_x);
    assert!(x.len() >= words * word_wide, "a row of x is too short");
    // What one line of weights meets, and what is left.
    let (x, rest) = x[..words * word_wide].split_at(lines * wide);
    let (mut acc, mut words_of, mut next) = ([s.zero(); M], [[0.0; R]; LANES], following(w, [first, end], R));
    for (line, x) in x.chunks_exact(wide).enumerate() {
        if const { R == 8 && M == 1 && E::LINE == 2 } {
            // Four words are few enough for registers.
            for (four, x) in x.chunks_exact(4 * E::LINE).enumerate() {
                let words = s.four_of_eight(&bytes[line * LINE + 16 * four..], stride);
                for (word, x) in words.into_iter().zip(x.chunks_exact(E::LINE)) {
                    open::<S, E, M>(s, &mut acc, word, x, stride_of_x);
                }
            }
        } else {
            s.lines::<R>(&bytes[line * LINE..], stride, words_of.as_flattened_mut(), R);
            for (word, x) in words_of.iter().zip(x.chunks_exact(E::LINE * stride_of_x)) {
                let word = if R == LANES { s.load(word) } else { s.load_eight(word) };
                open::<S, E, M>(s, &mut acc, word, x, stride_of_x);
            }
        }
        for _ in 0..R {
            s.prefetch_first(next);
            next = next.wrapping_add(LINE);
        }
    }
    for (word, x) in (lines * LINE / (E::BYTES * E::K)..words).zip(rest.chunks_exact(word_wide)) {
        let mut lanes = [0.0; LANES];
        for i in 0..R {
            lanes[i] = last_word::<E>(w.row(first + i), word);
        }
        meet::<S, E, M>(s, &mut acc, s.load(&lanes), x, stride_of_x);
    }
    acc
}

/// Where the row after `n` from output `first` on is; where none is left before `end`, what is near already.
#[inline(always)]
fn following(w: &Matrix, [first, end]: [usize; 2], n: usize) -> *const u8 {
    w.ahead(if first + n < end { first + n } else { first })
}

/// One word of each output, as a line has it, meets `M` rows.
#[inline(always)]
fn open<S: Simd, E: Elem, const M: usize>(s: S, acc: &mut [S::V; M], word: S::V, x: &[f32], stride: usize) {
    let halves = E::open(s, word);
    for part in 0..E::LINE {
        let x = &x[part * stride..][..M];
        for m in 0..M {
            acc[m] = s.fma(halves[part], s.splat(x[m]), acc[m]);
        }
    }
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
