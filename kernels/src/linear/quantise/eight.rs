//! Floor 0: 32 weights as signed bytes and a half that scales them. Knows no layouts.

use super::super::blocks::Block;
use super::{BLOCK, Guide, Row, Values, round, sum, within};
use half::f16;

/// What the largest scale reaches.
pub const LIMIT: f32 = 65504.0 * 127.0;

/// Largest codes that are tried for the largest weight: the fraction decides where the others fall between two steps.
const LARGEST: [f32; 7] = [127.4, 126.6, 126.2, 125.4, 124.7, 124.0, 123.1];

/// Quantises an output block by block.
pub fn row(to: &mut Row, x: &mut [Values], guide: Option<&Guide>) {
    for (b, x) in x.iter().enumerate() {
        to.put(b, &block(x, guide.map_or(&[1.0; BLOCK], |guide| &guide.importance()[b])));
    }
}

/// The scale of those tried whose squared error, weighed, is least.
fn block(x: &Values, weight: &Values) -> Block {
    let largest = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let (mut best, mut scale) = (f32::INFINITY, 0.0);
    let mut last = f16::ZERO;
    let mut bits = f16::ZERO;
    for to in [127.0].iter().chain(&LARGEST) {
        let half = f16::from_f32(largest / to);
        if half == last || !half.is_finite() {
            continue;
        }
        last = half;
        let (s, inverse) = (half.to_f32(), 1.0 / half.to_f32());
        let error = sum(|i| {
            let e = x[i] - s * code(x[i], inverse);
            weight[i] * (e * e)
        });
        if error < best {
            (best, scale, bits) = (error, s, half);
        }
    }
    let mut out = Block { d: bits.to_bits(), ..Block::default() };
    if scale > 0.0 {
        for (out, x) in out.codes.iter_mut().zip(x) {
            *out = (code(*x, 1.0 / scale) as i8).cast_unsigned();
        }
    }
    out
}

#[inline(always)]
fn code(x: f32, inverse: f32) -> f32 {
    round(within(x * inverse, -127.0, 127.0))
}
