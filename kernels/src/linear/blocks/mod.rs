//! Floor 0: linear with quantised weights. Every format becomes integers with a scale (and for some a minimum) for each
//! group of k, and meets activations that are bytes with a scale for each block: products are summed exactly within a
//! group, and groups fold in the order of k. Knows no files.

mod form;
mod row;
mod spread;
mod tile;
mod unpack;

use form::RUN;
pub use form::{Block, Form, block, panel_block, panel_bytes, put_block, runs};
pub use row::row_isa;
use spread::MOST;
pub use unpack::values;

use super::activations::{BLOCK, BLOCK_WORDS};
use super::{After, Matrix, Order, PANEL, Run, tile as dense};
use crate::ops::per_isa;
use crate::plan::TileMut;
use crate::simd::{Apart, Bytes, Dots, LANES, Pairs, Simd};
use std::ops::Range;

/// Blocks of k that are unpacked at once: their codes and scales, and what a tile reads of the activations, stay in a
/// first-level cache.
const BLOCKS: usize = 16;

/// Words of the codes of so many, in panel layout.
const CODES: usize = BLOCKS * PANEL * BLOCK / 4;

/// Words of the codes of half as many outputs, in the order of a file.
const PAIRS: usize = BLOCKS * LANES * BLOCK / 4;

/// Scratch words: codes twice, two scales a block, a minimum a block.
pub const SCRATCH: usize = CODES + PAIRS + 3 * BLOCKS * PANEL;

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
    /// Of [`SCRATCH`] words. Panics where there are fewer.
    #[inline(always)]
    fn of(scratch: &'a mut [f32]) -> Scratch<'a> {
        let (codes, rest) = scratch[..SCRATCH].split_at_mut(CODES);
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
    /// Bytes `[quads of k][32][4]`, `stride` bytes from block to block; the last one may end early.
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
fn blocks_with<S: Dots<Plain: Bytes>>(
    s: S,
    out: &mut TileMut,
    x: &[f32],
    rows: usize,
    w: &Matrix,
    after: &After,
    scratch: &mut [f32],
) {
    let (cols, blocks, form) = (out.cols(), w.k() / BLOCK, Form::of(w.dtype()));
    let mut scratch = Scratch::of(scratch);
    for first in cols.clone().step_by(PANEL) {
        if out.stop() {
            return;
        }
        let whole = Run {
            first,
            lanes: PANEL.min(cols.end - first),
            above: 0,
            rows,
            words: blocks * BLOCK_WORDS,
            steps: 0..blocks,
            grows: false,
            last: true,
            after,
        };
        // Few rows meet every block as it comes by, in one stream; for more it pays to unpack once. So does plain Rust,
        // which is short rather than fast.
        if const { S::REGISTERS >= 16 } && w.order() == Order::Panels && rows <= dense::rows::<S>() {
            whole.stream(s, out, &form, w.panel(first / PANEL), x, scratch.codes);
            continue;
        }
        let mut from = 0;
        while from < blocks || from == 0 {
            let some = from..blocks.min(from + BLOCKS);
            let run = Run { steps: some.clone(), last: some.end == blocks, ..whole };
            let form = &form;
            let unpacked = s.plain().apart(Unpack { form, w, first, some, scratch: &mut scratch });
            run.tiles_of_blocks(s, out, form, &unpacked, x);
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
    fn tiles_of_blocks<S: Dots>(&self, s: S, out: &mut TileMut, form: &Form, w: &Unpacked, x: &[f32]) {
        let piece = if self.rows == 1 { 1 } else { dense::rows::<S>() };
        let tile = if form.nibbles { piece } else { piece.min(byte_rows::<S>()) };
        let mut r = 0;
        while r < self.rows {
            let (start, within) = (r - r % piece, r % piece);
            let m = tile.min(self.rows - r).min(piece - within);
            let x = &x[start * self.words..][..self.words * piece];
            let x = &x[self.steps.start * BLOCK_WORDS * piece..self.steps.end * BLOCK_WORDS * piece];
            macro_rules! tile {
                ($width:literal, $one:literal) => {{
                    let mut sums = [[0.0; PANEL]; $width];
                    self.load(out, r, &mut sums[..m]);
                    meet::<S, $width, $one>(s, &mut sums, form, w, &x[within..]);
                    self.store(s, out, r, &sums[..m]);
                }};
            }
            let one = self.rows == 1;
            if const { S::REGISTERS >= 32 } {
                widths!(m, one, tile, 4 14);
            } else if const { S::REGISTERS >= 16 } {
                widths!(m, one, tile, 3 6);
            } else {
                widths!(m, one, tile, 1);
            }
            r += m;
        }
    }

    /// Few rows over the blocks of a packed panel, each of which is read once.
    #[inline(always)]
    fn stream<S: Dots>(
        &self,
        s: S,
        out: &mut TileMut,
        form: &Form,
        panel: &[u8],
        x: &[f32],
        codes: &mut [u8],
    ) {
        let m = self.rows;
        macro_rules! tile {
            ($width:literal, $one:literal) => {{
                let mut sums = [[0.0; PANEL]; $width];
                stream::<S, $width, $one>(s, &mut sums, form, panel, self.steps.end, x, codes);
                self.store(s, out, 0, &sums[..m]);
            }};
        }
        if const { S::REGISTERS >= 32 } {
            widths!(m, true, tile, 4 8 14);
        } else if const { S::REGISTERS >= 16 } {
            widths!(m, true, tile, 3 6);
        } else {
            widths!(m, true, tile, 1);
        }
    }
}

/// [`tile::bytes`], in tiles that fit the registers.
#[inline(always)]
fn signed<S: Dots, const M: usize, const ONE: bool, const GROUPS: usize>(
    s: S,
    sums: &mut [[f32; PANEL]; M],
    codes: &[u8],
    scales: &[[f32; PANEL]; GROUPS],
    mins: Option<&[f32; PANEL]>,
    x: &[f32],
) {
    if const { S::REGISTERS == 16 && M == 6 } {
        for (i, sums) in sums.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            s.apart(Signed::<3, ONE, GROUPS> { sums, codes, scales, mins, x: &x[3 * i..] });
        }
    } else if const { ONE && S::REGISTERS >= 16 } {
        tile::bytes::<S, M, ONE, GROUPS>(s, sums, codes, scales, mins, x);
    } else {
        s.apart(Signed::<M, ONE, GROUPS> { sums, codes, scales, mins, x });
    }
}

/// [`tile::bytes`]
struct Signed<'a, const M: usize, const ONE: bool, const GROUPS: usize> {
    sums: &'a mut [[f32; PANEL]; M],
    codes: &'a [u8],
    scales: &'a [[f32; PANEL]; GROUPS],
    mins: Option<&'a [f32; PANEL]>,
    x: &'a [f32],
}

impl<S: Dots, const M: usize, const ONE: bool, const GROUPS: usize> Apart<S> for Signed<'_, M, ONE, GROUPS> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        tile::bytes::<S, M, ONE, GROUPS>(s, self.sums, self.codes, self.scales, self.mins, self.x);
    }
}

/// Some blocks of 32 outputs, from a panel or from rows.
struct Unpack<'a, 's, 'w> {
    form: &'a Form,
    w: &'a Matrix<'w>,
    first: usize,
    some: Range<usize>,
    scratch: &'a mut Scratch<'s>,
}

impl<'a, S: Bytes> Apart<S> for Unpack<'a, '_, '_> {
    type Out = Unpacked<'a>;

    #[inline(always)]
    fn run(self, s: S) -> Unpacked<'a> {
        let Unpack { form, w, first, some, scratch } = self;
        match w.order() {
            Order::Panels => unpack::panel(s, form, w, first, some, scratch),
            _ => unpack::rows(s, form, w, first, some, scratch),
        }
    }
}

/// [`unpack::one`], and [`unpack::widen`] where the codes of the format have to be spread.
struct Ready<'a, 'b> {
    form: &'b Form,
    panel: &'a [u8],
    place: [usize; 2],
    scales: &'b mut [[f32; PANEL]; 2],
    mins: &'b mut [f32; PANEL],
    codes: &'a mut [u8],
}

impl<'a, S: Simd> Apart<S> for Ready<'a, '_> {
    type Out = &'a [u8];

    #[inline(always)]
    fn run(self, s: S) -> &'a [u8] {
        let packed = unpack::one(s, self.form, self.panel, self.place, self.scales, self.mins);
        if self.form.nibbles || self.form.bits == 8 {
            return packed;
        }
        let codes = &mut self.codes[..PANEL * BLOCK];
        unpack::widen(self.form, packed, codes);
        codes
    }
}

/// `M` rows meet unpacked blocks.
#[inline(always)]
fn meet<S: Dots, const M: usize, const ONE: bool>(
    s: S,
    sums: &mut [[f32; PANEL]; M],
    form: &Form,
    w: &Unpacked,
    x: &[f32],
) {
    let words = BLOCK_WORDS * if ONE { 1 } else { dense::rows::<S>() };
    for (b, codes) in w.codes.chunks(w.stride).enumerate() {
        let x = &x[b * words..];
        let mins = w.mins.map(|mins| &mins[b]);
        if let (true, Some(mins)) = (form.nibbles, mins) {
            tile::nibbles::<S, M, ONE, false>(s, sums, codes, &w.scales[b], mins, x);
        } else if form.group == BLOCK {
            signed::<S, M, ONE, 1>(s, sums, codes, w.scales[b..].first_chunk().expect("a scale"), mins, x);
        } else {
            let scales = w.scales[2 * b..].first_chunk().expect("two scales");
            signed::<S, M, ONE, 2>(s, sums, codes, scales, mins, x);
        }
    }
}

/// `M` rows meet the blocks of a packed panel.
#[inline(always)]
fn stream<S: Dots, const M: usize, const ONE: bool>(
    s: S,
    sums: &mut [[f32; PANEL]; M],
    form: &Form,
    panel: &[u8],
    blocks: usize,
    x: &[f32],
    codes: &mut [u8],
) {
    let words = BLOCK_WORDS * if ONE { 1 } else { dense::rows::<S>() };
    let (mut scales, mut mins) = ([[0.0; PANEL]; 2], [0.0; PANEL]);
    for b in 0..blocks {
        let (scales, mins) = (&mut scales, &mut mins);
        let ready = s.plain().apart(Ready { form, panel, place: [b, blocks], scales, mins, codes });
        let x = &x[b * words..];
        if form.nibbles {
            tile::nibbles::<S, M, ONE, true>(s, sums, ready, &scales[0], mins, x);
            continue;
        }
        let mins = form.has_min().then_some(&*mins);
        if form.group == BLOCK {
            signed::<S, M, ONE, 1>(s, sums, ready, scales[..1].first_chunk().expect("a scale"), mins, x);
        } else {
            signed::<S, M, ONE, 2>(s, sums, ready, scales, mins, x);
        }
    }
}
