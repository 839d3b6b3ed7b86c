//! Floor 0: some rows times one panel of outputs, with the sums in registers over all of k. Knows no files.

use super::PANEL;
use super::elem::Elem;
use crate::simd::{LANES, Simd};

/// Rows of a tile: with two vectors of outputs, 14 take 28 of AVX-512's 32 registers, beside two of weights and one of
/// activations; with one vector (two registers), 6 take 12 of AVX2's 16.
#[inline(always)]
pub fn rows<S: Simd>() -> usize {
    match S::REGISTERS {
        32.. => 14,
        16.. => 6,
        _ => 1,
    }
}

/// `M` rows of packed activations `x [words of k][stride]` times `panel [words of k][32]`.
#[inline(always)]
pub fn tile<S: Simd, E: Elem, const M: usize>(
    s: S,
    panel: &[[f32; PANEL]],
    x: &[f32],
    stride: usize,
) -> [[f32; PANEL]; M] {
    let mut out = [[0.0; PANEL]; M];
    if const { S::REGISTERS >= 32 } {
        chains::<S, E, M, 2>(s, &mut out, panel, x, stride, 0);
    } else {
        chains::<S, E, M, 1>(s, &mut out, panel, x, stride, 0);
        chains::<S, E, M, 1>(s, &mut out, panel, x, stride, LANES);
    }
    out
}

/// Lanes `at..at + 16 V` of a tile.
#[inline(always)]
fn chains<S: Simd, E: Elem, const M: usize, const V: usize>(
    s: S,
    out: &mut [[f32; PANEL]; M],
    panel: &[[f32; PANEL]],
    x: &[f32],
    stride: usize,
    at: usize,
) {
    let mut acc = [[s.zero(); V]; M];
    for (w, x) in panel.iter().zip(x.chunks_exact(stride)) {
        let (x, mut lanes) = (&x[..M], [s.zero(); V]);
        for v in 0..V {
            lanes[v] = s.load(&w[at + v * LANES..]);
        }
        for i in 0..M {
            let x = s.splat(x[i]);
            for v in 0..V {
                acc[i][v] = E::step(s, acc[i][v], lanes[v], x);
            }
        }
    }
    for i in 0..M {
        for v in 0..V {
            s.store(acc[i][v], &mut out[i][at + v * LANES..]);
        }
    }
}
