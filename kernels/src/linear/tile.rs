//! Floor 0: some rows times one panel of outputs, with the sums in registers over a run of k. Knows no files.

use super::PANEL;
use super::elem::{Elem, parts, split, step};
use crate::simd::{LANES, Simd};

/// Rows of a tile: with two vectors of outputs, 14 take 28 of AVX-512's 32 registers, beside two of weights and one of
/// activations; with one vector (two registers), 6 take 12 of AVX2's 16.
#[inline(always)]
pub const fn rows<S: Simd>() -> usize {
    match S::REGISTERS {
        32.. => 14,
        16.. => 6,
        _ => 1,
    }
}

/// [`rows`] at most.
pub const MOST: usize = 14;

/// Steps of k (words of a panel) that are multiplied at once: a panel of so many stays in a second-level cache while
/// all rows meet it, and what a tile reads of the activations in a first-level one.
pub const STEPS: usize = 1024;

/// Rows at most whose sums leave AVX2 registers for all lanes, and that ask for weights by themselves, if at all: [`AHEAD`] of
/// where they read.
pub const ALONE: usize = 3;

/// Into `sums`, on top of what is there unless it is to be `fresh`: `M` rows of packed activations `x [words][stride]` times
/// `panel [steps][32]`. Bytes of a step: `32 * E::PACKED`. Where it `ASKS`, what will be read `next` comes near meanwhile.
#[inline(always)]
pub fn tile<S: Simd, E: Elem, const M: usize, const ASKS: bool>(
    s: S,
    sums: &mut [[f32; PANEL]; M],
    panel: &[u8],
    x: &[f32],
    stride: usize,
    fresh: bool,
    next: &[u8],
) {
    // Few rows leave registers for all lanes, and then the panel passes once.
    if const { S::REGISTERS >= 32 || (S::REGISTERS >= 16 && M <= ALONE) } {
        chains::<S, E, M, 2, ASKS>(s, sums, panel, x, stride, 0, fresh, next);
    } else {
        let (low, high) = next.split_at(next.len() / 2);
        chains::<S, E, M, 1, ASKS>(s, sums, panel, x, stride, 0, fresh, low);
        chains::<S, E, M, 1, ASKS>(s, sums, panel, x, stride, LANES, fresh, high);
    }
}

/// Bytes between what few rows read and what is asked for, at least: what is on its way while a line comes from memory.
pub const AHEAD: usize = 4096;

/// Lanes `at..at + 16 V` of a tile.
#[inline(always)]
fn chains<S: Simd, E: Elem, const M: usize, const V: usize, const ASKS: bool>(
    s: S,
    sums: &mut [[f32; PANEL]; M],
    panel: &[u8],
    x: &[f32],
    stride: usize,
    at: usize,
    fresh: bool,
    next: &[u8],
) {
    let (mut next, each) = (next.as_ptr(), next.len() * PANEL * E::PACKED / panel.len().max(1));
    let mut acc = [[s.zero(); V]; M];
    if !fresh {
        for i in 0..M {
            for v in 0..V {
                acc[i][v] = s.load(&sums[i][at + v * LANES..]);
            }
        }
    }
    for (w, x) in panel.chunks_exact(PANEL * E::PACKED).zip(x.chunks_exact(parts::<S, E>() * stride)) {
        // Single elements take so few instructions that the processor is that far ahead by itself.
        if const { V == 2 && M <= ALONE && E::K == 2 } {
            for line in (0..PANEL * E::PACKED).step_by(64) {
                s.prefetch_first(w.as_ptr().wrapping_add(AHEAD + line));
            }
        }
        if const { ASKS } {
            // In the order of their addresses, whichever lanes pass: the processor sees one stream.
            for line in 0..V {
                s.prefetch(next.wrapping_add(line * 64));
            }
            next = next.wrapping_add(each);
        }
        let mut lanes = [[s.zero(); V]; 2];
        for v in 0..V {
            let word = E::packed(s, &w[(at + v * LANES) * E::PACKED..]);
            [lanes[0][v], lanes[1][v]] = split::<S, E>(s, word);
        }
        for part in 0..parts::<S, E>() {
            let x = &x[part * stride..][..M];
            for i in 0..M {
                let x = s.splat(x[i]);
                for v in 0..V {
                    acc[i][v] = step::<S, E>(s, acc[i][v], lanes[part][v], x);
                }
            }
        }
    }
    for i in 0..M {
        for v in 0..V {
            s.store(acc[i][v], &mut sums[i][at + v * LANES..]);
        }
    }
}
