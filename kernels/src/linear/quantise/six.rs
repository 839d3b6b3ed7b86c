//! Floor 0: runs of blocks of 32 weights as six-bit codes around zero with an eight-bit scale for each 16: `w = d sc code`.
//! Knows no layouts.

use super::super::blocks::{Block, runs};
use super::{BLOCK, Guide, LANES, Row, Values, fold, half, round, within};

/// Within what scales reach.
pub const LIMIT: f32 = 65504.0 * 63.0;

/// Elements that share a small scale.
const GROUP: usize = BLOCK / 2;
/// Groups of the longest run.
const MOST: usize = 30;
/// The least and the largest code, and the largest small scale.
const LOW: f32 = -32.0;
const HIGH: f32 = 31.0;
const SMALL: f32 = 127.0;

/// What the weight furthest from zero becomes, before rounding: where the others fall between two steps follows.
const FURTHEST: [f32; 10] = [-32.4, -31.7, -31.0, -30.3, -29.6, 31.4, 30.8, 30.2, 29.5, 28.8];

/// A group's values, or what weighs their errors.
type Half = [f32; GROUP];

/// Quantises an output run by run.
pub fn row(to: &mut Row, x: &mut [Values], guide: Option<&Guide>) {
    let x: &[Half] = x.as_flattened().as_chunks().0;
    let weight =
        |g: usize| guide.map_or(&[1.0; GROUP], |guide| &guide.importance()[g / 2].as_chunks().0[g % 2]);
    for blocks in runs(x.len() / 2) {
        let groups = 2 * blocks.start..2 * blocks.end;
        let mut wish = [0.0f32; MOST];
        for (g, wish) in groups.clone().zip(&mut wish) {
            *wish = alone(&x[g], weight(g));
        }
        let most = wish.iter().fold(0.0f32, |most, x| if x.abs() > most { x.abs() } else { most });
        let d = half(most / SMALL).unwrap_or(half::f16::MAX);
        for (i, b) in blocks.enumerate() {
            let mut block = Block { d: d.to_bits(), ..Block::default() };
            for h in 0..2 {
                let g = 2 * b + h;
                let sc = near(d.to_f32(), wish[2 * i + h], &x[g], weight(g));
                let inverse = inverse(d.to_f32() * sc);
                block.sc[h] = (sc as i8).cast_unsigned();
                for (code, x) in block.codes[h * GROUP..].iter_mut().zip(&x[g]) {
                    *code = (self::code(*x, inverse) - LOW) as u8;
                }
            }
            to.put(b, &block);
        }
    }
}

#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

#[inline(always)]
fn code(x: f32, inverse: f32) -> f32 {
    round(within(x * inverse, LOW, HIGH))
}

/// Sums over a group with the nearest codes of a scale: codes by weights' values, and codes by codes, both weighed; and the
/// squared error.
fn sums(scale: f32, x: &Half, weight: &Half) -> [f32; 3] {
    let inverse = inverse(scale);
    let mut lanes = [[0.0f32; LANES]; 3];
    for at in (0..GROUP).step_by(LANES) {
        for i in 0..LANES {
            let (x, w) = (x[at + i], weight[at + i]);
            let q = code(x, inverse);
            let e = scale * q - x;
            lanes[0][i] += (w * q) * x;
            lanes[1][i] += (w * q) * q;
            lanes[2][i] += w * (e * e);
        }
    }
    lanes.map(fold)
}

/// The best scale of a group alone.
fn alone(x: &Half, weight: &Half) -> f32 {
    let furthest = x.iter().fold(0.0f32, |most, x| if x.abs() > most.abs() { *x } else { most });
    let (mut best, mut least) = (0.0, f32::INFINITY);
    for to in FURTHEST {
        let [xq, qq, _] = sums(furthest / to, x, weight);
        let scale = if qq > 0.0 { xq / qq } else { 0.0 };
        let [_, _, error] = sums(scale, x, weight);
        if error < least {
            (best, least) = (scale, error);
        }
    }
    best
}

/// The best small scale near the one that is wished for.
fn near(d: f32, wish: f32, x: &Half, weight: &Half) -> f32 {
    let middle = if d > 0.0 { round(within(wish / d, -SMALL, SMALL)) } else { 0.0 };
    let (mut best, mut least) = (0.0, f32::INFINITY);
    for sc in [middle, middle - 1.0, middle + 1.0] {
        let [_, _, error] = sums(d * sc, x, weight);
        if (-SMALL..=SMALL).contains(&sc) && error < least {
            (best, least) = (sc, error);
        }
    }
    best
}
