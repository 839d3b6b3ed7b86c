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
use tile::Sums;
pub use unpack::values;

use super::activations::{BLOCK, BLOCK_WORDS, WIDE_WORDS};
use super::{After, Matrix, Order, PANEL, ROWS, Run, Sink, tile as dense};
use crate::dtype::DType;
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
            after,
        };
        // Few rows meet every block as it comes by, in one stream; for more it pays to unpack once: later where codes are
        // widened too. So does plain Rust, which is short rather than fast.
        let few = dense::rows::<S>() * if is_wide::<S>(&form) { 2 } else { 1 };
        if const { S::REGISTERS >= 16 } && w.order() == Order::Panels && rows <= few {
            whole.stream(s, &mut to, &form, w.panel(first / PANEL), x, scratch.codes);
            continue;
        }
        let mut from = 0;
        while from < blocks || from == 0 {
            let some = from..blocks.min(from + at_once::<S>(&form));
            let last = some.end == blocks;
            let run = Run { steps: some.clone(), last, rows: whole.rows.clone(), ..whole };
            let (form, scratch, wide) = (&form, &mut scratch, is_wide::<S>(&form).then_some(&mut *wide));
            let unpacked = s.plain().apart(Unpack { form, w, first, some, scratch, wide });
            run.tiles_of_blocks(s, &mut to, form, &unpacked, x);
            from = run.steps.end.max(1);
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
                widths!(m, one, tile, 1);
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
                widths!(m, all == 1, tile, 1);
            }
            self.finish(s.plain(), to, r, m);
            r += m;
        }
    }
}

/// [`tile::bytes`] of codes as a panel has them, or where one row would not pay for that as bytes; in a function of its own
/// where it is long.
#[inline(always)]
fn signed<S: Dots, const M: usize, const ONE: bool, const GROUPS: usize>(
    s: S,
    sums: &mut Sums<S, M>,
    codes: &[u8],
    scales: &[[f32; PANEL]; GROUPS],
    mins: Option<&[f32; PANEL]>,
    x: &[f32],
    form: &Form,
) {
    if const { as_packed::<S>(ONE) } && form.bits < 8 {
        match form.bits {
            4 => tile::bytes::<S, M, ONE, 4, GROUPS>(s, sums, codes, scales, mins, x, form),
            5 => tile::bytes::<S, M, ONE, 5, GROUPS>(s, sums, codes, scales, mins, x, form),
            _ => tile::bytes::<S, M, ONE, 6, GROUPS>(s, sums, codes, scales, mins, x, form),
        }
    } else if const { S::REGISTERS >= 32 || as_packed::<S>(ONE) } {
        tile::bytes::<S, M, ONE, 8, GROUPS>(s, sums, codes, scales, mins, x, form);
    } else if const { halved::<S>(M) == 3 } {
        for (i, sums) in sums.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            s.apart(Signed::<S, 3, ONE, GROUPS> { sums, codes, scales, mins, x: &x[3 * i..], form });
        }
    } else {
        s.apart(Signed::<S, M, ONE, GROUPS> { sums, codes, scales, mins, x, form });
    }
}

/// Whether codes of few bits are spread in registers, which pays for one row.
const fn as_packed<S: Dots>(one: bool) -> bool {
    one && S::REGISTERS >= 16
}

/// Rows of each half of a tile of `m` rows that is multiplied as two, or `m`: half as many leave registers for their sums so
/// far, or at least for the products that are added to them.
const fn halved<S: Dots>(m: usize) -> usize {
    match (S::REGISTERS, m) {
        (32, 8 | 14) => m / 2,
        (16, 6) if S::PARTS == 2 => 3,
        _ => m,
    }
}

/// [`tile::bytes`]
struct Signed<'a, S: Dots, const M: usize, const ONE: bool, const GROUPS: usize> {
    sums: &'a mut Sums<S, M>,
    codes: &'a [u8],
    scales: &'a [[f32; PANEL]; GROUPS],
    mins: Option<&'a [f32; PANEL]>,
    x: &'a [f32],
    form: &'a Form,
}

impl<S: Dots, const M: usize, const ONE: bool, const GROUPS: usize> Apart<S>
    for Signed<'_, S, M, ONE, GROUPS>
{
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        tile::bytes::<S, M, ONE, 8, GROUPS>(
            s,
            self.sums,
            self.codes,
            self.scales,
            self.mins,
            self.x,
            self.form,
        );
    }
}

/// Some rows meet all of some unpacked blocks: signed codes are widened where the set does that.
struct Meet<'a, 'w, const M: usize, const ONE: bool> {
    sums: &'a mut [[f32; PANEL]; M],
    form: &'a Form,
    w: &'a Unpacked<'w>,
    x: &'a [f32],
}

impl<S: Dots, const M: usize, const ONE: bool> Apart<S> for Meet<'_, '_, M, ONE> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Meet { sums: to, form, w, x } = self;
        let words = block_words::<S>(form) * if ONE { 1 } else { dense::rows::<S>() };
        let (blocks, mut sums) = (w.codes.chunks(w.stride).enumerate(), tile::load(s, to));
        if let (true, Some(mins)) = (form.nibbles, w.mins) {
            for (b, codes) in blocks {
                let (scales, mins, x) = (&w.scales[b], &mins[b], &x[b * words..]);
                tile::nibbles::<S, M, ONE, false>(s, &mut sums, codes, scales, mins, x);
            }
        } else if form.group == BLOCK {
            for (b, codes) in blocks {
                let (mins, x) = (w.mins.map(|mins| &mins[b]), &x[b * words..]);
                let scales = w.scales[b..].first_chunk().expect("a scale");
                tile::bytes::<S, M, ONE, { tile::READY }, 1>(s, &mut sums, codes, scales, mins, x, form);
            }
        } else {
            for (b, codes) in blocks {
                let (mins, x) = (w.mins.map(|mins| &mins[b]), &x[b * words..]);
                let scales = w.scales[2 * b..].first_chunk().expect("two scales");
                tile::bytes::<S, M, ONE, { tile::READY }, 2>(s, &mut sums, codes, scales, mins, x, form);
            }
        }
        tile::store(s, &sums, to);
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

/// [`unpack::one`], and [`unpack::widen`] where the codes of the format have to be spread.
struct Ready<'a, 'b> {
    form: &'b Form,
    panel: &'a [u8],
    place: [usize; 2],
    scales: &'b mut [[f32; PANEL]; 2],
    mins: &'b mut [f32; PANEL],
    codes: &'a mut [u8],
    /// Whether codes are left as they lie.
    lies: bool,
}

impl<'a, S: Bytes> Apart<S> for Ready<'a, '_> {
    type Out = &'a [u8];

    #[inline(always)]
    fn run(self, s: S) -> &'a [u8] {
        let packed = unpack::one(s, self.form, self.panel, self.place, self.scales, self.mins);
        if self.form.nibbles || self.form.bits == 8 || self.lies {
            return packed;
        }
        let codes = &mut self.codes[..PANEL * BLOCK];
        unpack::widen(s, self.form, packed, codes);
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
    macro_rules! halves {
        ($m:literal) => {
            for (i, sums) in sums.as_chunks_mut::<$m>().0.iter_mut().enumerate() {
                s.apart(Meet::<$m, ONE> { sums, form, w, x: &x[$m * i..] });
            }
        };
    }
    match const { halved::<S>(M) } {
        3 if const { M == 6 } && !form.nibbles => halves!(3),
        4 if const { M == 8 } => halves!(4),
        7 if const { M == 14 } => halves!(7),
        _ => s.apart(Meet::<M, ONE> { sums, form, w, x }),
    }
}

/// Formats that most models come in, and our own: one row has a loop for each, where what the form decides is decided.
const USUAL: [Form; 4] =
    [Form::of(DType::Q8_0), Form::of(DType::Q4_0), Form::of(DType::Q4K), Form::of(DType::Q6K)];

/// `M` rows meet the blocks of a packed panel.
#[inline(always)]
fn stream<S: Dots<Plain: Bytes>, const M: usize, const ONE: bool>(
    s: S,
    sums: &mut [[f32; PANEL]; M],
    form: &Form,
    panel: &[u8],
    blocks: usize,
    x: &[f32],
    codes: &mut [u8],
) {
    if const { ONE && S::REGISTERS >= 16 } {
        match USUAL.iter().position(|usual| usual == form) {
            Some(0) => s.apart(Stream::<M, ONE, 0> { sums, form, panel, blocks, x, codes }),
            Some(1) => s.apart(Stream::<M, ONE, 1> { sums, form, panel, blocks, x, codes }),
            Some(2) => s.apart(Stream::<M, ONE, 2> { sums, form, panel, blocks, x, codes }),
            Some(3) => s.apart(Stream::<M, ONE, 3> { sums, form, panel, blocks, x, codes }),
            _ => s.apart(Stream::<M, ONE, 4> { sums, form, panel, blocks, x, codes }),
        }
    } else {
        s.apart(Stream::<M, ONE, 4> { sums, form, panel, blocks, x, codes });
    }
}

/// What [`stream`] does: with one of the [`USUAL`] forms, or with any where `FORM` is beyond them.
struct Stream<'a, const M: usize, const ONE: bool, const FORM: usize> {
    sums: &'a mut [[f32; PANEL]; M],
    form: &'a Form,
    panel: &'a [u8],
    blocks: usize,
    x: &'a [f32],
    codes: &'a mut [u8],
}

impl<S: Dots<Plain: Bytes>, const M: usize, const ONE: bool, const FORM: usize> Apart<S>
    for Stream<'_, M, ONE, FORM>
{
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Stream { sums: to, form, panel, blocks, x, codes } = self;
        let form = if const { FORM < USUAL.len() } { &const { USUAL[FORM % USUAL.len()] } } else { form };
        let words = block_words::<S>(form) * if ONE { 1 } else { dense::rows::<S>() };
        let (mut scales, mut mins, mut sums) = ([[0.0; PANEL]; 2], [0.0; PANEL], tile::load(s, to));
        let (begin, size) = (form.place(0, blocks).1, form.block_bytes());
        for b in 0..blocks {
            // Lines of a block are not read in their order, which no processor foresees.
            let next = panel.as_ptr().wrapping_add(begin + b * size + dense::AHEAD.next_multiple_of(size));
            for line in (0..size).step_by(64) {
                s.prefetch_first(next.wrapping_add(line));
            }
            let (scales, mins) = (&mut scales, &mut mins);
            let ready = Ready {
                form,
                panel,
                place: [b, blocks],
                scales,
                mins,
                codes,
                lies: const { as_packed::<S>(ONE) },
            };
            let ready =
                if const { FORM < USUAL.len() } { ready.run(s.plain()) } else { s.plain().apart(ready) };
            let x = &x[b * words..];
            if form.nibbles {
                tile::nibbles::<S, M, ONE, true>(s, &mut sums, ready, &scales[0], mins, x);
                continue;
            }
            let mins = form.has_min().then_some(&*mins);
            if form.group == BLOCK {
                let scales = scales[..1].first_chunk().expect("a scale");
                signed::<S, M, ONE, 1>(s, &mut sums, ready, scales, mins, x, form);
            } else {
                signed::<S, M, ONE, 2>(s, &mut sums, ready, scales, mins, x, form);
            }
        }
        tile::store(s, &sums, to);
    }
}
