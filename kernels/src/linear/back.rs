//! Floor 0: gradients of `linear`, by the tiles that compute it: `dx = dy W + add` is a linear with the matrix turned, and
//! in `dw += dy^T x` rows are what k is elsewhere. Each element is one chain of fused multiply-adds, over outputs in order
//! for dx, over rows in order for dw and db, which begin with what they hold: a batch in two parts has the bits of one.
//! Knows no models.

use super::{After, Matrix, PANEL, Run, Then, tile};
use crate::ops::Ops;
use crate::plan::{Cell, Cut, TileMut};
use std::ops::Range;

/// Rows of a cell of dw at most: whole tiles of every set.
const ROWS: usize = 168;

/// Rows of a batch that a cell takes at once: dy of all its rows stays in a second-level cache, x of a panel in a
/// first-level one.
const STEPS: usize = 256;

/// Cells that dw is cut into at least, where it has as many: enough for a team to share evenly.
const CELLS: usize = 16;

/// How dw `[n, k]` is best cut, whether it is large, flat or tall.
#[must_use]
pub fn dw_cut(n: usize, k: usize) -> Cut {
    let sizes = [[ROWS, 512], [ROWS, 256], [ROWS, 128], [84, 128], [42, 128], [42, 64], [42, PANEL]];
    let enough = |[rows, cols]: &[usize; 2]| n.div_ceil(*rows) * k.div_ceil(*cols) >= CELLS;
    let [rows, cols] = sizes.into_iter().find(enough).unwrap_or([42, PANEL]);
    Cut::Blocks { rows, cols }
}

impl Ops {
    /// Scratch words of [`Ops::linear_dx`] through weights with `n` outputs of any type.
    #[must_use]
    pub fn linear_dx_scratch(&self, n: usize) -> usize {
        n.clamp(1, tile::STEPS) * PANEL
    }

    /// dx `[rows, k]`, cut by columns in groups of [`PANEL`]: `dy W + add`, `W [n, k]` of any type and order, its elements
    /// as they are (bf16 subnormals as zeros). dy `[rows, n]` packed by [`Ops::pack`] as [`Pack::F32`](super::Pack::F32)
    /// with n for k; add `[rows, k]`; scratch [`Ops::linear_dx_scratch`] words.
    ///
    /// Panics where the sizes do not fit.
    pub fn linear_dx(
        &self,
        dx: &mut TileMut,
        dy: &[f32],
        rows: usize,
        w: &Matrix,
        add: Option<&[f32]>,
        scratch: &mut [f32],
    ) {
        let (cols, n) = (dx.cols(), w.n());
        if rows == 0 || cols.is_empty() {
            return;
        }
        assert!(cols.end <= w.k(), "{} inputs of {}", cols.end, w.k());
        let then = Then { add, ..Then::default() };
        let (after, panel) = (After::new(self, rows, w.k(), &then), scratch.as_chunks_mut::<PANEL>().0);
        for first in cols.clone().step_by(PANEL) {
            let (mut from, lanes) = (0, PANEL.min(cols.end - first));
            while from < n || from == 0 {
                if dx.stop() {
                    return;
                }
                let steps = from..n.min(from + tile::STEPS);
                let panel = &mut panel[..steps.len()];
                (self.back.turn)(panel, w, first, steps.clone());
                let (rows, last, grows, home) = (0..rows, steps.end == n, false, Some(0));
                let (words, next, after) = (n, &[][..], &after);
                let run = Run { first, lanes, rows, words, steps, grows, home, last, next, by: None, after };
                (self.back.tiles_f32)(&run, dx, bytemuck::cast_slice(panel), dy);
                from = run.steps.end.max(1);
            }
        }
    }

    /// Scratch words of [`Ops::linear_dw`].
    #[must_use]
    pub fn linear_dw_scratch(&self) -> usize {
        (ROWS + PANEL) * STEPS
    }

    /// dw `[n, k]`, cut by [`dw_cut`]: `+= dy^T x`, the chain over rows of each element beginning with what is there. dy
    /// `[rows, n]` and x `[rows, k]` are plain; scratch [`Ops::linear_dw_scratch`] words.
    ///
    /// Panics where the sizes do not fit.
    pub fn linear_dw(&self, dw: &mut TileMut, dy: &[f32], x: &[f32], rows: usize, scratch: &mut [f32]) {
        let (n, k) = (dw.rows().end, dw.cols().end);
        assert!(dy.len() >= rows * n && x.len() >= rows * k, "{rows} rows of {n} and {k} elements");
        let (packed, panel) = scratch.split_at_mut(ROWS * STEPS);
        let panel = panel.as_chunks_mut::<PANEL>().0;
        // All cells before the next rows of the batch: what several of them read is near.
        for from in (0..rows).step_by(STEPS) {
            let some = from..rows.min(from + STEPS);
            let mut turned = 0..0;
            for cell in dw.cells() {
                if dw.stop() {
                    return;
                }
                if turned != cell.rows {
                    self.turn_rows(packed, dy, n, &cell.rows, some.clone());
                    turned = cell.rows.clone();
                }
                let x = Cols { x: &x[some.start * k..], k, rows: some.len() };
                self.dw_cell(&mut dw.cell(&cell), &cell, x, packed, panel);
            }
        }
    }

    /// One cell of dw: `+=` packed rows of dy times `x`.
    fn dw_cell(&self, tile: &mut TileMut, cell: &Cell, x: Cols, packed: &[f32], panel: &mut [[f32; PANEL]]) {
        assert!(cell.rows.len() <= ROWS, "a cell of {} rows", cell.rows.len());
        let after = After::new(self, cell.rows.len(), x.k, &Then::default());
        let (home, grows, last, words) = (Some(cell.rows.start), true, false, x.rows);
        for first in cell.cols.clone().step_by(PANEL) {
            let lanes = PANEL.min(cell.cols.end - first);
            x.panel(panel, first, lanes);
            let (rows, steps, next) = (0..cell.rows.len(), 0..x.rows, &[][..]);
            let run =
                Run { first, lanes, rows, words, steps, grows, home, last, next, by: None, after: &after };
            (self.back.tiles_f32)(&run, tile, bytemuck::cast_slice(&panel[..x.rows]), packed);
        }
    }

    /// Outputs `outputs` of rows `some` of dy as packed rows: what a cell of so many rows meets.
    fn turn_rows(
        &self,
        packed: &mut [f32],
        dy: &[f32],
        n: usize,
        outputs: &Range<usize>,
        some: Range<usize>,
    ) {
        match if outputs.len() == 1 { 1 } else { self.tile_rows } {
            14 => turned::<14>(packed, dy, n, outputs, some),
            6 => turned::<6>(packed, dy, n, outputs, some),
            _ => turned::<1>(packed, dy, n, outputs, some),
        }
    }
}

/// Outputs `outputs` of rows `some` of `dy [_, n]` as a packed row each, in tiles of `R` outputs: `[tile][some][R]`.
fn turned<const R: usize>(out: &mut [f32], dy: &[f32], n: usize, outputs: &Range<usize>, some: Range<usize>) {
    let (out, len) = (out.as_chunks_mut::<R>().0, some.len());
    for (i, r) in some.enumerate() {
        let (whole, rest) = dy[r * n..][outputs.clone()].as_chunks::<R>();
        for (t, dy) in whole.iter().enumerate() {
            out[t * len + i] = *dy;
        }
        if !rest.is_empty() {
            out[whole.len() * len + i][..rest.len()].copy_from_slice(rest);
        }
    }
}

/// Some rows of `x [_, k]`.
#[derive(Clone, Copy)]
struct Cols<'a> {
    x: &'a [f32],
    k: usize,
    rows: usize,
}

impl Cols<'_> {
    /// `lanes` columns from `first` on, with zeros for those that a panel has beyond them.
    fn panel(&self, panel: &mut [[f32; PANEL]], first: usize, lanes: usize) {
        for (r, panel) in panel[..self.rows].iter_mut().enumerate() {
            let x = &self.x[r * self.k + first..];
            if let (PANEL, Some(x)) = (lanes, x.first_chunk()) {
                *panel = *x;
            } else {
                panel[..lanes].copy_from_slice(&x[..lanes]);
                panel[lanes..].fill(0.0);
            }
        }
    }
}

/// db `[1, n]`, cut by columns: `+=` the rows of `dy [_, n]`, in order.
///
/// Panics where the sizes do not fit.
pub fn bias_db(db: &mut TileMut, dy: &[f32], n: usize) {
    let cols = db.cols();
    if cols.is_empty() {
        return;
    }
    let db = db.row(0);
    for dy in dy.chunks_exact(n) {
        for (db, dy) in db.iter_mut().zip(&dy[cols.clone()]) {
            *db += dy;
        }
    }
}
