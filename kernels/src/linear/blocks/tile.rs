//! Floor 0: some rows of bytes times one unpacked block of 32 outputs. Knows no formats.

use super::{BLOCK, BLOCK_WORDS, PANEL};
use crate::simd::{Dots, LANES};

/// Quads of k in a block.
const QUADS: usize = BLOCK / 4;

/// Bytes of a quad of 32 outputs.
const QUAD: usize = 4 * PANEL;

/// Words of activations after a block's bytes: scale, scale times sum.
const SCALE: usize = QUADS;
const SCALED_SUM: usize = QUADS + 1;

/// Words between two quads of `M` rows: rows lie in pieces of `stride`, or one alone.
#[inline(always)]
fn row_words<S: Dots, const ONE: bool>() -> usize {
    if ONE { 1 } else { super::dense::rows::<S>() }
}

/// Sixteen quads from byte `at` on.
#[inline(always)]
fn quads<S: Dots>(s: S, codes: &[u8], at: usize) -> S::I {
    s.load_i(codes[at..].first_chunk().expect("sixteen quads"))
}

/// sums `[M][32]` + codes in 0..=15 times `x [BLOCK_WORDS][stride]`: codes `[quads][32][4]`, or `PACKED` two quads to a
/// byte.
#[inline(always)]
pub fn nibbles<S: Dots, const M: usize, const ONE: bool, const PACKED: bool>(
    s: S,
    sums: &mut [[f32; PANEL]; M],
    codes: &[u8],
    scales: &[f32; PANEL],
    mins: &[f32; PANEL],
    x: &[f32],
) {
    let stride = row_words::<S, ONE>();
    let (codes, x) =
        (&codes[..QUADS * QUAD / if PACKED { 2 } else { 1 }], &x[..(BLOCK_WORDS - 1) * stride + M]);
    for half in [0, LANES] {
        let mut acc = [s.short(); M];
        for pair in 0..QUADS / 2 {
            let both = if PACKED {
                let both = quads(s, codes, pair * QUAD + 4 * half);
                [s.low(both), s.high(both)]
            } else {
                [
                    quads(s, codes, 2 * pair * QUAD + 4 * half),
                    quads(s, codes, (2 * pair + 1) * QUAD + 4 * half),
                ]
            };
            for q in 0..2 {
                for i in 0..M {
                    acc[i] = s.nibbles(acc[i], both[q], s.splat_i(x[(2 * pair + q) * stride + i]));
                }
            }
        }
        let (scale, min) = (s.load(&scales[half..]), s.load(&mins[half..]));
        for i in 0..M {
            let sum = s.to_f32(s.long(acc[i]));
            let out = s.fma(sum, s.mul(scale, s.splat(x[SCALE * stride + i])), s.load(&sums[i][half..]));
            s.store(s.fma(min, s.splat(x[SCALED_SUM * stride + i]), out), &mut sums[i][half..]);
        }
    }
}

/// sums `[M][32]` + codes in -127..=127 times `x [words of a block][stride]`: codes `[quads][32][4]`, or where
/// they are `READY` as the set multiplies them, `[pairs][32][2]` if it widens; `GROUPS` scales a block.
#[inline(always)]
pub fn bytes<S: Dots, const M: usize, const ONE: bool, const READY: bool, const GROUPS: usize>(
    s: S,
    sums: &mut [[f32; PANEL]; M],
    codes: &[u8],
    scales: &[[f32; PANEL]; GROUPS],
    mins: Option<&[f32; PANEL]>,
    x: &[f32],
) {
    let (stride, words) = (row_words::<S, ONE>(), S::PARTS * QUADS);
    let (scale_at, sum_at, sums_at) = (words, words + 1, words + 2);
    let size = if READY { words } else { QUADS } * QUAD;
    let (codes, x) = (&codes[..size], &x[..(words + 3) * stride + M]);
    for half in [0, LANES] {
        for g in 0..GROUPS {
            let mut acc = [s.begin(0); M];
            for i in 0..M {
                let [a, b] = [sums_at, sums_at + 1].map(|at| x[at * stride + i].to_bits().cast_signed());
                let sum = if GROUPS == 1 { a.wrapping_add(b) } else { [a, b][g] };
                acc[i] = s.begin(sum);
            }
            for q in g * QUADS / GROUPS..(g + 1) * QUADS / GROUPS {
                for part in 0..S::PARTS {
                    let w = if READY {
                        s.widened(quads(s, codes, (part * QUADS + q) * QUAD + 4 * half))
                    } else {
                        s.ready(quads(s, codes, q * QUAD + 4 * half), part)
                    };
                    for i in 0..M {
                        acc[i] = s.bytes(acc[i], w, s.splat_i(x[(part * QUADS + q) * stride + i]));
                    }
                }
            }
            let scale = s.load(&scales[g][half..]);
            for i in 0..M {
                let scale = s.mul(scale, s.splat(x[scale_at * stride + i]));
                let out = s.fma(s.to_f32(acc[i]), scale, s.load(&sums[i][half..]));
                s.store(out, &mut sums[i][half..]);
            }
        }
        if let Some(mins) = mins {
            let min = s.load(&mins[half..]);
            for i in 0..M {
                let scaled = s.splat(x[sum_at * stride + i]);
                s.store(s.fma(min, scaled, s.load(&sums[i][half..])), &mut sums[i][half..]);
            }
        }
    }
}
