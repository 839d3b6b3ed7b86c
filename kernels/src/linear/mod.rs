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
pub(crate) use activations::pack_isa;
pub use after::After;
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
use crate::simd::{Apart, LANES, Simd};
use elem::{Bf16, Elem, F16, F32, parts};
use std::marker::PhantomData;
use std::ops::Range;

/// Outputs that lie side by side: two vectors, so that a tile of 14 rows fills the registers of AVX-512.
pub const PANEL: usize = 32;

impl Ops {
    /// Scratch words of a linear with weights of a type.
    #[must_use]
    pub fn linear_scratch(&self, k: usize, dtype: DType) -> usize {
        // A word of weights may become two of the panel.
        let dense = k.saturating_add(1).min(2 * tile::STEPS).saturating_mul(PANEL);
        if dtype.block() == 1 { dense } else { blocks::SCRATCH }
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
        let cols = out.cols();
        if rows == 0 || cols.is_empty() {
            return;
        }
        assert!(cols.end <= w.n(), "{} outputs of {}", cols.end, w.n());
        let after = After { n: w.n(), bias, add };
        let kernel = match Pack::of(w.dtype()) {
            Pack::F32 => self.linear_f32,
            Pack::Bf16 => self.linear_bf16,
            Pack::Bytes if rows == 1 && w.order() == Order::Nk => self.linear_blocks_row,
            Pack::Bytes => self.linear_blocks,
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
fn dense<E: Elem, S: Simd>(
    s: S,
    out: &mut TileMut,
    x: &[f32],
    rows: usize,
    w: &Matrix,
    after: &After,
    scratch: &mut [f32],
) {
    let (cols, steps) = (out.cols(), w.k().div_ceil(E::K));
    let words = steps * parts::<S, E>();
    // Few rows take the weights as they lie; for more it pays to widen or transpose them once, into scratch. So it does for
    // plain Rust, which is short rather than fast.
    let mapped = const { S::REGISTERS >= 16 } && rows <= row::most::<S>() && w.order() == Order::Nk;
    let ready = parts::<S, E>() == 1 && E::PACKED == 4;
    let direct = w.order() == Order::Panels && (ready || rows <= tile::rows::<S>());
    for first in cols.clone().step_by(PANEL) {
        if out.stop() {
            return;
        }
        let lanes = PANEL.min(cols.end - first);
        if mapped && lanes == PANEL && (S::REGISTERS >= 32 || w.rows(first, PANEL).is_some()) {
            if const { S::REGISTERS >= 16 } {
                few_rows::<S, E>(s, out, w, x, rows, first, after);
            }
            continue;
        }
        let mut from = 0;
        while from < steps || from == 0 {
            let some = from..steps.min(from + tile::STEPS);
            let (steps_of, last) = (some.clone(), some.end == steps);
            let run = Run { first, lanes, above: 0, rows, words, steps: steps_of, grows: false, last, after };
            if direct {
                let bytes = &w.panel(first / PANEL)[some.start * PANEL * E::PACKED..];
                s.apart(Tiles::<E>::new(&run, out, &bytes[..some.len() * PANEL * E::PACKED], x));
            } else {
                let panel = &mut scratch.as_chunks_mut::<PANEL>().0[..some.len() * parts::<S, E>()];
                panel::fill::<S, E>(s, panel, w, first, some);
                let bytes = bytemuck::cast_slice(panel);
                if const { parts::<S, E>() == 1 && E::K == 2 } {
                    s.apart(Tiles::<E>::new(&run, out, bytes, x));
                } else {
                    s.apart(Tiles::<F32>::new(&run.scaled(parts::<S, E>()), out, bytes, x));
                }
            }
            from = run.steps.end.max(1);
        }
    }
}

#[cfg(feature = "train")]
per_isa! {
    /// Panels of f32 that are ready meet all rows.
    pub fn tiles_f32(run: &Run, out: &mut TileMut, panel: &[u8], x: &[f32]) = tiles_with as tiles_isa;
}

#[cfg(feature = "train")]
#[inline(always)]
fn tiles_with<S: Simd>(s: S, run: &Run, out: &mut TileMut, panel: &[u8], x: &[f32]) {
    s.apart(Tiles::<F32>::new(run, out, panel, x));
}

/// One panel of outputs and a run of its steps, which all rows meet.
pub struct Run<'a> {
    /// First output, and outputs that exist.
    first: usize,
    lanes: usize,
    /// Rows of `out` before the first, and rows.
    above: usize,
    rows: usize,
    /// Words of a packed row of activations.
    words: usize,
    steps: Range<usize>,
    /// Whether sums begin with what `out` holds, and not with zero.
    grows: bool,
    /// Whether the sums end here.
    last: bool,
    after: &'a After<'a>,
}

impl Run<'_> {
    /// The same run where every step has become several.
    #[inline(always)]
    fn scaled(&self, parts: usize) -> Self {
        Run { steps: self.steps.start * parts..self.steps.end * parts, ..*self }
    }

    /// All rows, tile by tile.
    #[inline(always)]
    fn tiles<S: Simd, E: Elem>(&self, s: S, out: &mut TileMut, panel: &[u8], x: &[f32]) {
        let stride = if self.rows == 1 { 1 } else { tile::rows::<S>() };
        let (parts, mut r, mut sums) = (parts::<S, E>(), 0, [[0.0; PANEL]; tile::MOST]);
        while r < self.rows {
            let m = stride.min(self.rows - r);
            let x = &x[r * self.words..][..self.words * stride];
            let x = &x[self.steps.start * parts * stride..self.steps.end * parts * stride];
            self.some_rows::<S, E>(s, out, panel, x, [self.above + r, m, stride], &mut sums);
            r += m;
        }
    }

    /// A tile of `m` rows from row `r`, packed with `stride`. The next larger width that is compiled takes them: the rows
    /// beyond are computed from whatever the packed piece holds there, and dropped. `sums` is room for them, with garbage in it.
    #[inline(always)]
    fn some_rows<S: Simd, E: Elem>(
        &self,
        s: S,
        out: &mut TileMut,
        panel: &[u8],
        x: &[f32],
        [r, m, stride]: [usize; 3],
        sums: &mut [[f32; PANEL]; tile::MOST],
    ) {
        let fresh = !self.goes_on();
        macro_rules! tiles {
            ($($m:literal)*) => {
                match m {
                    $(..=$m => {
                        let sums = sums.first_chunk_mut().expect("sums of each row");
                        self.load(out, r, &mut sums[..m]);
                        tile::tile::<S, E, $m>(s, sums, panel, x, stride, fresh);
                        self.store(s, out, r, &sums[..m]);
                    })*
                    _ => unreachable!("a tile of {m} rows"),
                }
            };
        }
        // A constant block, so that the widths of the other instruction sets are not even compiled.
        if const { S::REGISTERS >= 32 } {
            tiles!(1 2 4 8 14);
        } else if const { S::REGISTERS >= 16 } {
            tiles!(1 2 4 6);
        } else {
            tiles!(1);
        }
    }

    /// Whether `out` holds what sums begin with.
    fn goes_on(&self) -> bool {
        self.grows || self.steps.start > 0
    }

    /// The sums so far of rows from `r` on: what the run before left, if there was one. Not inlined: it is the same for every width
    /// and set.
    #[inline(never)]
    fn load(&self, out: &mut TileMut, r: usize, sums: &mut [[f32; PANEL]]) {
        if self.goes_on() {
            let at = self.first - out.cols().start;
            for (i, sums) in sums.iter_mut().enumerate() {
                sums[..self.lanes].copy_from_slice(&out.row(r + i)[at..][..self.lanes]);
            }
        }
    }

    /// Writes them, finished or not.
    #[inline(always)]
    fn store<S: Simd>(&self, s: S, out: &mut TileMut, r: usize, sums: &[[f32; PANEL]]) {
        s.apart(Store { run: self, out, r, sums });
    }
}

/// [`Run::store`], compiled once for all widths of a set.
struct Store<'a, 'o> {
    run: &'a Run<'a>,
    out: &'a mut TileMut<'o>,
    r: usize,
    sums: &'a [[f32; PANEL]],
}

impl<S: Simd> Apart<S> for Store<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Store { run, out, r, sums } = self;
        let (after, first, at) = (run.after, run.first, run.first - out.cols().start);
        for (i, sums) in sums.iter().enumerate() {
            if run.last && run.lanes < PANEL {
                after.store(out, r + i, first, &sums[..run.lanes]);
                continue;
            }
            let out = &mut out.row(r + i)[at..][..run.lanes];
            if !run.last {
                out.copy_from_slice(&sums[..run.lanes]);
                continue;
            }
            let [mut low, mut high] = [s.load(sums), s.load(&sums[LANES..])];
            if let Some(bias) = after.bias {
                let bias = &bias[first..][..PANEL];
                (low, high) = (s.add(low, s.load(bias)), s.add(high, s.load(&bias[LANES..])));
            }
            if let Some(add) = after.add {
                let add = &add[(r + i) * after.n + first..][..PANEL];
                (low, high) = (s.add(low, s.load(add)), s.add(high, s.load(&add[LANES..])));
            }
            s.store(low, out);
            s.store(high, &mut out[LANES..]);
        }
    }
}

/// [`Run::tiles`], compiled once for an element type: several kinds of weights become f32 first.
struct Tiles<'a, 'o, E> {
    run: &'a Run<'a>,
    out: &'a mut TileMut<'o>,
    panel: &'a [u8],
    x: &'a [f32],
    of: PhantomData<E>,
}

impl<'a, 'o, E> Tiles<'a, 'o, E> {
    fn new(run: &'a Run<'a>, out: &'a mut TileMut<'o>, panel: &'a [u8], x: &'a [f32]) -> Self {
        Tiles { run, out, panel, x, of: PhantomData }
    }
}

impl<S: Simd, E: Elem> Apart<S> for Tiles<'_, '_, E> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        self.run.tiles::<S, E>(s, self.out, self.panel, self.x);
    }
}

/// A panel of outputs of all `rows`, straight from the file, in the next larger number of rows that is compiled.
#[inline(always)]
fn few_rows<S: Simd, E: Elem>(
    s: S,
    out: &mut TileMut,
    w: &Matrix,
    x: &[f32],
    rows: usize,
    first: usize,
    after: &After,
) {
    let mut lanes = [0.0; PANEL];
    macro_rules! sums {
        ($($m:literal)*) => {
            for first in [first, first + LANES] {
                match rows {
                    $(..=$m => {
                        let sums = row::sixteen::<S, E, $m>(s, w, first, x);
                        for (r, sums) in sums.into_iter().enumerate().take(rows) {
                            s.store(sums, &mut lanes);
                            after.store(out, r, first, &lanes[..LANES]);
                        }
                    })*
                    _ => unreachable!("{rows} rows are not few"),
                }
            }
        };
    }
    if const { S::REGISTERS >= 32 } {
        sums!(1 2 4 8);
    } else if const { E::LINE == 1 && S::REGISTERS >= 16 } {
        for first in (first..first + PANEL).step_by(8) {
            s.store(row::lines::<S, E, 8>(s, w, first, x), &mut lanes);
            after.store(out, 0, first, &lanes[..8]);
        }
    } else {
        for first in [first, first + LANES] {
            s.store(row::lines::<S, E, LANES>(s, w, first, x), &mut lanes);
            after.store(out, 0, first, &lanes[..LANES]);
        }
    }
}
