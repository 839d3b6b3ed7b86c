//! Floor 0: packed panels: 32 outputs of a matrix brought side by side once, so that every product afterwards reads one
//! sequential stream in which lanes are outputs. Knows no arithmetic.
//!
//! Dense types lie `[words of k][32]`: an element, or for bf16 a pair with subnormals flushed. Quantised ones lie as
//! `blocks/form.rs` says. Outputs beyond the last are zeros.

use super::blocks::{self, Form, block, panel_block, put_block, values};
use super::elem::{Bf16, Elem, F16, F32, chunk_bytes};
use super::{Matrix, Order, PANEL};
use crate::dtype::DType;
use crate::ops::{Ops, per_isa};
use crate::quant::dequantize_row;
use crate::simd::{LANES, Simd, near, times};

/// Elements of a block.
const BLOCK: usize = 32;

/// Bytes of a panel of [`PANEL`] outputs and `k` inputs; `None` where `k` is not whole blocks or too large.
#[must_use]
pub fn panel_bytes(dtype: DType, k: usize) -> Option<usize> {
    match dtype {
        DType::F32 => k.checked_mul(4 * PANEL),
        DType::F16 => k.checked_mul(2 * PANEL),
        DType::BF16 => k.div_ceil(2).checked_mul(4 * PANEL),
        _ => blocks::panel_bytes(dtype, k),
    }
}

/// Writes panel `p` of `w` (in file layout) to `out`, which has [`panel_bytes`] bytes and whatever in them. Every
/// instruction set writes the same bytes.
///
/// Panics where the sizes do not fit.
pub fn pack_panel(out: &mut [u8], w: &Matrix, p: usize) {
    (Ops::best().pack_panel)(out, w, p);
}

per_isa! {
    /// [`pack_panel`].
    pub fn panel(out: &mut [u8], w: &Matrix, p: usize) = panel_with as pack_panel_isa on scalar avx2;
}

#[inline(always)]
fn panel_with<S: Simd>(s: S, out: &mut [u8], w: &Matrix, p: usize) {
    assert!(Some(out.len()) == panel_bytes(w.dtype(), w.k()), "a panel of another size");
    match (w.dtype(), w.order()) {
        (DType::F32, Order::Nk) => words::<S, F32>(s, out, w, p),
        (DType::BF16, Order::Nk) => words::<S, Bf16>(s, out, w, p),
        (DType::F32, _) => elements::<F32>(out, w, p, 0),
        (DType::F16, _) => elements::<F16>(out, w, p, 0),
        (DType::BF16, _) => elements::<Bf16>(out, w, p, 0),
        _ => quantised(out, w, p),
    }
}

/// Blocks of a quantised type, in the panel's order of bits.
#[inline(never)]
fn quantised(out: &mut [u8], w: &Matrix, p: usize) {
    out.fill(0);
    let (form, blocks) = (Form::of(w.dtype()), w.k() / BLOCK);
    for lane in 0..PANEL.min(w.n() - p * PANEL) {
        let row = w.row(p * PANEL + lane);
        for b in 0..blocks {
            put_block(&form, out, [b, blocks], lane, &block(w.dtype(), row, b));
        }
    }
}

/// Rows of words of 32 bits, transposed sixteen by sixteen; what is no whole square goes one by one.
#[inline(always)]
fn words<S: Simd, E: Elem>(s: S, out: &mut [u8], w: &Matrix, p: usize) {
    let (first, chunk) = (p * PANEL, chunk_bytes::<E>());
    let whole = if first + PANEL <= w.n() { w.row(first).len() / chunk } else { 0 };
    for half in [0, LANES] {
        let mut rows: [&[u8]; LANES] = [&[]; LANES];
        for (i, row) in rows.iter_mut().enumerate().take(if whole > 0 { LANES } else { 0 }) {
            *row = w.row(first + half + i);
        }
        for j in 0..whole {
            let mut x = [s.zero(); LANES];
            for i in 0..times::<S>(LANES) {
                x[i] = E::words(s, &rows[i][j * chunk..]);
            }
            let x = s.transpose(x);
            for i in 0..times::<S>(LANES) {
                let mut lanes = [0.0f32; LANES];
                s.store(x[i], &mut lanes);
                let at = ((j * LANES + i) * PANEL + half) * 4;
                out[at..at + 4 * LANES].copy_from_slice(bytemuck::bytes_of(&lanes));
            }
        }
    }
    elements::<E>(out, w, p, whole * LANES);
}

/// Words of 32 outputs from word `from` on, one by one.
#[inline(never)]
fn elements<E: Elem>(out: &mut [u8], w: &Matrix, p: usize, from: usize) {
    let (first, words) = (p * PANEL, w.k().div_ceil(E::K));
    let lanes = PANEL.min(w.n() - first);
    let element = |lane: usize, k: usize| -> [u8; 4] {
        let (row, at) = if w.order() == Order::Nk { (first + lane, k) } else { (k, first + lane) };
        let mut bytes = [0; 4];
        if k < w.k() {
            bytes[..E::BYTES].copy_from_slice(&w.row(row)[at * E::BYTES..][..E::BYTES]);
        }
        bytes
    };
    for (word, out) in out.chunks_exact_mut(PANEL * E::PACKED).enumerate().take(words).skip(from) {
        for (lane, out) in out.chunks_exact_mut(E::PACKED).enumerate() {
            if lane >= lanes {
                out.fill(0);
            } else if E::K == 2 {
                let pair = E::word(element(lane, 2 * word), element(lane, 2 * word + 1));
                out.copy_from_slice(&pair.to_bits().to_le_bytes());
            } else {
                out.copy_from_slice(&element(lane, word)[..E::PACKED]);
            }
        }
    }
}

/// Row `r` of a matrix in panels, as f32: what [`dequantize_row`] makes of the row that was
/// packed, but for flushed subnormals. Panics where `out` has not k elements or there is no such row.
pub fn embed_row(w: &Matrix, r: usize, out: &mut [f32]) {
    assert!(r < w.n() && out.len() == w.k(), "row {r} of {}", w.n());
    let (panel, lane) = (w.panel(r / PANEL), r % PANEL);
    if w.dtype().block() > 1 {
        let (form, blocks) = (Form::of(w.dtype()), w.k() / BLOCK);
        for (b, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            values(&form, panel_block(&form, panel, [b, blocks], lane), out);
        }
        return;
    }
    match w.dtype() {
        DType::F16 => dense_row::<2>(w.dtype(), panel, lane, out),
        _ => dense_row::<4>(w.dtype(), panel, lane, out),
    }
}

/// Asks for what [`embed_row`] reads of row `r`, where its blocks are spread over lines that no processor foresees.
pub fn ask_row(w: &Matrix, r: usize) {
    if w.dtype().block() == 1 || r >= w.n() {
        return;
    }
    let (form, blocks, panel) = (Form::of(w.dtype()), w.k() / BLOCK, w.panel(r / PANEL).as_ptr());
    for b in 0..blocks {
        let (head, small) = form.place(b, blocks);
        let codes = small + form.scale_bytes() + r % PANEL * 4;
        for at in [head, small].into_iter().chain((codes..).step_by(4 * PANEL).take(form.bits)) {
            near(panel.wrapping_add(at));
        }
    }
}

/// Elements of a row that are gathered at once.
const PIECE: usize = 256;

/// Output `lane` of a panel whose words have `P` bytes: brought to a file's layout, piece by piece, and widened.
fn dense_row<const P: usize>(dtype: DType, panel: &[u8], lane: usize, out: &mut [f32]) {
    let mut words = panel.as_chunks::<P>().0.iter().skip(lane).step_by(PANEL);
    let (mut row, size) = ([0; 4 * PIECE], dtype.block_bytes());
    for out in out.chunks_mut(PIECE) {
        let bytes = out.len() * size;
        for (to, word) in row[..bytes.next_multiple_of(P)].as_chunks_mut::<P>().0.iter_mut().zip(&mut words) {
            *to = *word;
        }
        dequantize_row(dtype, &row[..bytes], out);
    }
}
