//! Floor 0: linear with quantised weights. Every format becomes integers with a scale (and for some a minimum) for each
//! group of k, and meets activations that are bytes with a scale for each block: products are summed exactly within a
//! group, and groups fold in the order of k. Knows no files.

mod form;
mod meet;
mod row;
mod spread;
mod tile;
mod unpack;

use form::RUN;
pub use form::{Block, Form, block, panel_block, panel_bytes, put_block, runs};
use meet::{meet, stream};
pub use row::row_isa;
use spread::MOST;
pub use unpack::values;

use super::activations::{BLOCK, BLOCK_WORDS, WIDE_WORDS};
use super::{After, Matrix, Order, PANEL, Pass, ROWS, Run, SUMS, Sink, passes, tile as dense};
use crate::ops::per_isa;
use crate::plan::TileMut;
use crate::simd::{Apart, Bytes, Dots, LANES, Pairs, Simd};
use std::ops::Range;

/// Blocks of k that are unpacked at once, at most: see [`at_once`].
const BLOCKS: usize = 24;

/// Words of the codes of so many, in panel layout.
const CODES: usize = BLOCKS * PANEL * BLOCK / 4;

/// Words of the codes of half as many outputs, in the order of a file.
const PAIRS: usize = BLOCKS * LANES * BLOCK / 4;

/// Words of codes that are widened, of half as many blocks.
const WIDE: usize = CODES;

/// Words to unpack in: codes twice, two scales a block, a minimum a block.
const UNPACK: usize = CODES + PAIRS + 3 * BLOCKS * PANEL;

/// Scratch words.
pub const SCRATCH: usize = UNPACK + WIDE;

/// What unpacking works in.
struct Scratch<'a> {
    /// `[blocks][quads of k][32][4]`
    codes: &'a mut [u8],
    /// `[blocks][groups][32]`
    scales: &'a mut [[f32; PANEL]],
    /// `[blocks][32]`
    mins: &'a mut [[f32; PANEL]],
    /// Blocks of sixteen outputs, two by two.
    pairs: &'a mut [Pairs],
}

impl<'a> Scratch<'a> {
    /// Of [`UNPACK`] words. Panics where there are fewer.
    #[inline(always)]
    fn of(scratch: &'a mut [f32]) -> Scratch<'a> {
        let (codes, rest) = scratch[..UNPACK].split_at_mut(CODES);
        let (of_pairs, rest) = rest.split_at_mut(PAIRS);
        let (scales, mins) = rest.as_chunks_mut().0.split_at_mut(2 * BLOCKS);
        Scratch { codes: bytemuck::cast_slice_mut(codes), scales, mins, pairs: pairs(of_pairs) }
    }
}

/// Blocks of sixteen outputs, two by two, in so many words.
#[inline(always)]
fn pairs(words: &mut [f32]) -> &mut [Pairs] {
    let blocks = bytemuck::cast_slice_mut::<f32, u8>(words).as_chunks_mut().0;
    blocks.as_chunks_mut().0.as_chunks_mut().0
}

// One row of activations has all of it for blocks in the order of a file.
const _: () = assert!(MOST * LANES * BLOCK / 4 <= SCRATCH);

/// Some blocks of 32 outputs, ready to be multiplied.
pub struct Unpacked<'a> {
    /// Bytes `[quads of k][32][4]`, or widened `[pairs of k][32][2]`, `stride` bytes from block to block; the last one may
    /// end early.
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
        blocks_with as blocks_isa on scalar avx2 avx_vnni avx512 avx512_vnni;
}

#[inline(always)]
fn blocks_with<S: Dots<Plain: Bytes>>(
    s: S,
    out: &mut TileMut,
    x: &[f32],
    rows: usize,
    w: &Matrix,
    after: &After,
    scratch: &mut [f32],
) {
    let (cols, blocks, form) = (after.outputs(out), w.k() / BLOCK, Form::of(w.dtype()));
    let (scratch, sums) = scratch.split_at_mut(SCRATCH);
    let (sums, beside) = sums.split_at_mut(SUMS);
    let mut beside = beside.as_chunks_mut().0;
    let (wide, scratch) = scratch.split_at_mut(WIDE);
    let wide: &mut [u8] = bytemuck::cast_slice_mut(wide);
    let (mut scratch, mut to) = (Scratch::of(scratch), Sink { out, sums: sums.as_chunks_mut().0 });
    for (top, first) in
        (0..rows).step_by(ROWS).flat_map(|top| cols.clone().step_by(PANEL).map(move |c| (top, c)))
    {
        if to.out.stop() {
            return;
        }
        let whole = Run {
            first,
            lanes: PANEL.min(cols.end - first),
            rows: top..rows.min(top + ROWS),
            words: blocks * block_words::<S>(&form),
            steps: 0..blocks,
            grows: false,
            home: None,
            last: true,
            next: &[],
            by: None,
            after,
        };
        // Few rows meet every block as it comes by, in one stream; for more it pays to unpack once: later where codes are
        // widened too. So does plain Rust, which is short rather than fast.
        let few = dense::rows::<S>() * if is_wide::<S>(&form) { 2 } else { 1 };
        if const { S::REGISTERS >= 16 } && w.order() == Order::Panels && rows <= few {
            whole.stream(s, &mut to, &form, w.panel(first / PANEL), x, scratch.codes);
            continue;
        }
        let skipped = usize::from(after.by().is_none());
        for &Pass { w, ends, .. } in &passes(after, w, first, cols.end)[skipped..] {
            let by = (ends && skipped == 0).then_some(&*beside);
            let mut from = 0;
            while from < blocks || from == 0 {
                let some = from..blocks.min(from + at_once::<S>(&form));
                let last = ends && some.end == blocks;
                let run = Run { steps: some.clone(), last, by, rows: whole.rows.clone(), ..whole };
                let (form, scratch, wide) = (&form, &mut scratch, is_wide::<S>(&form).then_some(&mut *wide));
                let unpacked = s.plain().apart(Unpack { form, w, first, some, scratch, wide });
                run.tiles_of_blocks(s, &mut to, form, &unpacked, x);
                from = run.steps.end.max(1);
            }
            if !ends {
                std::mem::swap(&mut to.sums, &mut beside);
            }
        }
    }
}

/// Blocks of k that are unpacked at once: their codes and scales, and what a tile reads of the activations, stay in a
/// first-level cache. Processors with AVX-512 have a larger one.
#[inline(always)]
fn at_once<S: Dots>(form: &Form) -> usize {
    let blocks = if S::REGISTERS >= 32 { BLOCKS } else { BLOCKS / 3 * 2 };
    if is_wide::<S>(form) { blocks / 2 } else { blocks }
}

/// Whether a set widens the codes of a format, and what they meet.
#[inline(always)]
fn is_wide<S: Dots>(form: &Form) -> bool {
    S::PARTS == 2 && !form.nibbles
}

/// Words of a block of activations.
#[inline(always)]
fn block_words<S: Dots>(form: &Form) -> usize {
    if is_wide::<S>(form) { WIDE_WORDS } else { BLOCK_WORDS }
}

/// Calls `$kernel!(M, ONE)` for `$m` rows: the next larger width that is compiled takes them.
macro_rules! widths {
    ($m:expr, $one:expr, $kernel:ident, $($width:literal)*) => {
        match $m {
            1 if $one => $kernel!(1, true),
            $(..=$width => $kernel!($width, false),)*
            _ => unreachable!("a tile of {} rows", $m),
        }
    };
}

impl Run<'_> {
    /// All rows, tile by tile, over unpacked blocks.
    #[inline(always)]
    fn tiles_of_blocks<S: Dots>(&self, s: S, to: &mut Sink, form: &Form, w: &Unpacked, x: &[f32]) {
        let one = self.after.rows() == 1;
        let (piece, words) = (if one { 1 } else { dense::rows::<S>() }, block_words::<S>(form));
        let mut r = self.rows.start;
        while r < self.rows.end {
            let m = piece.min(self.rows.end - r);
            let x = &x[r * self.words..][..self.words * piece];
            let x = &x[self.steps.start * words * piece..self.steps.end * words * piece];
            macro_rules! tile {
                ($width:literal, $one:literal) => {{
                    let sums = to.of::<$width>(r - self.rows.start);
                    if self.steps.start == 0 {
                        *sums = [[0.0; PANEL]; $width];
                    }
                    meet::<S, $width, $one>(s, sums, form, w, x);
                }};
            }
            if const { S::REGISTERS >= 32 } {
                widths!(m, one, tile, 4 14);
            } else if const { S::REGISTERS >= 16 } {
                widths!(m, one, tile, 2 4 6);
            } else {
                tile!(1, false); // its pieces have one row
            }
            self.finish(s.plain(), to, r, m);
            r += m;
        }
    }

    /// Few rows over the blocks of a packed panel, tile by tile: the first finds it in memory, the others in a cache.
    #[inline(always)]
    fn stream<S: Dots<Plain: Bytes>>(
        &self,
        s: S,
        to: &mut Sink,
        form: &Form,
        panel: &[u8],
        x: &[f32],
        codes: &mut [u8],
    ) {
        let (all, mut r) = (self.after.rows(), 0);
        while r < all {
            let (m, x) = (dense::rows::<S>().min(all - r), &x[r * self.words..]);
            macro_rules! tile {
                ($width:literal, $one:literal) => {{
                    let sums = to.of::<$width>(r);
                    *sums = [[0.0; PANEL]; $width];
                    stream::<S, $width, $one>(s, sums, form, panel, self.steps.end, x, codes);
                }};
            }
            if const { S::REGISTERS >= 32 } {
                widths!(m, all == 1, tile, 4 8 14);
            } else if const { S::REGISTERS >= 16 } {
                widths!(m, all == 1, tile, 2 4 6);
            } else {
                unreachable!("plain Rust unpacks first");
            }
            self.finish(s.plain(), to, r, m);
            r += m;
        }
    }
}

/// Some blocks of 32 outputs, from a panel or from rows.
struct Unpack<'a, 's, 'w> {
    form: &'a Form,
    w: &'a Matrix<'w>,
    first: usize,
    some: Range<usize>,
    scratch: &'a mut Scratch<'s>,
    /// Where codes are widened, `[blocks][pairs of k][32][2]`, if they are.
    wide: Option<&'a mut [u8]>,
}

impl<'a, S: Bytes> Apart<S> for Unpack<'a, '_, '_> {
    type Out = Unpacked<'a>;

    #[inline(always)]
    fn run(self, s: S) -> Unpacked<'a> {
        let Unpack { form, w, first, some, scratch, wide } = self;
        let unpacked = match w.order() {
            Order::Panels => unpack::panel(s, form, w, first, some, scratch),
            _ => unpack::rows(s, form, w, first, some, scratch),
        };
        match wide {
            Some(wide) if const { S::PARTS == 2 } => unpack::double(unpacked, wide),
            _ => unpacked,
        }
    }
}
