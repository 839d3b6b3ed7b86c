//! Floor 0: linear with quantised weights. Every format becomes integers with a scale (and for some a minimum) for each
//! group of k, and meets activations that are bytes with a scale for each block: products are summed exactly within a
//! group, and groups fold in the order of k. Knows no files.

mod form;
mod tile;
mod unpack;

pub use form::{Block, Form, block, panel_block, panel_bytes, put_block, runs};
pub use unpack::values;

use super::activations::{BLOCK, BLOCK_WORDS};
use super::{After, Matrix, Order, PANEL, Run, tile as dense};
use crate::ops::per_isa;
use crate::plan::TileMut;
use crate::simd::Dots;

/// Blocks of k that are unpacked at once: their codes and scales, and what a tile reads of the activations, stay in a
/// first-level cache.
const BLOCKS: usize = 16;

/// Scratch words: codes, two scales a block, a minimum a block.
pub const SCRATCH: usize = BLOCKS * PANEL * (BLOCK / 4 + 3);

/// Some blocks of 32 outputs, ready to be multiplied.
pub struct Unpacked<'a> {
    /// Bytes `[quads of k][32][4]`, `stride` bytes from block to block.
    pub codes: &'a [u8],
    pub stride: usize,
    /// `[groups][32]`
    pub scales: &'a [[f32; PANEL]],
    /// `[blocks][32]`, where the format has them.
    pub mins: Option<&'a [[f32; PANEL]]>,
}

per_isa! {
    /// [`Ops::linear`](crate::Ops::linear) for quantised weights.
    pub fn linear_blocks(out: &mut TileMut, x: &[f32], rows: usize, w: &Matrix, after: &After, scratch: &mut [f32]) =
        blocks_with as blocks_isa on scalar avx2 avx512 avx512_vnni;
}

#[inline(always)]
fn blocks_with<S: Dots>(
    s: S,
    out: &mut TileMut,
    x: &[f32],
    rows: usize,
    w: &Matrix,
    after: &After,
    scratch: &mut [f32],
) {
    let (cols, blocks, form) = (out.cols(), w.k() / BLOCK, Form::of(w.dtype()));
    if rows == 0 || cols.is_empty() {
        return;
    }
    assert!(cols.end <= w.n(), "{} outputs of {}", cols.end, w.n());
    let (codes, rest) = scratch.split_at_mut(BLOCKS * PANEL * BLOCK / 4);
    let rest = rest.as_chunks_mut::<PANEL>().0;
    let (scales, mins) = rest.split_at_mut(2 * BLOCKS);
    let codes: &mut [u8] = bytemuck::cast_slice_mut(codes);
    for first in cols.clone().step_by(PANEL) {
        if out.stop() {
            return;
        }
        let lanes = PANEL.min(cols.end - first);
        let mut from = 0;
        while from < blocks || from == 0 {
            let some = from..blocks.min(from + BLOCKS);
            let run = Run {
                first,
                lanes,
                rows,
                words: blocks * BLOCK_WORDS,
                steps: some.clone(),
                last: some.end == blocks,
                after,
            };
            let unpacked = match w.order() {
                Order::Panels => unpack::panel(s, &form, w, first, some, codes, scales, mins),
                _ => unpack::rows(s, &form, w, first, some, codes, scales, mins),
            };
            run.quantised(s, out, &form, &unpacked, x);
            from = run.steps.end.max(1);
        }
    }
}

/// Rows of a tile of signed bytes: their weights take two registers each on AVX2.
#[inline(always)]
const fn byte_rows<S: Dots>() -> usize {
    if S::REGISTERS >= 32 {
        14
    } else if S::REGISTERS >= 16 {
        3
    } else {
        1
    }
}

impl Run<'_> {
    /// All rows, tile by tile. Steps are blocks here.
    #[inline(always)]
    fn quantised<S: Dots>(&self, s: S, out: &mut TileMut, form: &Form, w: &Unpacked, x: &[f32]) {
        let piece = if self.rows == 1 { 1 } else { dense::rows::<S>() };
        let tile = if form.nibbles { piece } else { piece.min(byte_rows::<S>()) };
        let mut r = 0;
        while r < self.rows {
            let (start, within) = (r - r % piece, r % piece);
            let m = tile.min(self.rows - r).min(piece - within);
            let x = &x[start * self.words..][..self.words * piece];
            let x = &x[self.steps.start * BLOCK_WORDS * piece..self.steps.end * BLOCK_WORDS * piece];
            self.quantised_rows(s, out, form, w, &x[within..], [r, m, piece]);
            r += m;
        }
    }

    /// A tile of `m` rows from row `r`; the next larger width that is compiled takes them.
    #[inline(always)]
    fn quantised_rows<S: Dots>(
        &self,
        s: S,
        out: &mut TileMut,
        form: &Form,
        w: &Unpacked,
        x: &[f32],
        [r, m, stride]: [usize; 3],
    ) {
        macro_rules! tiles {
            ($kernel:path, $($m:literal)*) => {
                match m {
                    $(..=$m => {
                        let mut sums = [[0.0; PANEL]; $m];
                        self.load(out, r, &mut sums[..m]);
                        $kernel(s, &mut sums, w, x, stride);
                        self.store(out, r, &sums[..m]);
                    })*
                    _ => unreachable!("a tile of {m} rows"),
                }
            };
        }
        if form.nibbles {
            if const { S::REGISTERS >= 32 } {
                tiles!(tile::nibbles, 1 2 4 8 14);
            } else if const { S::REGISTERS >= 16 } {
                tiles!(tile::nibbles, 1 2 4 6);
            } else {
                tiles!(tile::nibbles, 1);
            }
        } else if form.group == BLOCK {
            if const { S::REGISTERS >= 32 } {
                tiles!(tile::bytes::<S, _, 1>, 1 2 4 8 14);
            } else if const { S::REGISTERS >= 16 } {
                tiles!(tile::bytes::<S, _, 1>, 1 3);
            } else {
                tiles!(tile::bytes::<S, _, 1>, 1);
            }
        } else if const { S::REGISTERS >= 32 } {
            tiles!(tile::bytes::<S, _, 2>, 1 4 14);
        } else if const { S::REGISTERS >= 16 } {
            tiles!(tile::bytes::<S, _, 2>, 1 3);
        } else {
            tiles!(tile::bytes::<S, _, 2>, 1);
        }
    }
}
