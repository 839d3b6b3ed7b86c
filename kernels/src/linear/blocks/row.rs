//! Floor 0: one row of activations times quantised outputs where they lie in a file. The products of a block are summed
//! along k, which is exact; scales and the chain have outputs in their lanes, as everywhere. Knows no panels.

use super::super::activations::{Pack, narrowed};
use super::form::Form;
use super::spread::{MOST, Small, sixteen};
use super::{After, BLOCK, Matrix, PANEL, RUN, SCRATCH, pairs};
use crate::ops::per_isa;
use crate::plan::TileMut;
use crate::simd::{Along, LANES, LINE, Pairs, ask};

/// Words of activations after a block's bytes: scale, scale times sum, -128 times the sum, and that of the first half.
const TAIL: usize = 4;

per_isa! {
    /// [`Ops::linear`](crate::Ops::linear) for one row and quantised weights in file layout.
    pub fn linear_row(out: &mut TileMut, x: &[f32], rows: usize, w: &Matrix, after: &After, scratch: &mut [f32]) =
        row_with as row_isa on scalar avx2;
}

#[inline(always)]
fn row_with<S: Along>(
    s: S,
    out: &mut TileMut,
    x: &[f32],
    rows: usize,
    w: &Matrix,
    after: &After,
    scratch: &mut [f32],
) {
    let (cols, blocks, form) = (after.outputs(out), w.k() / BLOCK, Form::of(w.dtype()));
    // As the table lays them out: its other kernels may be of a set that does not widen.
    let words = after.ops().pack_piece(1, BLOCK, Pack::of(w.dtype()));
    let x = &x[..blocks * words];
    assert!(rows == 1, "one row, not {rows}");
    let (pairs, mut small) = (pairs(&mut scratch[..SCRATCH]), Small::new());
    // Pieces of one size, of whole runs.
    let most = blocks.div_ceil(blocks.div_ceil(MOST).max(1)).next_multiple_of(RUN).max(RUN);
    // Codes of few bits are summed as they are, and what an offset comes to is subtracted from the sum; plain Rust, which is
    // not there for speed, has no loop of its own for them.
    let plain = const { S::REGISTERS >= 16 } && form.bits <= 5 && !form.table;
    let subtract = if plain { 0 } else { form.offset.cast_unsigned() };
    let offset = if form.nibbles { 0 } else { i32::from(form.offset) };
    for first in cols.clone().step_by(PANEL) {
        if out.stop() {
            return;
        }
        let (lanes, mut sums) = (PANEL.min(cols.end - first), [[0.0; PANEL]]);
        for half in (0..lanes).step_by(LANES) {
            let first = first + half;
            let (mut acc, mut next) = (s.zero(), w.ahead(first + LANES));
            for (i, x) in x.chunks(most * words).enumerate() {
                let some = i * most..i * most + x.len() / words;
                sixteen(s, w, first, some, subtract, pairs, &mut small);
                let lines = (LANES * w.row(first).len()).div_ceil(LINE * blocks);
                let work = Work { form: &form, pairs, small: &small, x, words, lines };
                acc = if const { S::REGISTERS >= 16 } && plain {
                    work.meet::<S, false, 1>(s, acc, offset, &mut next)
                } else if form.group == BLOCK {
                    work.meet::<S, true, 1>(s, acc, 0, &mut next)
                } else {
                    work.meet::<S, true, 2>(s, acc, 0, &mut next)
                };
            }
            s.store(acc, &mut sums[0][half..]);
        }
        after.finish(s, out, 0, first, lanes, &mut sums, None);
    }
}

/// Some blocks of sixteen outputs and what they meet.
struct Work<'a> {
    form: &'a Form,
    pairs: &'a [Pairs],
    small: &'a Small,
    x: &'a [f32],
    /// Words of a block of them.
    words: usize,
    /// Lines of memory to be asked for with each block.
    lines: usize,
}

impl Work<'_> {
    /// acc + the blocks times those of `x`, while what is `next` in memory comes near.
    #[inline(always)]
    fn meet<S: Along, const SIGNED: bool, const GROUPS: usize>(
        &self,
        s: S,
        mut acc: S::V,
        offset: i32,
        next: &mut *const u8,
    ) -> S::V {
        let has_min = self.form.has_min();
        for (b, x) in self.x.chunks_exact(self.words).enumerate() {
            let (scales, min) = self.small.scales(s, self.form, b);
            let (x, tail) = x.split_last_chunk::<TAIL>().expect("scale and sums");
            let bytes = match x.first_chunk() {
                Some(wide) => narrowed(wide),
                None => *bytemuck::cast_slice(x).first_chunk().expect("a block"),
            };
            let begin = offset.wrapping_mul(tail[2].to_bits().cast_signed() >> 7);
            let sums = s.sums::<SIGNED, GROUPS>(&self.pairs[b / 2], b % 2, s.load_b(&bytes), begin);
            for g in 0..GROUPS {
                acc = s.fma(s.to_f32(sums[g]), s.mul(scales[g], s.splat(tail[0])), acc);
            }
            if has_min {
                acc = s.fma(min, s.splat(tail[1]), acc);
            }
            // The next sixteen rows, in the order of their addresses: the processor sees one stream.
            for _ in 0..self.lines {
                ask(s, next);
            }
        }
        acc
    }
}
