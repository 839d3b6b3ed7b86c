//! Floor 0: weights brought to types of our own, error-minimising and straight into packed panels: 8 bits with a scale for
//! each 32 ([`DType::Q8_0`]), or 4 bits with six-bit scales and minima under two halves for each run of eight blocks
//! ([`DType::Q4K`], of any k that is a multiple of 32). Knows no files and no models.
//!
//! Plain f32 without fused steps, sums over eight lanes that are folded in one order, no functions of a library: the same
//! bits on every machine.

mod eight;
mod four;

use super::blocks::{Form, put_block};
use super::{Matrix, Order, PANEL, panel_bytes};
use crate::dtype::DType;
use crate::quant::dequantize_row;
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

/// Writes panel `p` of `w` (in file layout, of any type) to `out`, quantised to `dtype`: `Q8_0` or `Q4K`. `out` has
/// [`panel_bytes`] bytes and whatever in them. `importance` `[k]`, as the mean square of an input is, weighs the squared
/// errors; without it those of larger weights count for more.
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
    importance: Option<&[f32]>,
) -> Result<(), Unrepresentable> {
    assert!(Some(out.len()) == panel_bytes(dtype, w.k()), "a panel of another size");
    assert!(importance.is_none_or(|x| x.len() == w.k()), "importance of another length");
    let (limit, quantise): (f32, fn(&mut Row, &[Values], Option<&[Values]>)) = match dtype {
        DType::Q8_0 => (eight::LIMIT, eight::row),
        DType::Q4K => (four::LIMIT, four::row),
        _ => panic!("quantising to {}", dtype.name()),
    };
    let importance = importance.map(relative);
    let importance = importance.as_ref().map(|x| x.as_chunks::<BLOCK>().0);
    out.fill(0);
    let mut x = vec![0.0; w.k()];
    for lane in 0..PANEL.min(w.n() - p * PANEL) {
        let row = p * PANEL + lane;
        read(w, row, &mut x);
        // Not `> limit`, which is false of NaN.
        if let Some(column) = x.iter().position(|x| !(x.abs() <= limit)) {
            return Err(Unrepresentable { row, column, value: x[column] });
        }
        let blocks = w.k() / BLOCK;
        let mut place = Row { out, form: Form::of(dtype), lane, blocks };
        quantise(&mut place, x.as_chunks().0, importance);
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

/// Importance as multiples of its mean. Inputs that the text never moved still count a little: another text will.
fn relative(importance: &[f32]) -> Vec<f32> {
    const LEAST: f64 = 1e-3;
    let good = |x: f32| if x.is_finite() && x > 0.0 { f64::from(x) } else { 0.0 };
    let sum: f64 = importance.iter().map(|x| good(*x)).sum();
    let mean = if sum > 0.0 { sum / importance.len() as f64 } else { 1.0 };
    importance.iter().map(|x| (good(*x) / mean).max(LEAST) as f32).collect()
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

/// The nearest whole number, ties to even, of one within 2^22 of zero.
#[inline(always)]
fn round(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: its last place is one
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
