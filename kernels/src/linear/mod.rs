//! Floor 0: `y = x W^T + bias + add` with W where it lies in its file, or in packed panels. Each output is one chain over
//! k in order, for one row or many: of fused multiply-adds (over pairs of k for bf16, the odd one first), or for
//! quantised weights of exact sums over blocks of k. Lanes hold different outputs, never parts of one sum, so tiles and
//! threads change no bit. Knows no models.

mod activations;
mod after;
#[cfg(feature = "train")]
mod back;
mod blocks;
mod elem;
mod matrix;
mod packed;
mod panel;
mod quantise;
mod row;
mod tile;
#[cfg(feature = "train")]
mod turn;

pub use activations::Pack;
pub(crate) use activations::{Laid, pack_isa};
pub(crate) use after::After;
pub use after::Then;
#[cfg(feature = "train")]
pub use back::{bias_db, dw_cut};
pub use matrix::{Matrix, MatrixError, Order};
pub(crate) use packed::pack_panel_isa;
pub use packed::{embed_row, pack_panel, panel_bytes};
pub use quantise::{Guide, Unrepresentable, quantise_panel, spans};
#[cfg(feature = "train")]
pub(crate) use turn::turn_isa;

use crate::dtype::DType;
use crate::ops::{Ops, per_isa};
use crate::plan::TileMut;
use crate::simd::{Apart, Simd};
use elem::{Bf16, Elem, F16, F32, Stored, parts};
use std::marker::PhantomData;
use std::ops::Range;

/// Outputs that lie side by side: two vectors, so that a tile of 14 rows fills the registers of AVX-512.
pub const PANEL: usize = 32;

/// Rows that meet all panels of a worker one after the other: a multiple of every tile's. Their activations stay near, and
/// so does what is left of one run of k for the next.
const ROWS: usize = 546;

/// The same, where panels are multiplied as they lie: nothing is lost by reading them more often.
const NEAR_ROWS: usize = 168;

/// Tiles that ask for what is next, at most.
const ASKING: usize = 4;

/// Words of the sums of so many, and of those of a tile that are dropped.
const SUMS: usize = (ROWS + tile::MOST) * PANEL;

impl Ops {
    /// Scratch words of a linear with weights of a type.
    #[must_use]
    pub fn linear_scratch(&self, k: usize, dtype: DType) -> usize {
        // A word of weights may become two of the panel.
        let dense = k.saturating_add(1).min(2 * tile::STEPS).saturating_mul(PANEL).saturating_add(row::ENDS);
        (if dtype.block() == 1 { dense } else { blocks::SCRATCH }).saturating_add(SUMS)
    }

    /// out `[rows, n]`, cut by columns in groups of [`PANEL`]: `x W^T + bias + add`. x packed for w's type; bias `[n]`;
    /// add `[rows, n]`; scratch [`Ops::linear_scratch`] words.
    ///
    /// Panics where the sizes do not fit.
    pub fn linear(
        &self,
        out: &mut TileMut,
        x: &[f32],
        rows: usize,
        w: &Matrix,
        bias: Option<&[f32]>,
        add: Option<&[f32]>,
        scratch: &mut [f32],
    ) {
        self.linear_then(out, x, rows, w, &Then { bias, add, ..Then::default() }, scratch);
    }

    /// The same, with what is to happen `then`. Where results are packed, out is pieces of [`Ops::pack_piece`], cut by columns
    /// in groups of [`Ops::pack_panel_words`].
    ///
    /// Panics where the sizes do not fit.
    pub fn linear_then(
        &self,
        out: &mut TileMut,
        x: &[f32],
        rows: usize,
        w: &Matrix,
        then: &Then,
        scratch: &mut [f32],
    ) {
        let after = After::new(self, rows, w.n(), then);
        let cols = after.outputs(out);
        if rows == 0 || cols.is_empty() {
            return;
        }
        assert!(cols.end <= w.n(), "{} outputs of {}", cols.end, w.n());
        let kernel = match Pack::of(w.dtype()) {
            Pack::F32 => self.linear_f32,
            Pack::Bf16 => self.linear_bf16,
            Pack::Bytes | Pack::Shorts if rows == 1 && w.order() == Order::Nk => self.linear_blocks_row,
            Pack::Bytes | Pack::Shorts => self.linear_blocks,
        };
        kernel(out, x, rows, w, &after, scratch);
    }
}

/// A kernel behind [`Ops::linear`]: there are rows, and the outputs of `out` exist.
pub(crate) type Kernel = fn(&mut TileMut, &[f32], usize, &Matrix, &After, &mut [f32]);

pub(crate) use blocks::{blocks_isa, row_isa};

per_isa! {
    /// [`Ops::linear`] for f32 and f16 weights.
    pub fn linear_f32(out: &mut TileMut, x: &[f32], rows: usize, w: &Matrix, after: &After, scratch: &mut [f32]) =
        f32_with as f32_isa;
}

per_isa! {
    /// [`Ops::linear`] for bf16 weights.
    pub fn linear_bf16(out: &mut TileMut, x: &[f32], rows: usize, w: &Matrix, after: &After, scratch: &mut [f32]) =
        bf16_with as bf16_isa on scalar avx2 avx512 avx512_bf16;
}

#[inline(always)]
fn f32_with<S: Simd>(
    s: S,
    out: &mut TileMut,
    x: &[f32],
    rows: usize,
    w: &Matrix,
    after: &After,
    scratch: &mut [f32],
) {
    match w.dtype() {
        DType::F32 => dense::<F32, S>(s, out, x, rows, w, after, scratch),
        _ => dense::<F16, S>(s, out, x, rows, w, after, scratch),
    }
}

#[inline(always)]
fn bf16_with<S: Simd>(
    s: S,
    out: &mut TileMut,
    x: &[f32],
    rows: usize,
    w: &Matrix,
    after: &After,
    scratch: &mut [f32],
) {
    dense::<Bf16, S>(s, out, x, rows, w, after, scratch);
}

/// Dense weights of one type.
#[inline(always)]
fn dense<E: Stored, S: Simd>(
    s: S,
    out: &mut TileMut,
    x: &[f32],
    rows: usize,
    w: &Matrix,
    after: &After,
    scratch: &mut [f32],
) {
    let cols = after.outputs(out);
    let steps = w.k().div_ceil(E::K);
    let words = steps * parts::<S, E>();
    // Few rows take the weights as they lie; for more it pays to widen or transpose them once, into scratch. So it does for
    // plain Rust, which is short rather than fast.
    let mapped = const { S::REGISTERS >= 16 } && rows <= row::most::<S>() && w.order() == Order::Nk;
    let ready = parts::<S, E>() == 1 && E::PACKED == 4;
    let direct = w.order() == Order::Panels && (ready || rows <= tile::rows::<S>());
    let (scratch, sums) = scratch.split_at_mut(scratch.len() - SUMS);
    let (ends, scratch) = scratch.split_at_mut(row::ENDS);
    let mut to = Sink { out, sums: sums.as_chunks_mut().0 };
    let near = if direct { NEAR_ROWS } else { ROWS };
    let lined = mapped.then(|| row::Lined::new::<S, E>(w, x, rows, ends));
    if mapped {
        row::begin(s, w, cols.clone());
    }
    for (top, first) in
        (0..rows).step_by(near).flat_map(|top| cols.clone().step_by(PANEL).map(move |c| (top, c)))
    {
        if to.out.stop() {
            return;
        }
        let lanes = PANEL.min(cols.end - first);
        if let Some(x) = &lined
            && lanes == PANEL
            && w.rows(first, PANEL).is_some()
        {
            if const { S::REGISTERS >= 16 } {
                row::panel::<S, E>(s, to.out, w, x, rows, [first, cols.end], after);
            }
            continue;
        }
        let mut from = 0;
        while from < steps || from == 0 {
            let some = from..steps.min(from + tile::STEPS);
            let (rows, last) = (top..rows.min(top + near), some.end == steps);
            let next = next_steps::<E>(w, first, &some, cols.end);
            let (steps, grows, home) = (some.clone(), false, None);
            let run = Run { first, lanes, rows, words, steps, grows, home, last, next, after };
            if direct {
                let bytes = &w.panel(first / PANEL)[some.start * PANEL * E::PACKED..];
                s.apart(Tiles::<E>::new(&run, &mut to, &bytes[..some.len() * PANEL * E::PACKED], x));
            } else {
                let panel = &mut scratch.as_chunks_mut::<PANEL>().0[..some.len() * parts::<S, E>()];
                panel::fill::<S, E>(s, panel, w, first, some);
                let bytes = bytemuck::cast_slice(panel);
                if const { parts::<S, E>() == 1 && E::K == 2 } {
                    s.apart(Tiles::<E>::new(&run, &mut to, bytes, x));
                } else {
                    s.apart(Tiles::<F32>::new(&run.scaled(parts::<S, E>()), &mut to, bytes, x));
                }
            }
            from = run.steps.end.max(1);
        }
    }
}

/// What is read after steps `some` of the panel of output `first`, at most as much again: nothing where those of outputs up to
/// `end` are all done, or where weights do not lie in panels.
#[inline(always)]
fn next_steps<'a, E: Elem>(w: &Matrix<'a>, first: usize, some: &Range<usize>, end: usize) -> &'a [u8] {
    if w.order() != Order::Panels {
        return &[];
    }
    let rest = &w.panel(first / PANEL)[some.end * PANEL * E::PACKED..];
    let next = match rest {
        [] if first + PANEL < end => w.panel(first / PANEL + 1),
        rest => rest,
    };
    &next[..next.len().min(some.len() * PANEL * E::PACKED)]
}

#[cfg(feature = "train")]
per_isa! {
    /// Panels of f32 that are ready meet all rows, whose sums stay in `out`.
    pub fn tiles_f32(run: &Run, out: &mut TileMut, panel: &[u8], x: &[f32]) = tiles_with as tiles_isa;
}

#[cfg(feature = "train")]
#[inline(always)]
fn tiles_with<S: Simd>(s: S, run: &Run, out: &mut TileMut, panel: &[u8], x: &[f32]) {
    let mut sums = [[0.0; PANEL]; tile::MOST];
    s.apart(Tiles::<F32>::new(run, &mut Sink { out, sums: &mut sums }, panel, x));
}

/// Where sums go.
struct Sink<'a, 'o> {
    out: &'a mut TileMut<'o>,
    /// Those of the rows of a run, with garbage in them before the first: [`SUMS`] words; or of a tile, where they stay in
    /// `out`.
    sums: &'a mut [[f32; PANEL]],
}

impl Sink<'_, '_> {
    /// The sums of `M` rows from row `at` of a run on.
    #[inline(always)]
    fn of<const M: usize>(&mut self, at: usize) -> &mut [[f32; PANEL]; M] {
        self.sums[at..].first_chunk_mut().expect("sums of each row")
    }
}

/// One panel of outputs and a run of its steps, which some rows meet.
pub struct Run<'a> {
    /// First output, and outputs that exist.
    first: usize,
    lanes: usize,
    rows: Range<usize>,
    /// Words of a packed row of activations.
    words: usize,
    steps: Range<usize>,
    /// Whether sums begin with what `out` holds, and not with zero.
    grows: bool,
    /// Rows of `out` before the first, where the sums stay there between runs; else they stay in the sink.
    home: Option<usize>,
    /// Whether the sums end here.
    last: bool,
    /// What of the weights is read after this, to be brought near by the first tiles; nothing where that is not known.
    next: &'a [u8],
    after: &'a After<'a>,
}

impl Run<'_> {
    /// The same run where every step has become several.
    #[inline(always)]
    fn scaled(&self, parts: usize) -> Self {
        Run { steps: self.steps.start * parts..self.steps.end * parts, rows: self.rows.clone(), ..*self }
    }

    /// All rows, tile by tile.
    #[inline(always)]
    fn tiles<S: Simd, E: Elem>(&self, s: S, to: &mut Sink, panel: &[u8], x: &[f32]) {
        let stride = if self.after.rows() == 1 { 1 } else { tile::rows::<S>() };
        let (parts, mut r) = (parts::<S, E>(), self.rows.start);
        while r < self.rows.end {
            let m = stride.min(self.rows.end - r);
            let x = &x[r * self.words..][..self.words * stride];
            let x = &x[self.steps.start * parts * stride..self.steps.end * parts * stride];
            self.load(to, r, m);
            self.some_rows::<S, E>(s, to, panel, x, [r, m, stride]);
            r += m;
        }
    }

    /// A tile of `m` rows from row `r`, packed with `stride`. The next larger width that is compiled takes them: the rows
    /// beyond are computed from whatever the packed piece holds there, and dropped.
    #[inline(always)]
    fn some_rows<S: Simd, E: Elem>(
        &self,
        s: S,
        to: &mut Sink,
        panel: &[u8],
        x: &[f32],
        [r, m, stride]: [usize; 3],
    ) {
        let (fresh, next) = (!self.goes_on(), self.next_part(r, stride));
        macro_rules! tiles {
            ($($m:literal)*) => {
                match m {
                    $(..=$m => {
                        let sums = to.of(self.place(r));
                        if $m > tile::ALONE && !next.is_empty() {
                            tile::tile::<S, E, $m, true>(s, sums, panel, x, stride, fresh, next);
                        } else {
                            tile::tile::<S, E, $m, false>(s, sums, panel, x, stride, fresh, &[]);
                        }
                    })*
                    _ => unreachable!("a tile of {m} rows"),
                }
            };
        }
        // A constant block, so that the widths of the other instruction sets are not even compiled.
        if const { S::REGISTERS >= 32 } {
            tiles!(1 2 4 8 14);
        } else if const { S::REGISTERS >= 16 } {
            tiles!(1 2 3 4 6);
        } else {
            tiles!(1);
        }
        self.finish(s, to, r, m);
    }

    /// What the tile from row `r` on asks for, of tiles of `stride` rows: the first few share what is next, so that memory is
    /// never asked for more than it gives meanwhile.
    #[inline(always)]
    fn next_part(&self, r: usize, stride: usize) -> &[u8] {
        let (tile, rest) = ((r - self.rows.start) / stride, self.rows.len() % stride);
        let asking = (self.rows.len() / stride + usize::from(rest > tile::ALONE)).min(ASKING);
        if tile >= asking {
            return &[];
        }
        let part = self.next.len().div_ceil(asking);
        self.next.chunks(part.max(1)).nth(tile).unwrap_or(&[])
    }

    /// Whether there are sums to begin with.
    fn goes_on(&self) -> bool {
        self.grows || self.steps.start > 0
    }

    /// Where the sums of row `r` are in the sink.
    #[inline(always)]
    fn place(&self, r: usize) -> usize {
        if self.home.is_some() { 0 } else { r - self.rows.start }
    }

    /// The sums so far of `m` rows from row `r` on, where they stay in `out`.
    #[inline(always)]
    fn load(&self, to: &mut Sink, r: usize, m: usize) {
        if let (Some(above), true) = (self.home, self.goes_on()) {
            let at = self.first - to.out.cols().start;
            for (i, sums) in to.sums.iter_mut().enumerate().take(m) {
                sums[..self.lanes].copy_from_slice(&to.out.row(above + r + i)[at..][..self.lanes]);
            }
        }
    }

    /// Finishes the sums of `m` rows from row `r` on, where they end here; or brings them home.
    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, to: &mut Sink, r: usize, m: usize) {
        let (above, sums) = (self.home.unwrap_or(0), &mut to.sums[self.place(r)..][..m]);
        if self.last {
            self.after.finish(s, to.out, above + r, self.first, self.lanes, sums);
        } else if self.home.is_some() {
            let at = self.first - to.out.cols().start;
            for (i, sums) in sums.iter().enumerate() {
                to.out.row(above + r + i)[at..][..self.lanes].copy_from_slice(&sums[..self.lanes]);
            }
        }
    }
}

/// [`Run::tiles`], compiled once for an element type: several kinds of weights become f32 first.
struct Tiles<'a, 's, 'o, E> {
    run: &'a Run<'a>,
    to: &'a mut Sink<'s, 'o>,
    panel: &'a [u8],
    x: &'a [f32],
    of: PhantomData<E>,
}

impl<'a, 's, 'o, E> Tiles<'a, 's, 'o, E> {
    fn new(run: &'a Run<'a>, to: &'a mut Sink<'s, 'o>, panel: &'a [u8], x: &'a [f32]) -> Self {
        Tiles { run, to, panel, x, of: PhantomData }
    }
}

impl<S: Simd, E: Elem> Apart<S> for Tiles<'_, '_, '_, E> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        self.run.tiles::<S, E>(s, self.to, self.panel, self.x);
    }
}
