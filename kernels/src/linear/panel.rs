//! Floor 0: 32 outputs of a matrix in panel layout `[steps][32]`, so that lanes are outputs: brought there from a file's
//! rows, or widened from a packed panel. Knows no activations.

use super::elem::{Elem, chunk_bytes, last_word, parts, split};
use super::{Matrix, Order, PANEL};
use crate::simd::{LANES, LINE, Simd, ask_here, times};
use std::ops::Range;

/// Steps `steps` (words of k) of outputs `first..first + 32` of `w` into `panel [words][32]`, a word as what meets a
/// word of activations: pairs of bf16 where pairs have an instruction, else f32. Outputs that do not exist become zero.
#[inline(always)]
pub fn fill<S: Simd, E: Elem>(
    s: S,
    panel: &mut [[f32; PANEL]],
    w: &Matrix,
    first: usize,
    steps: Range<usize>,
) {
    match w.order() {
        Order::Nk => dense::<S, E>(s, panel, w, first, steps),
        Order::Kn => across::<S, E>(s, panel, w, first, steps),
        Order::Panels => {
            let bytes = &w.panel(first / PANEL)[steps.start * PANEL * E::PACKED..];
            for (step, bytes) in bytes.chunks_exact(PANEL * E::PACKED).take(steps.len()).enumerate() {
                for half in [0, LANES] {
                    put::<S, E>(s, panel, step, half, E::packed(s, &bytes[half * E::PACKED..]));
                }
            }
        }
    }
}

/// Writes sixteen words, from lane `half` on.
#[inline(always)]
fn put<S: Simd, E: Elem>(s: S, panel: &mut [[f32; PANEL]], step: usize, half: usize, word: S::V) {
    let split = split::<S, E>(s, word);
    for part in 0..parts::<S, E>() {
        s.store(split[part], &mut panel[step * parts::<S, E>() + part][half..]);
    }
}

/// Rows of outputs, sixteen at a time, sixteen words at a time.
#[inline(always)]
fn dense<S: Simd, E: Elem>(s: S, panel: &mut [[f32; PANEL]], w: &Matrix, first: usize, steps: Range<usize>) {
    let chunk = chunk_bytes::<E>();
    // With each second row, and each second word, a line of the next sixteen rows, in the order of their addresses.
    let each = 2 * LINE / chunk;
    for half in [0, LANES] {
        let mut next = w.ahead(first + half + LANES).wrapping_add(steps.start * chunk / LANES);
        let mut rows: [&[u8]; LANES] = [&[]; LANES];
        for (i, row) in rows.iter_mut().enumerate() {
            if first + half + i < w.n() {
                *row = &w.row(first + half + i)[steps.start * chunk / LANES..];
            }
        }
        let whole =
            if first + half + LANES <= w.n() { (rows[0].len() / chunk).min(steps.len() / LANES) } else { 0 };
        for j in 0..whole {
            let mut x = [s.zero(); LANES];
            for i in 0..times::<S>(LANES) {
                x[i] = E::words(s, &rows[i][j * chunk..]);
                if i % each == 0 {
                    ask_here(s, &mut next);
                }
            }
            let x = s.transpose(x);
            for i in 0..times::<S>(LANES) {
                put::<S, E>(s, panel, j * LANES + i, half, x[i]);
                if i % each == 0 {
                    ask_here(s, &mut next);
                }
            }
        }
        for word in whole * LANES..steps.len() {
            let mut x = [0.0; LANES];
            for i in 0..times::<S>(LANES) {
                x[i] = last_word::<E>(rows[i], word);
            }
            put::<S, E>(s, panel, word, half, s.load(&x));
        }
    }
}

/// Rows of inputs: the lanes lie side by side already.
#[inline(always)]
pub fn across<S: Simd, E: Elem>(
    s: S,
    panel: &mut [[f32; PANEL]],
    w: &Matrix,
    first: usize,
    steps: Range<usize>,
) {
    let bytes = LANES * E::BYTES;
    for (at, word) in steps.enumerate() {
        let low = &w.row(word * E::K)[first * E::BYTES..];
        let high =
            if E::K == 2 && word * 2 + 1 < w.k() { &w.row(word * 2 + 1)[first * E::BYTES..] } else { &[] };
        for half in 0..2 {
            let (low, high) =
                (low.get(half * bytes..).unwrap_or(&[]), high.get(half * bytes..).unwrap_or(&[]));
            let word = if low.len() >= bytes && E::K == 1 {
                E::widen(s, low)
            } else if low.len() >= bytes && high.len() >= bytes {
                s.flush(s.pair(E::widen(s, low), E::widen(s, high)))
            } else {
                let mut lanes = [0.0; LANES];
                for (i, lane) in lanes.iter_mut().enumerate() {
                    *lane = lane_word::<E>(low, high, i);
                }
                s.load(&lanes)
            };
            put::<S, E>(s, panel, at, half * LANES, word);
        }
    }
}

/// The word of lane `i` of two rows of inputs; what is missing counts as zero.
#[inline(always)]
fn lane_word<E: Elem>(low: &[u8], high: &[u8], i: usize) -> f32 {
    let at = |row: &[u8]| {
        let mut bytes = [0; 4];
        if let Some(found) = row.get(i * E::BYTES..(i + 1) * E::BYTES) {
            bytes[..E::BYTES].copy_from_slice(found);
        }
        bytes
    };
    E::word(at(low), at(high))
}
