//! Floor 0: some rows of bytes times one block of 32 outputs. Knows no files.

use super::form::Form;
use super::{BLOCK, BLOCK_WORDS, PANEL};
use crate::quant::IQ4_NL;
use crate::simd::{Dots, LANES, Simd};

/// Sums of `M` rows while they meet blocks: in registers, where there are enough.
pub type Sums<S, const M: usize> = [[<S as Simd>::V; PANEL / LANES]; M];

/// Sums from memory.
#[inline(always)]
pub fn load<S: Dots, const M: usize>(s: S, from: &[[f32; PANEL]; M]) -> Sums<S, M> {
    let mut sums = [[s.zero(); PANEL / LANES]; M];
    for i in 0..M {
        sums[i] = [s.load(&from[i]), s.load(&from[i][LANES..])];
    }
    sums
}

/// Sums to memory.
#[inline(always)]
pub fn store<S: Dots, const M: usize>(s: S, sums: &Sums<S, M>, to: &mut [[f32; PANEL]; M]) {
    for i in 0..M {
        s.store(sums[i][0], &mut to[i]);
        s.store(sums[i][1], &mut to[i][LANES..]);
    }
}

/// Quads of k in a block.
const QUADS: usize = BLOCK / 4;

/// Bytes of a quad of 32 outputs.
pub const QUAD: usize = 4 * PANEL;

/// Words of activations after a block's bytes: scale, scale times sum.
const SCALE: usize = QUADS;
const SCALED_SUM: usize = QUADS + 1;

/// Words between two quads of `M` rows: rows lie in pieces of `stride`, or one alone.
#[inline(always)]
fn row_words<S: Dots, const ONE: bool>() -> usize {
    if ONE { 1 } else { super::dense::rows::<S>() }
}

/// Sixteen quads from byte `at` on.
#[inline(always)]
fn quads<S: Dots>(s: S, codes: &[u8], at: usize) -> S::I {
    s.load_i(codes[at..].first_chunk().expect("sixteen quads"))
}

/// Vectors of outputs that meet a row at once. With seven rows, two of them take 14 of AVX-512's 32 registers, and their sums
/// so far as many, beside two of weights and one of activations, which is read half as often so.
const fn vectors<S: Dots>() -> usize {
    if S::REGISTERS >= 32 { PANEL / LANES } else { 1 }
}

/// sums `[M][32]` + codes in 0..=15 times `x [BLOCK_WORDS][stride]`: codes `[quads][32][4]`, or `PACKED` two quads to a
/// byte.
#[inline(always)]
pub fn nibbles<S: Dots, const M: usize, const ONE: bool, const PACKED: bool>(
    s: S,
    sums: &mut Sums<S, M>,
    codes: &[u8],
    scales: &[f32; PANEL],
    mins: &[f32; PANEL],
    x: &[f32],
) {
    // A constant block, so that the width of the other instruction sets is not even compiled.
    if const { vectors::<S>() == 2 } {
        some_nibbles::<S, M, ONE, PACKED, 2>(s, sums, codes, scales, mins, x, 0);
    } else {
        some_nibbles::<S, M, ONE, PACKED, 1>(s, sums, codes, scales, mins, x, 0);
        some_nibbles::<S, M, ONE, PACKED, 1>(s, sums, codes, scales, mins, x, 1);
    }
}

/// Vectors `at..at + V` of [`nibbles`].
#[inline(always)]
fn some_nibbles<S: Dots, const M: usize, const ONE: bool, const PACKED: bool, const V: usize>(
    s: S,
    sums: &mut Sums<S, M>,
    codes: &[u8],
    scales: &[f32; PANEL],
    mins: &[f32; PANEL],
    x: &[f32],
    at: usize,
) {
    let stride = row_words::<S, ONE>();
    let (codes, x) =
        (&codes[..QUADS * QUAD / if PACKED { 2 } else { 1 }], &x[..(BLOCK_WORDS - 1) * stride + M]);
    let mut acc = [[s.short(); V]; M];
    for quad in 0..QUADS {
        let from = if PACKED { quad / 2 } else { quad } * QUAD + 4 * LANES * at;
        let mut w = [s.low(s.splat_i(0.0)); V];
        for v in 0..V {
            let both = quads(s, codes, from + 4 * LANES * v);
            w[v] = match (PACKED, quad % 2) {
                (false, _) => both,
                (true, 0) => s.low(both),
                (true, _) => s.high(both),
            };
        }
        for i in 0..M {
            let x = s.splat_i(x[quad * stride + i]);
            for v in 0..V {
                acc[i][v] = s.nibbles(acc[i][v], w[v], x);
            }
        }
    }
    let (mut scale, mut min) = ([s.zero(); V], [s.zero(); V]);
    for v in 0..V {
        (scale[v], min[v]) = (s.load(&scales[LANES * (at + v)..]), s.load(&mins[LANES * (at + v)..]));
    }
    for i in 0..M {
        let (of_x, sum_of_x) = (s.splat(x[SCALE * stride + i]), s.splat(x[SCALED_SUM * stride + i]));
        for v in 0..V {
            let sum = s.fma(s.to_f32(s.long(acc[i][v])), s.mul(scale[v], of_x), sums[i][at + v]);
            sums[i][at + v] = s.fma(min[v], sum_of_x, sum);
        }
    }
}

/// Signed codes that lie as the set multiplies them: `[pairs][32][2]` if it widens. Others have so many bits each: eight, as
/// bytes `[quads][32][4]`; or fewer, as a packed panel has them: nibbles two quads to a byte, then the bits above them.
pub const READY: usize = 0;

/// A block of signed codes, and the activations `x [words of a block][stride]` that meet it.
#[derive(Clone, Copy)]
pub struct Signed<'a, const GROUPS: usize> {
    pub form: &'a Form,
    pub codes: &'a [u8],
    pub scales: &'a [[f32; PANEL]; GROUPS],
    pub mins: Option<&'a [f32; PANEL]>,
    pub x: &'a [f32],
}

/// Sixteen quads of quad `q` of a block of codes of `BITS` bits, fewer than eight, from byte `lanes` of it on: as bytes, less
/// `offset` or by the table.
#[inline(always)]
pub fn spread<S: Dots, const BITS: usize>(
    s: S,
    form: &Form,
    offset: u8,
    codes: &[u8],
    [q, lanes]: [usize; 2],
) -> S::I {
    let low = quads(s, codes, q / 2 * QUAD + lanes);
    let low = if q.is_multiple_of(2) { s.low(low) } else { s.high(low) };
    let high = |quad: usize| quads(s, codes, (QUADS / 2 + quad) * QUAD + lanes);
    let code = match BITS {
        5 => s.with(low, s.moved(high(0), 4 - q as i32, 0x10)),
        6 => s.with(low, s.moved(high(q / 4), 4 - 2 * (q as i32 % 4), 0x30)),
        _ => low,
    };
    if form.table { s.look_up_i(code, &IQ4_NL) } else { s.less(code, offset) }
}

/// sums `[M][32]` + codes in -127..=127 times activations: codes of `BITS` bits, or [`READY`]; `GROUPS` scales a block.
#[inline(always)]
pub fn bytes<S: Dots, const M: usize, const ONE: bool, const BITS: usize, const GROUPS: usize>(
    s: S,
    sums: &mut Sums<S, M>,
    block: Signed<GROUPS>,
) {
    if const { vectors::<S>() == 2 } {
        some_bytes::<S, M, ONE, BITS, GROUPS, 2>(s, sums, block, 0);
    } else {
        some_bytes::<S, M, ONE, BITS, GROUPS, 1>(s, sums, block, 0);
        some_bytes::<S, M, ONE, BITS, GROUPS, 1>(s, sums, block, 1);
    }
}

/// What the sums of half `g` of a block begin with, by what those of the whole and of the first half do.
#[inline(always)]
fn of_half(whole: f32, first: f32, g: usize) -> f32 {
    if g == 0 { first } else { f32::from_bits(whole.to_bits().wrapping_sub(first.to_bits())) }
}

/// Vectors `at..at + V` of [`bytes`].
#[inline(always)]
fn some_bytes<
    S: Dots,
    const M: usize,
    const ONE: bool,
    const BITS: usize,
    const GROUPS: usize,
    const V: usize,
>(
    s: S,
    sums: &mut Sums<S, M>,
    Signed { form, codes, scales, mins, x }: Signed<GROUPS>,
    at: usize,
) {
    let (stride, words) = (row_words::<S, ONE>(), S::PARTS * QUADS);
    let (scale_at, sum_at, begin_at, offset) = (words, words + 1, words + 2, form.offset.cast_unsigned());
    let size = if BITS == READY { words * QUAD } else { QUADS * QUAD * BITS / 8 };
    let (codes, x) = (&codes[..size], &x[..(words + 3) * stride + M]);
    for g in 0..GROUPS {
        let mut acc = [[s.begin(0.0); V]; M];
        for i in 0..M {
            let [whole, first] = [begin_at, begin_at + 1].map(|at| x[at * stride + i]);
            acc[i] = [s.begin(if GROUPS == 1 { whole } else { of_half(whole, first, g) }); V];
        }
        for q in g * QUADS / GROUPS..(g + 1) * QUADS / GROUPS {
            for part in 0..S::PARTS {
                let mut w = [s.ready(s.begin(0.0), 0); V];
                for v in 0..V {
                    let lanes = 4 * LANES * (at + v);
                    w[v] = match BITS {
                        READY => s.widened(quads(s, codes, (part * QUADS + q) * QUAD + lanes)),
                        8 => s.ready(quads(s, codes, q * QUAD + lanes), part),
                        _ => s.ready(spread::<S, BITS>(s, form, offset, codes, [q, lanes]), part),
                    };
                }
                for i in 0..M {
                    let x = s.splat_i(x[(part * QUADS + q) * stride + i]);
                    for v in 0..V {
                        acc[i][v] = s.bytes(acc[i][v], w[v], x);
                    }
                }
            }
        }
        let mut scale = [s.zero(); V];
        for v in 0..V {
            scale[v] = s.load(&scales[g][LANES * (at + v)..]);
        }
        for i in 0..M {
            let of_x = s.splat(x[scale_at * stride + i]);
            for v in 0..V {
                sums[i][at + v] = s.fma(s.to_f32(acc[i][v]), s.mul(scale[v], of_x), sums[i][at + v]);
            }
        }
    }
    if let Some(mins) = mins {
        for v in 0..V {
            let min = s.load(&mins[LANES * (at + v)..]);
            for i in 0..M {
                sums[i][at + v] = s.fma(min, s.splat(x[sum_at * stride + i]), sums[i][at + v]);
            }
        }
    }
}
