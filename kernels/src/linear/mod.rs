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
mod run;
mod tile;
#[cfg(feature = "train")]
mod turn;

pub use activations::Pack;
pub(crate) use activations::{Laid, pack_isa};
pub(crate) use after::After;
pub use after::{BY_ROWS, Then};
#[cfg(feature = "train")]
pub use back::{bias_db, dw_cut};
pub use matrix::{Matrix, MatrixError, Order};
pub(crate) use packed::ask_row;
pub(crate) use packed::pack_panel_isa;
pub use packed::{embed_row, pack_panel, panel_bytes};
pub use quantise::{Guide, Unrepresentable, quantise_panel, spans};
pub(crate) use run::Run;
#[cfg(feature = "train")]
pub(crate) use turn::turn_isa;

use crate::dtype::DType;
use crate::ops::{Ops, per_isa};
use crate::plan::TileMut;
use crate::simd::Simd;
use elem::{Bf16, F16, F32, Stored, parts};
use run::{Sink, Tiles};

/// Outputs that lie side by side: two vectors, so that a tile of 14 rows fills the registers of AVX-512.
pub const PANEL: usize = 32;

/// Rows that meet all panels of a worker one after the other: a multiple of every tile's. Their activations stay near, and
/// so does what is left of one run of k for the next.
const ROWS: usize = 546;

/// The same, where panels are multiplied as they lie: nothing is lost by reading them more often.
const NEAR_ROWS: usize = 168;

/// Words of the sums of so many, and of those of a tile that are dropped.
const SUMS: usize = (ROWS + tile::MOST) * PANEL;

impl Ops {
    /// Scratch words of a linear with weights of a type.
    #[must_use]
    pub fn linear_scratch(&self, k: usize, dtype: DType) -> usize {
        // A word of weights may become two of the panel.
        let dense = k.saturating_add(1).min(2 * tile::STEPS).saturating_mul(PANEL).saturating_add(row::ENDS);
        (if dtype.block() == 1 { dense } else { blocks::SCRATCH }).saturating_add(2 * SUMS)
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
    /// Panics where the sizes do not fit, or of too few rows for what they are multiplied by.
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
        if let Some(by) = then.by {
            let of = |w: &Matrix| (w.dtype(), w.n(), w.k());
            assert!(of(by) == of(w) && rows >= BY_ROWS, "{rows} rows times those of another matrix");
        }
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
    let lies = |w: &Matrix| w.order() == Order::Panels && (ready || rows <= tile::rows::<S>());
    let (scratch, beside) = scratch.split_at_mut(scratch.len() - SUMS);
    let (scratch, sums) = scratch.split_at_mut(scratch.len() - SUMS);
    let (ends, scratch) = scratch.split_at_mut(row::ENDS);
    let mut to = Sink { out, sums: sums.as_chunks_mut().0 };
    let (mut beside, near) = (beside.as_chunks_mut().0, if lies(w) { NEAR_ROWS } else { ROWS });
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
        let skipped = usize::from(after.by().is_none());
        for &Pass { w, ends, beyond } in &passes(after, w, first, cols.end)[skipped..] {
            let by = (ends && skipped == 0).then_some(&*beside);
            let mut from = 0;
            while from < steps || from == 0 {
                let some = from..steps.min(from + tile::STEPS);
                let (rows, last) = (top..rows.min(top + near), ends && some.end == steps);
                let step = PANEL * E::PACKED;
                let next = next_steps(w, first, some.end * step, some.len() * step, beyond);
                let (steps, grows, home) = (some.clone(), false, None);
                let run = Run { first, lanes, rows, words, steps, grows, home, last, next, by, after };
                if lies(w) {
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
            if !ends {
                std::mem::swap(&mut to.sums, &mut beside);
            }
        }
    }
}

/// A matrix that meets the rows: the one whose products end here, or the one that these are multiplied by.
struct Pass<'a> {
    w: &'a Matrix<'a>,
    ends: bool,
    /// What of the weights is read after its panel.
    beyond: &'a [u8],
}

/// Which matrices meet the rows for the panel of output `first` of outputs up to `end`: what products are multiplied by comes
/// first, and waits beside them. Where there is no such, the last one alone counts.
#[inline(never)]
fn passes<'a>(after: &After<'a>, w: &'a Matrix<'a>, first: usize, end: usize) -> [Pass<'a>; 2] {
    let by = after.by().unwrap_or(w);
    [
        Pass { w: by, ends: false, beyond: panel_at(w, first, end) },
        Pass { w, ends: true, beyond: panel_at(by, first + PANEL, end) },
    ]
}

/// The panel of output `first`, if there is one below `end` and weights lie in panels.
fn panel_at<'a>(w: &Matrix<'a>, first: usize, end: usize) -> &'a [u8] {
    if w.order() == Order::Panels && first < end { w.panel(first / PANEL) } else { &[] }
}

/// What is read after the first `done` bytes of the panel of output `first`, at most `most` of it: what is left of the panel, or
/// what is `beyond`. Nothing where weights do not lie in panels.
#[inline(never)]
fn next_steps<'a>(w: &Matrix<'a>, first: usize, done: usize, most: usize, beyond: &'a [u8]) -> &'a [u8] {
    if w.order() != Order::Panels {
        return &[];
    }
    let rest = &w.panel(first / PANEL)[done..];
    let next = if rest.is_empty() { beyond } else { rest };
    &next[..next.len().min(most)]
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
