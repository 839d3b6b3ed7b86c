//! Floor 0: 32 inputs of a matrix side by side, as f32 `[outputs][32]`: what a gradient of outputs meets on its way back.
//! Every type is widened exactly; subnormal bf16 are zero, as they are on the way there. Knows no gradients.

use super::blocks::{self, Form, block, panel_block};
use super::elem::{Bf16, Elem, F16, F32, Wide};
use super::panel::{across, dense};
use super::{Matrix, Order, PANEL};
use crate::dtype::DType;
use crate::ops::per_isa;
use crate::simd::{LANES, Simd, times};
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
        (DType::F32, Order::Panels) => squares::<S, F32>(s, panel, w, first, some),
        (DType::F16, Order::Panels) => squares::<S, F16>(s, panel, w, first, some),
        (DType::BF16, Order::Panels) => squares::<S, Bf16>(s, panel, w, first, some),
        (DType::F32, Order::Nk) => across::<S, F32>(s, panel, &w.turned(), first, some),
        (DType::F16, Order::Nk) => across::<S, F16>(s, panel, &w.turned(), first, some),
        (DType::BF16, Order::Nk) => across::<S, Wide>(s, panel, &w.turned(), first, some),
        (DType::F32, Order::Kn) => dense::<S, F32>(s, panel, &w.turned(), first, some),
        (DType::F16, Order::Kn) => dense::<S, F16>(s, panel, &w.turned(), first, some),
        (DType::BF16, Order::Kn) => dense::<S, Wide>(s, panel, &w.turned(), first, some),
        _ => quantised(panel, w, first, some),
    }
}

/// From packed panels, sixteen outputs and sixteen words of inputs at a time.
#[inline(always)]
fn squares<S: Simd, E: Elem>(s: S, panel: &mut [[f32; PANEL]], w: &Matrix, first: usize, some: Range<usize>) {
    let words = PANEL.min(w.k() - first).div_ceil(E::K);
    for (at, to) in some.clone().step_by(PANEL).zip(panel[..some.len()].chunks_mut(PANEL)) {
        let bytes = &w.panel(at / PANEL)[first / E::K * PANEL * E::PACKED..];
        for (half, word) in [(0, 0), (0, LANES), (LANES, 0), (LANES, LANES)] {
            if word >= PANEL / E::K || half >= to.len() {
                continue;
            }
            let mut x = [s.zero(); LANES];
            for i in 0..times::<S>(LANES.min(words.saturating_sub(word))) {
                x[i] = E::packed(s, &bytes[((word + i) * PANEL + half) * E::PACKED..]);
            }
            let x = s.transpose(x);
            for i in 0..times::<S>(LANES.min(to.len() - half)) {
                let to = &mut to[half + i];
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
