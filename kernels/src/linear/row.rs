//! Floor 0: few rows of activations times outputs of a mapped matrix, straight from its bytes, in one sequential stream.
//! Knows no packed panels.

use super::elem::{Elem, Stored, chunk_bytes, last_word, parts, split, step};
use super::{After, Matrix, PANEL, tile};
use crate::plan::TileMut;
use crate::simd::{LANES, LINE, Simd, ask, ask_here};
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

/// A panel of outputs, at equal distances, of all `rows`, straight from the file; the worker's outputs end with `end`.
#[inline(always)]
pub fn panel<S: Simd, E: Stored>(
    s: S,
    out: &mut TileMut,
    w: &Matrix,
    x: &Lined,
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
                for (all, x) in all[..rows.next_multiple_of($m)].chunks_mut($m).zip(x.all.chunks_exact(words))
                {
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
            let [sums] = lines::<S, E, LANES, 1>(s, w, [first + half, end], x.all);
            s.store(sums, &mut all[0][half..]);
        }
    }
    let piece = if const { S::REGISTERS >= 32 } { rows } else { tile::rows::<S>() };
    for (r, sums) in (0..).step_by(piece).zip(all[..rows].chunks_mut(piece)) {
        after.finish(s, out, r, first, PANEL, sums, None);
    }
}

/// Outputs `first..first + 16` of `w` (`Order::Nk`, dense), all of which exist and lie at equal distances, times `M` rows of
/// activations, and those before `end` that follow are asked for. The weights are read in whole lines of memory, wherever in
/// one they begin, and transposed in registers.
#[inline(always)]
fn sixteen<S: Simd, E: Stored, const M: usize>(
    s: S,
    w: &Matrix,
    [first, end]: [usize; 2],
    x: &Lined,
) -> [S::V; M] {
    let (stride, chunk) = (if M == 1 { 1 } else { tile::rows::<S>() }, chunk_bytes::<E>());
    let wide = parts::<S, E>() * stride; // what one word of weights meets
    let (bytes, pitch) = w.rows(first, LANES).expect("rows at equal distances");
    let (from, to) = (x.skew, x.skew + bytes.len() - (LANES - 1) * pitch);
    // The halves of words in a line that are the row's.
    let halves = |line: usize| {
        let at = |byte: usize| byte.saturating_sub(line * chunk).min(chunk) / 2;
        ((1u64 << at(to)) - (1u64 << at(from))) as u32
    };
    let ([first_line, between, last_line], lines) = (x.lines, to.div_ceil(chunk));
    let words = first_line.len() + between.len() + last_line.len();
    assert!(words == lines * LANES * wide, "activations of other rows");
    let parts = [(first_line, halves(0)), (between, u32::MAX), (last_line, halves(lines.saturating_sub(1)))];
    let (mut acc, mut next) = ([s.zero(); M], following(w, [first, end], LANES));
    // With each second row, and each second word, a line of those that follow.
    let (mut at, each) = (bytes.as_ptr().wrapping_sub(from), 2 * LINE / chunk);
    for (x, halves) in parts {
        for x in x.chunks_exact(LANES * wide) {
            let mut t = [s.zero(); LANES];
            for i in 0..LANES {
                // SAFETY: every row has so many lines, and `halves` says what of each is the row's.
                t[i] = unsafe { E::line(s, at.wrapping_add(i * pitch), halves) };
                if i % each == 0 {
                    ask_here(s, &mut next);
                }
            }
            at = at.wrapping_add(chunk);
            let t = s.transpose(t);
            for i in 0..LANES {
                meet::<S, E, M>(s, &mut acc, t[i], &x[i * wide..], stride);
                if i % each == 0 {
                    ask_here(s, &mut next);
                }
            }
        }
    }
    acc
}

/// Activations as the lines of memory meet them in which the rows of a matrix lie: what is read across two lines is read
/// twice.
pub struct Lined<'a> {
    /// As they are packed, as one row or in tiles.
    all: &'a [f32],
    /// Bytes of a row's first line before the row.
    skew: usize,
    /// What the first line of a row meets, those between, and the last one, [`NOTHING`] where a line is not the row's.
    lines: [&'a [f32]; 3],
}

/// Words of what the first line meets and the last one.
pub const ENDS: usize = 2 * LANES * 2 * tile::MOST;

/// A number, or a pair of bf16: its product with zero is -0, which changes no sum.
const NOTHING: f32 = f32::from_bits(0x8000_8000);

impl<'a> Lined<'a> {
    /// `all`, packed as one row or as tiles (AVX-512: one tile), for `w` (`Order::Nk`, dense). `ends` are [`ENDS`] words of
    /// scratch.
    #[inline(always)]
    pub fn new<S: Simd, E: Elem>(w: &Matrix, all: &'a [f32], rows: usize, ends: &'a mut [f32]) -> Self {
        if const { S::REGISTERS < 32 } {
            return Lined { all, skew: 0, lines: [&[]; 3] }; // they do not read whole lines
        }
        let wide = parts::<S, E>() * if rows == 1 { 1 } else { tile::rows::<S>() };
        let (word, skew) = (E::K * E::BYTES, w.skew(chunk_bytes::<E>()));
        let skew = if skew.is_multiple_of(word) { skew } else { 0 };
        let (line, before) = (LANES * wide, skew / word * wide);
        let x = &all[..w.k().div_ceil(E::K) * wide];
        let (first, rest) = x.split_at(x.len().min(line - before));
        let (between, last) = rest.split_at(rest.len().saturating_sub(1) / line * line);
        let (ends_first, ends_last) = ends[..2 * line].split_at_mut(line);
        ends_first.fill(NOTHING);
        ends_last.fill(NOTHING);
        ends_first[before..][..first.len()].copy_from_slice(first);
        ends_last[..last.len()].copy_from_slice(last);
        let whole = |some: &[f32]| if some.is_empty() { 0 } else { line };
        Lined { all, skew, lines: [&ends_first[..whole(first)], between, &ends_last[..whole(last)]] }
    }
}

/// Lines so many bytes apart meet in one set of a first-level cache, which has room for eight of them.
const SET: usize = 4 << 10;

/// Bytes of a row at most that are asked for before it is read.
const BEGINNING: usize = 4 << 10;

/// Outputs `first..first + R` of `w` (`Order::Nk`, dense), all of which exist and lie at equal distances, times `M` rows of
/// `x`, packed as one row or as one tile, for sets with few registers and without pairs. The weights are transposed line by
/// line into a first-level cache, and the rows before `end` that follow are asked for. `R` is 8 or 16: the more outputs, the
/// better is the latency of few chains hidden; the fewer, the better does the processor foresee their streams.
#[inline(always)]
fn lines<S: Simd, E: Elem, const R: usize, const M: usize>(
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
            ask(s, &mut next);
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
