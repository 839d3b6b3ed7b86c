//! Floor 0: 32 inputs of a matrix side by side, as f32 `[outputs][32]`: what a gradient of outputs meets on its way back.
//! Every type is widened exactly; subnormal bf16 are zero, as they are on the way there. Knows no gradients.

use super::blocks::{self, Form, block, panel_block};
use super::elem::{Bf16, Elem, F16, F32, Wide};
use super::panel::across;
use super::{Matrix, Order, PANEL};
use crate::dtype::DType;
use crate::ops::per_isa;
use crate::simd::{Apart, LANES, Simd, times};
use std::ops::Range;

/// Elements of a block of a quantised type that are unpacked at once.
const BLOCK: usize = 32;

per_isa! {
    /// Outputs `some` (from a multiple of [`PANEL`] on) and inputs `first..first + 32` of `w` into `panel [some][32]`. Inputs
    /// that do not exist become zero.
    pub fn turn(panel: &mut [[f32; PANEL]], w: &Matrix, first: usize, some: Range<usize>) =
        turn_with as turn_isa on scalar avx2;
}

#[inline(always)]
fn turn_with<S: Simd>(s: S, panel: &mut [[f32; PANEL]], w: &Matrix, first: usize, some: Range<usize>) {
    match (w.dtype(), w.order()) {
        (DType::F32, Order::Nk) => across::<S, F32>(s, panel, &w.turned(), first, some),
        (DType::F16, Order::Nk) => across::<S, F16>(s, panel, &w.turned(), first, some),
        (DType::BF16, Order::Nk) => across::<S, Wide>(s, panel, &w.turned(), first, some),
        (DType::F32, _) => squares::<S, F32>(s, panel, w, first, some),
        (DType::F16, _) => squares::<S, F16>(s, panel, w, first, some),
        (DType::BF16, Order::Panels) => squares::<S, Bf16>(s, panel, w, first, some),
        (DType::BF16, _) => squares::<S, Wide>(s, panel, w, first, some),
        _ => quantised(panel, w, first, some),
    }
}

/// Lanes and vectors exchanged, compiled once for a set.
struct Square<S: Simd>([S::V; LANES]);

impl<S: Simd> Apart<S> for Square<S> {
    type Out = [S::V; LANES];

    #[inline(always)]
    fn run(self, s: S) -> Self::Out {
        s.transpose(self.0)
    }
}

/// From packed panels or rows of inputs, sixteen outputs and sixteen words of inputs at a time.
#[inline(always)]
fn squares<S: Simd, E: Elem>(s: S, panel: &mut [[f32; PANEL]], w: &Matrix, first: usize, some: Range<usize>) {
    let (words, mut room) = (PANEL.min(w.k() - first).div_ceil(E::K), [0; 4 * LANES]);
    for (at, to) in some.clone().step_by(LANES).zip(panel[..some.len()].chunks_mut(LANES)) {
        for word in (0..PANEL / E::K).step_by(LANES) {
            let mut x = [s.zero(); LANES];
            for i in 0..times::<S>(LANES.min(words.saturating_sub(word))) {
                x[i] = E::packed(s, outputs::<E>(w, first / E::K + word + i, at, &mut room));
            }
            let x = s.apart(Square::<S>(x));
            for (i, to) in to.iter_mut().enumerate() {
                if E::K == 1 {
                    s.store(x[i], &mut to[word..]);
                } else {
                    // The elements of sixteen pairs, in order.
                    let mut pairs = [0.0; LANES];
                    s.store(x[i], &mut pairs);
                    let [low, high]: [[u8; 2 * LANES]; 2] = bytemuck::cast(pairs);
                    s.store(s.load_bf16(&low), to);
                    s.store(s.load_bf16(&high), &mut to[LANES..]);
                }
            }
        }
    }
}

/// Word `word` of the inputs of sixteen outputs from `at` on, side by side; those that do not exist are zeros.
#[inline(always)]
fn outputs<'a, E: Elem>(w: &Matrix<'a>, word: usize, at: usize, room: &'a mut [u8; 4 * LANES]) -> &'a [u8] {
    if w.order() == Order::Panels {
        return &w.panel(at / PANEL)[(word * PANEL + at % PANEL) * E::PACKED..];
    }
    let bytes = &w.row(word)[at * E::BYTES..];
    if bytes.len() >= LANES * E::BYTES {
        return bytes;
    }
    room.fill(0);
    room[..bytes.len()].copy_from_slice(bytes);
    room
}

/// Blocks of 32 inputs, one output after the other.
#[inline(never)]
fn quantised(panel: &mut [[f32; PANEL]], w: &Matrix, first: usize, some: Range<usize>) {
    let (form, b, blocks) = (Form::of(w.dtype()), first / BLOCK, w.k() / BLOCK);
    for (n, out) in some.zip(panel) {
        let codes = match w.order() {
            Order::Panels => panel_block(&form, w.panel(n / PANEL), [b, blocks], n % PANEL),
            _ => block(w.dtype(), w.row(n), b),
        };
        blocks::values(&form, codes, out);
    }
}
