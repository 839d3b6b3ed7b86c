//! Floor 0: weights brought to types of our own, error-minimising and straight into packed panels: 8 bits with a scale for
//! each 32 ([`DType::Q8_0`]), 6 bits with an eight-bit scale for each 16 ([`DType::Q6K`]), or 4 bits with six-bit scales and
//! minima ([`DType::Q4K`]); the small scales under halves for each run of eight blocks, of any k that is a multiple of 32.
//! Knows no files and no models.
//!
//! Plain f32 without fused steps, sums over eight lanes that are folded in one order, no functions of a library: the same
//! bits on every machine.

mod eight;
mod feedback;
mod four;
mod six;

pub use feedback::{Guide, spans};

use super::blocks::{Form, put_block};
use super::{Matrix, Order, PANEL, panel_bytes};
use crate::dtype::DType;
use crate::math::MAGIC;
use crate::quant::dequantize_row;
use half::f16;
use std::fmt;

/// Elements of a block.
const BLOCK: usize = 32;
/// Parts of a sum, which a compiler may keep in vectors.
const LANES: usize = 8;
/// A block's values, or what weighs their errors.
type Values = [f32; BLOCK];

/// A weight that no scale of the type reaches: not finite, or too large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unrepresentable {
    /// Output.
    pub row: usize,
    /// Input.
    pub column: usize,
    /// What is there.
    pub value: f32,
}

impl fmt::Display for Unrepresentable {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Unrepresentable { row, column, value } = self;
        write!(
            f,
            "output {row}, input {column} is {value}, which is not a number of the range that can be quantised"
        )
    }
}

impl std::error::Error for Unrepresentable {}

/// Writes panel `p` of `w` (in file layout, of any type) to `out`, quantised to `dtype`: `Q8_0`, `Q6K` or `Q4K`. `out` has
/// [`panel_bytes`] bytes and whatever in them. With a guide, the outputs over the text it was made from change least;
/// without, the weights do, where larger ones count for more.
///
/// # Errors
/// A weight that is not finite or too large; `out` is of no use then.
///
/// Panics where the sizes do not fit or `dtype` is another.
pub fn quantise_panel(
    out: &mut [u8],
    dtype: DType,
    w: &Matrix,
    p: usize,
    guide: Option<&Guide>,
) -> Result<(), Unrepresentable> {
    let k = w.k();
    assert!(Some(out.len()) == panel_bytes(dtype, k), "a panel of another size");
    assert!(guide.is_none_or(|guide| guide.k() == k), "a guide to another number of inputs");
    let limit = match dtype {
        DType::Q8_0 => eight::LIMIT,
        DType::Q6K => six::LIMIT,
        DType::Q4K => four::LIMIT,
        _ => panic!("quantising to {}", dtype.name()),
    };
    out.fill(0);
    let mut x = vec![0.0; k];
    for lane in 0..PANEL.min(w.n() - p * PANEL) {
        let row = p * PANEL + lane;
        read(w, row, &mut x);
        if let Some(column) = x.iter().position(|x| !x.is_finite() || x.abs() > limit) {
            return Err(Unrepresentable { row, column, value: x[column] });
        }
        let quantise = match dtype {
            DType::Q8_0 => eight::row,
            DType::Q6K => six::row,
            _ => four::row,
        };
        quantise(
            &mut Row { out, form: Form::of(dtype), lane, blocks: k / BLOCK },
            x.as_chunks_mut().0,
            guide,
        );
    }
    Ok(())
}

/// Where the blocks of an output go.
struct Row<'a> {
    out: &'a mut [u8],
    form: Form,
    lane: usize,
    blocks: usize,
}

impl Row<'_> {
    fn put(&mut self, b: usize, block: &super::blocks::Block) {
        put_block(&self.form, self.out, [b, self.blocks], self.lane, block);
    }
}

/// Output `row` as f32.
fn read(w: &Matrix, row: usize, out: &mut [f32]) {
    if w.order() == Order::Nk {
        dequantize_row(w.dtype(), w.row(row), out);
        return;
    }
    let size = w.dtype().block_bytes();
    for (k, out) in out.iter_mut().enumerate() {
        dequantize_row(w.dtype(), &w.row(k)[row * size..][..size], std::slice::from_mut(out));
    }
}

/// A half of at least zero that is nearest.
fn half(x: f32) -> Option<f16> {
    let half = f16::from_f32(x);
    (half.is_finite() && x >= 0.0).then_some(half)
}

/// The nearest whole number, ties to even, of one within 2^22 of zero.
#[inline(always)]
fn round(x: f32) -> f32 {
    (x + MAGIC) - MAGIC
}

/// Within a range, as the vector instructions have it: NaN becomes `low`.
#[inline(always)]
fn within(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > low { x } else { low };
    if x < high { x } else { high }
}

/// Lanes of a sum as one.
#[inline(always)]
fn fold(x: [f32; LANES]) -> f32 {
    ((x[0] + x[4]) + (x[1] + x[5])) + ((x[2] + x[6]) + (x[3] + x[7]))
}

/// The sum of `f` over the elements of a block, lane by lane.
#[inline(always)]
fn sum(f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for at in (0..BLOCK).step_by(LANES) {
        for i in 0..LANES {
            lanes[i] += f(at + i);
        }
    }
    fold(lanes)
}
