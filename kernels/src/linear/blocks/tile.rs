//! Floor 0: some rows of bytes times unpacked blocks of 32 outputs. Knows no formats.

use super::{BLOCK, BLOCK_WORDS, PANEL, Unpacked};
use crate::simd::{Dots, LANES};

/// Quads of k in a block.
const QUADS: usize = BLOCK / 4;

/// Bytes of a quad of 32 outputs.
const QUAD: usize = 4 * PANEL;

/// Words of activations after a block's bytes: scale, scale times sum, sums of the halves.
const SCALE: usize = QUADS;
const SCALED_SUM: usize = QUADS + 1;
const SUMS: usize = QUADS + 2;

/// sums `[M][32]` + weights in 0..=15 times `x [blocks][BLOCK_WORDS][stride]`.
#[inline(always)]
pub fn nibbles<S: Dots, const M: usize>(
    s: S,
    sums: &mut [[f32; PANEL]; M],
    w: &Unpacked,
    x: &[f32],
    stride: usize,
) {
    for half in [0, LANES] {
        for (b, codes) in w.codes.chunks_exact(w.stride).enumerate() {
            let x = &x[b * BLOCK_WORDS * stride..];
            let mut acc = [s.short(); M];
            for (q, codes) in codes.chunks_exact(QUAD).enumerate().take(QUADS) {
                let codes = s.load_i(codes[4 * half..].first_chunk().expect("sixteen quads"));
                let x = &x[q * stride..][..M];
                for i in 0..M {
                    acc[i] = s.nibbles(acc[i], codes, s.splat_i(x[i]));
                }
            }
            let scale = s.load(&w.scales[b][half..]);
            let mins = w.mins.map_or(s.zero(), |mins| s.load(&mins[b][half..]));
            let (scales, scaled) = (&x[SCALE * stride..][..M], &x[SCALED_SUM * stride..][..M]);
            for i in 0..M {
                let sum = s.to_f32(s.long(acc[i]));
                let out = s.load(&sums[i][half..]);
                let out = s.fma(sum, s.mul(scale, s.splat(scales[i])), out);
                s.store(s.fma(mins, s.splat(scaled[i]), out), &mut sums[i][half..]);
            }
        }
    }
}

/// sums `[M][32]` + weights in -127..=127 times `x [blocks][BLOCK_WORDS][stride]`; `GROUPS` scales a block.
#[inline(always)]
pub fn bytes<S: Dots, const M: usize, const GROUPS: usize>(
    s: S,
    sums: &mut [[f32; PANEL]; M],
    w: &Unpacked,
    x: &[f32],
    stride: usize,
) {
    for half in [0, LANES] {
        for (b, codes) in w.codes.chunks_exact(w.stride).enumerate() {
            let x = &x[b * BLOCK_WORDS * stride..];
            let (scales, scaled) = (&x[SCALE * stride..][..M], &x[SCALED_SUM * stride..][..M]);
            for g in 0..GROUPS {
                let sum = |i: usize, half: usize| x[(SUMS + half) * stride + i].to_bits().cast_signed();
                let mut acc = [s.begin(0); M];
                for i in 0..M {
                    acc[i] = s.begin(if GROUPS == 2 { sum(i, g) } else { sum(i, 0).wrapping_add(sum(i, 1)) });
                }
                for q in g * QUADS / GROUPS..(g + 1) * QUADS / GROUPS {
                    let codes = s.load_i(codes[q * QUAD + 4 * half..].first_chunk().expect("sixteen quads"));
                    let (codes, x) = (s.ready(codes), &x[q * stride..][..M]);
                    for i in 0..M {
                        acc[i] = s.bytes(acc[i], codes, s.splat_i(x[i]));
                    }
                }
                let scale = s.load(&w.scales[b * GROUPS + g][half..]);
                for i in 0..M {
                    let out = s.load(&sums[i][half..]);
                    let scale = s.mul(scale, s.splat(scales[i]));
                    s.store(s.fma(s.to_f32(acc[i]), scale, out), &mut sums[i][half..]);
                }
            }
            if let Some(mins) = w.mins {
                let mins = s.load(&mins[b][half..]);
                for i in 0..M {
                    let out = s.load(&sums[i][half..]);
                    s.store(s.fma(mins, s.splat(scaled[i]), out), &mut sums[i][half..]);
                }
            }
        }
    }
}
