//! Floor 0: 32 outputs of a matrix brought into panel layout `[words of k][32]`, so that lanes are outputs. Knows no
//! activations.

use super::elem::{Bf16, Elem, F16, F32, chunk_bytes, last_word};
use super::{Matrix, Order, PANEL};
use crate::dtype::DType;
use crate::quant::dequantize_row;
use crate::simd::{LANES, Simd};

/// Scratch words of one panel: the panel, and 16 rows of a quantised matrix in f32.
pub fn words(k: usize, dtype: DType) -> usize {
    let rows = if dtype.block() == 1 { 0 } else { LANES };
    k.saturating_mul(PANEL + rows)
}

/// Outputs `first..first + 32` of `w` into `panel [words of k][32]`; outputs that do not exist become zero. `spare` is
/// what [`words`] adds for quantised types.
#[inline(always)]
pub fn fill<S: Simd>(s: S, panel: &mut [[f32; PANEL]], spare: &mut [f32], w: &Matrix, first: usize) {
    match (w.dtype(), w.order()) {
        (DType::F32, Order::Nk) => dense::<S, F32>(s, panel, w, first),
        (DType::F16, Order::Nk) => dense::<S, F16>(s, panel, w, first),
        (DType::BF16, Order::Nk) => dense::<S, Bf16>(s, panel, w, first),
        (DType::F32, Order::Kn) => across::<S, F32>(s, panel, w, first),
        (DType::F16, Order::Kn) => across::<S, F16>(s, panel, w, first),
        (DType::BF16, Order::Kn) => across::<S, Bf16>(s, panel, w, first),
        _ => quantised(s, panel, spare, w, first),
    }
}

/// Rows of outputs, sixteen at a time, sixteen words at a time.
#[inline(always)]
fn dense<S: Simd, E: Elem>(s: S, panel: &mut [[f32; PANEL]], w: &Matrix, first: usize) {
    for half in [0, LANES] {
        let mut next = w.ahead(first + half + LANES);
        let mut rows: [&[u8]; LANES] = [&[]; LANES];
        for (i, row) in rows.iter_mut().enumerate() {
            if first + half + i < w.n() {
                *row = w.row(first + half + i);
            }
        }
        let whole = if first + half + LANES <= w.n() { rows[0].len() / chunk_bytes::<E>() } else { 0 };
        for j in 0..whole {
            let mut x = [s.zero(); LANES];
            for i in 0..LANES {
                x[i] = E::words(s, &rows[i][j * chunk_bytes::<E>()..]);
                // The next sixteen rows, in the order of their addresses: the processor sees one stream.
                if chunk_bytes::<E>() == 64 || i % 2 == 0 {
                    s.prefetch(next);
                    next = next.wrapping_add(64);
                }
            }
            let x = s.transpose(x);
            for i in 0..LANES {
                s.store(x[i], &mut panel[j * LANES + i][half..]);
            }
        }
        for word in whole * LANES..panel.len() {
            for i in 0..LANES {
                panel[word][half + i] = last_word::<E>(rows[i], word);
            }
        }
    }
}

/// Rows of inputs: the lanes lie side by side already.
#[inline(always)]
fn across<S: Simd, E: Elem>(s: S, panel: &mut [[f32; PANEL]], w: &Matrix, first: usize) {
    let bytes = LANES * E::BYTES;
    for (word, out) in panel.iter_mut().enumerate() {
        let low = &w.row(word * E::K)[first * E::BYTES..];
        let high =
            if E::K == 2 && word * 2 + 1 < w.k() { &w.row(word * 2 + 1)[first * E::BYTES..] } else { &[] };
        for half in 0..2 {
            let (low, high) =
                (low.get(half * bytes..).unwrap_or(&[]), high.get(half * bytes..).unwrap_or(&[]));
            let out = &mut out[half * LANES..];
            if low.len() >= bytes && E::K == 1 {
                s.store(E::widen(s, low), out);
            } else if low.len() >= bytes && high.len() >= bytes {
                s.store(s.flush(s.pair(E::widen(s, low), E::widen(s, high))), out);
            } else {
                for i in 0..LANES {
                    out[i] = lane_word::<E>(low, high, i);
                }
            }
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

/// Quantised rows, widened sixteen at a time.
#[inline(always)]
fn quantised<S: Simd>(s: S, panel: &mut [[f32; PANEL]], spare: &mut [f32], w: &Matrix, first: usize) {
    let k = w.k();
    for half in [0, LANES] {
        for i in 0..LANES {
            let row = &mut spare[i * k..][..k];
            if first + half + i < w.n() {
                dequantize_row(w.dtype(), w.row(first + half + i), row);
            } else {
                row.fill(0.0);
            }
        }
        // Blocks hold a multiple of 32 elements, so k has no rest.
        for j in (0..k).step_by(LANES) {
            let mut x = [s.zero(); LANES];
            for i in 0..LANES {
                x[i] = s.load(&spare[i * k + j..]);
            }
            let x = s.transpose(x);
            for i in 0..LANES {
                s.store(x[i], &mut panel[j + i][half..]);
            }
        }
    }
}
