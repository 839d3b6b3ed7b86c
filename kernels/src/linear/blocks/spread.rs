//! Floor 0: blocks of sixteen rows of a file as bytes to multiply, and their scales side by side. Knows no activations.

use super::form::{Form, Scales, six_bits};
use super::{BLOCK, Matrix};
use crate::dtype::DType;
use crate::quant::IQ4_NL;
use crate::simd::{Apart, Bytes, LANES, Pairs, Simd};
use std::ops::Range;

/// Blocks that a block of the largest formats is made of.
const SUPER: usize = super::RUN;

/// Blocks that are spread at once at most: one row of activations meets the whole of short rows, so that a file is read in
/// the order of its addresses.
pub const MOST: usize = 48;

/// Scales of some blocks of sixteen outputs, as the file has them.
pub struct Small {
    /// Bits of halves, of each block or each eight.
    d: [[[u8; 2]; LANES]; MOST],
    m: [[[u8; 2]; LANES]; MOST],
    /// Small scales of each block, or of its halves.
    sc: [[u8; LANES]; 2 * MOST],
    mn: [[u8; LANES]; MOST],
}

impl Small {
    /// Zeros.
    #[inline(always)]
    pub fn new() -> Small {
        Small {
            d: [[[0; 2]; LANES]; MOST],
            m: [[[0; 2]; LANES]; MOST],
            sc: [[0; LANES]; 2 * MOST],
            mn: [[0; LANES]; MOST],
        }
    }

    /// Reads those of block `i` of a file's row.
    #[inline(always)]
    fn read(&mut self, scales: Scales, at: &[u8], i: usize, lane: usize) {
        match scales {
            Scales::Half => self.d[i][lane] = [at[0], at[1]],
            Scales::HalfMin => (self.d[i][lane], self.m[i][lane]) = ([at[0], at[1]], [at[2], at[3]]),
            Scales::Six => {
                (self.d[i][lane], self.m[i][lane]) = ([at[0], at[1]], [at[2], at[3]]);
                let (sc, mn) = six_bits(part(at, 4));
                for g in 0..SUPER {
                    self.sc[SUPER * i + g][lane] = sc[g];
                    self.mn[SUPER * i + g][lane] = mn[g];
                }
            }
            Scales::Eight => {
                self.d[i][lane] = [at[208], at[209]];
                for (g, sc) in at[192..208].iter().enumerate() {
                    self.sc[2 * SUPER * i + g][lane] = *sc;
                }
            }
        }
    }

    /// The scales of the halves of block `b` (equal, where there is one scale), and what is added.
    #[inline(always)]
    pub fn scales<S: Simd>(&self, s: S, form: &Form, b: usize) -> ([S::V; 2], S::V) {
        let half = |of: &[[[u8; 2]; LANES]], b: usize| *of[b].as_flattened().first_chunk().expect("halves");
        match form.scales {
            Scales::Half => {
                let d = s.load_f16(&half(&self.d, b));
                ([d; 2], s.mul(d, s.splat(if form.nibbles { -f32::from(form.offset) } else { 0.0 })))
            }
            Scales::HalfMin => ([s.load_f16(&half(&self.d, b)); 2], s.load_f16(&half(&self.m, b))),
            Scales::Six => {
                let (d, m) = (s.load_f16(&half(&self.d, b / SUPER)), s.load_f16(&half(&self.m, b / SUPER)));
                let min = s.mul(s.mul(m, s.load_i8(&self.mn[b])), s.splat(-1.0));
                ([s.mul(d, s.load_i8(&self.sc[b])); 2], min)
            }
            Scales::Eight => {
                let d = s.load_f16(&half(&self.d, b / SUPER));
                let [a, b] = [2 * b, 2 * b + 1].map(|at| &self.sc[at]);
                ([s.mul(d, s.load_i8(a)), s.mul(d, s.load_i8(b))], s.zero())
            }
        }
    }
}

/// Blocks `some` of outputs `first..first + 16` that exist, from a matrix in file layout; `offset` is subtracted from codes
/// that are signed. Of the others nothing is written.
#[inline(always)]
pub fn sixteen<S: Bytes>(
    s: S,
    w: &Matrix,
    first: usize,
    some: Range<usize>,
    offset: u8,
    pairs: &mut [Pairs],
    small: &mut Small,
) {
    s.apart(Sixteen { w, first, some, offset, pairs, small });
}

/// [`sixteen`], compiled once for a set: there is a loop for every format.
struct Sixteen<'a, 'w> {
    w: &'a Matrix<'w>,
    first: usize,
    some: Range<usize>,
    offset: u8,
    pairs: &'a mut [Pairs],
    small: &'a mut Small,
}

impl<S: Bytes> Apart<S> for Sixteen<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Sixteen { w, first, some, offset, pairs, small } = self;
        let lanes = w.n().saturating_sub(first).min(LANES);
        let dtype = w.dtype();
        let per = dtype.block() / BLOCK;
        let (from, count) = (some.start / per * dtype.block_bytes(), some.len() / per);
        // For each block of the file's rows. Not a function that takes a closure: one that is not inlined would lose the
        // instruction set.
        macro_rules! each {
            ($bytes:literal, $scales:expr, |$at:ident| $codes:expr) => {
                for lane in 0..lanes {
                    let row = w.part(first + lane, from, count * $bytes);
                    // Two by two, so that places are constants.
                    let (twos, one) = row.as_chunks::<$bytes>().0.as_chunks::<2>();
                    for ((i, two), pair) in twos.iter().enumerate().zip(&mut *pairs) {
                        for (half, $at) in two.iter().enumerate() {
                            small.read($scales, $at, 2 * i + half, lane);
                            s.store_b($codes, &mut pair[lane][half]);
                        }
                    }
                    if let [$at] = one {
                        small.read($scales, $at, 2 * twos.len(), lane);
                        s.store_b($codes, &mut pairs[twos.len()][lane][0]);
                    }
                }
            };
        }
        // For each group of those that have eight.
        macro_rules! groups {
            ($bytes:literal, $scales:expr, |$at:ident, $g:ident| $codes:expr) => {
                for lane in 0..lanes {
                    let row = w.part(first + lane, from, count * $bytes);
                    let pairs = pairs.as_chunks_mut::<{ SUPER / 2 }>().0;
                    for ((i, $at), pairs) in row.as_chunks::<$bytes>().0.iter().enumerate().zip(pairs) {
                        small.read($scales, $at, i, lane);
                        for $g in 0..SUPER {
                            s.store_b($codes, &mut pairs[$g / 2][lane][$g % 2]);
                        }
                    }
                }
            };
        }
        match dtype {
            DType::Q8_0 => each!(34, Scales::Half, |at| s.load_b(part(at, 2))),
            DType::Q4_0 => each!(18, Scales::Half, |at| s.nibble_halves(part(at, 2))),
            DType::Q4_1 => each!(20, Scales::HalfMin, |at| s.nibble_halves(part(at, 4))),
            DType::IQ4NL => {
                each!(18, Scales::Half, |at| s.look_up(s.nibble_halves(part(at, 2)), &IQ4_NL))
            }
            DType::Q5_0 => {
                each!(22, Scales::Half, |at| s.minus(five(s, part(at, 6), part(at, 2)), offset))
            }
            DType::Q5_1 => each!(24, Scales::HalfMin, |at| five(s, part(at, 8), part(at, 4))),
            DType::Q4K => groups!(144, Scales::Six, |at, g| {
                s.field(s.load_b(part(at, 16 + BLOCK * (g / 2))), 4 * (g % 2), 15)
            }),
            DType::Q5K => groups!(176, Scales::Six, |at, g| {
                let low = s.field(s.load_b(part(at, 48 + BLOCK * (g / 2))), 4 * (g % 2), 15);
                s.above(low, s.field(s.load_b(part(at, 16)), g, 1))
            }),
            DType::Q6K => groups!(210, Scales::Eight, |at, g| {
                let (half, quarter) = (g / 4, g % 4);
                let low = s.load_b(part(at, 64 * half + BLOCK * (quarter % 2)));
                let high = s.field(s.load_b(part(at, 128 + BLOCK * half)), 2 * quarter, 3);
                s.minus(s.above(s.field(low, 4 * (quarter / 2), 15), high), offset)
            }),
            DType::F32 | DType::F16 | DType::BF16 => {}
        }
    }
}

/// `N` bytes of a block.
#[inline(always)]
fn part<const N: usize>(at: &[u8], from: usize) -> &[u8; N] {
    at[from..].first_chunk().expect("a block has so many bytes")
}

/// Codes of nibbles and a fifth bit each.
#[inline(always)]
fn five<S: Bytes>(s: S, nibbles: &[u8; BLOCK / 2], fifth: &[u8; 4]) -> S::B {
    s.above(s.nibble_halves(nibbles), s.bits(u32::from_le_bytes(*fifth)))
}
