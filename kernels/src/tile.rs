//! Floor 0: the part of a task's output that one worker may write. Knows nothing of what is computed there.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// How the workers share what a task writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Contiguous pieces of this many words; a tile is a run of pieces, one per row.
    Pieces(usize),
    /// Columns in groups of this many; a tile has every row.
    Cols(usize),
    /// Cells of so many rows and columns, dealt to the workers in turn: neighbours cost alike (a causal triangle), so
    /// dealing shares the work evenly.
    Blocks {
        /// Rows of a cell; the last one may have fewer.
        rows: usize,
        /// Columns of a cell; the last one may have fewer.
        cols: usize,
    },
}

/// The columns of some groups.
fn columns(cols: usize, group: usize, groups: Range<usize>) -> Range<usize> {
    let end = groups.end.saturating_mul(group).min(cols);
    groups.start.saturating_mul(group).min(end)..end
}

/// A cell of `Cut::Blocks`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    /// Rows of the whole span.
    pub rows: Range<usize>,
    /// Columns of the whole span.
    pub cols: Range<usize>,
    id: usize,
}

#[derive(Clone, Copy)]
struct Deal {
    rows: usize,
    cols: usize,
    worker: usize,
    of: usize,
}

/// What one worker may write of a `[rows, cols]` span: rows `rows()` and columns `cols()` in the numbering of the span
/// (of its pieces for `Cut::Pieces`), or for `Cut::Blocks` its `cells()`.
pub struct TileMut<'a> {
    base: *mut f32,
    rows: Range<usize>,
    cols: Range<usize>,
    stride: usize,
    deal: Option<Deal>,
    stop: Option<&'a AtomicBool>,
    life: PhantomData<&'a mut [f32]>,
}

impl<'a> TileMut<'a> {
    /// # Safety
    /// `base` points to `rows * cols` words that live for `'a` and that nobody reads meanwhile; other workers write
    /// only tiles of the same cut with another `worker < of`.
    pub(crate) unsafe fn new(
        base: *mut f32,
        [rows, cols]: [usize; 2],
        cut: Cut,
        [worker, of]: [usize; 2],
        stop: Option<&'a AtomicBool>,
    ) -> TileMut<'a> {
        let share = |n: usize| n * worker / of..n * (worker + 1) / of;
        let (rows, cols, stride, deal) = match cut {
            Cut::Pieces(len) => (share(rows * cols / len), 0..len, len, None),
            Cut::Cols(group) => (0..rows, columns(cols, group, share(cols.div_ceil(group))), cols, None),
            Cut::Blocks { rows: r, cols: c } => {
                (0..rows, 0..cols, cols, Some(Deal { rows: r, cols: c, worker, of }))
            }
        };
        TileMut { base, rows, cols, stride, deal, stop, life: PhantomData }
    }

    /// Groups `groups` of the columns.
    ///
    /// # Safety
    /// As for [`TileMut::new`], but that others write other groups.
    pub(crate) unsafe fn groups(
        base: *mut f32,
        [rows, cols]: [usize; 2],
        group: usize,
        groups: Range<usize>,
        stop: Option<&'a AtomicBool>,
    ) -> TileMut<'a> {
        let (rows, cols, stride) = (0..rows, columns(cols, group, groups), cols);
        TileMut { base, rows, cols, stride, deal: None, stop, life: PhantomData }
    }

    /// The tile of worker `worker` of `of`, outside a plan. Panics where the sizes do not fit.
    #[must_use]
    pub fn part(
        mem: &'a mut [f32],
        rows: usize,
        cols: usize,
        cut: Cut,
        worker: usize,
        of: usize,
    ) -> TileMut<'a> {
        assert!(
            worker < of && rows.checked_mul(cols).is_some_and(|len| len <= mem.len()),
            "tile beyond its memory"
        );
        assert!(cut.fits(rows, cols), "a cut that does not fit");
        // SAFETY: in bounds (just checked), and `mem` is borrowed for as long as the tile lives.
        unsafe { TileMut::new(mem.as_mut_ptr(), [rows, cols], cut, [worker, of], None) }
    }

    /// The whole of `[rows, cols]`, outside a plan.
    #[must_use]
    pub fn whole(mem: &'a mut [f32], rows: usize, cols: usize) -> TileMut<'a> {
        TileMut::part(mem, rows, cols, Cut::Cols(cols.max(1)), 0, 1)
    }

    /// Rows of the rectangle (pieces for `Cut::Pieces`).
    #[must_use]
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Columns of the rectangle.
    #[must_use]
    pub fn cols(&self) -> Range<usize> {
        self.cols.clone()
    }

    /// Elements from a row of the span (a piece for `Cut::Pieces`) to the next.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Whether the run was cancelled: a long kernel looks once in a while and returns.
    #[must_use]
    pub fn stop(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Relaxed))
    }

    /// The tile's columns of row `r`. Panics where they are another worker's.
    pub fn row(&mut self, r: usize) -> &mut [f32] {
        assert!(self.deal.is_none() && self.rows.contains(&r), "row {r} is another worker's");
        // SAFETY: the rectangle lies in a checked span; rectangles of different workers are
        // disjoint, a worker takes each once, and `&mut self` lends one row at a time.
        unsafe {
            std::slice::from_raw_parts_mut(self.base.add(r * self.stride + self.cols.start), self.cols.len())
        }
    }

    /// This worker's cells; none where the cut is not `Cut::Blocks`.
    pub fn cells(&self) -> impl Iterator<Item = Cell> + use<> {
        let deal = self.deal.unwrap_or(Deal { rows: 1, cols: 1, worker: 0, of: 1 });
        let (rows, cols) = if self.deal.is_some() { (self.rows.end, self.cols.end) } else { (0, 0) };
        let across = cols.div_ceil(deal.cols);
        (deal.worker..rows.div_ceil(deal.rows) * across).step_by(deal.of).map(move |id| {
            let (r, c) = (id / across * deal.rows, id % across * deal.cols);
            Cell { rows: r..rows.min(r + deal.rows), cols: c..cols.min(c + deal.cols), id }
        })
    }

    /// Whether a cell lies in the span and is one of this worker's.
    fn owns(&self, cell: &Cell) -> bool {
        let deal = self.deal.expect("a tile that is not cut in blocks");
        let across = self.cols.end.div_ceil(deal.cols);
        cell.rows.end <= self.rows.end
            && cell.cols.end <= self.cols.end
            && cell.id % deal.of == deal.worker
            && cell.rows.start == cell.id / across * deal.rows
            && cell.cols.start == cell.id % across * deal.cols
            && cell.rows.len() <= deal.rows
            && cell.cols.len() <= deal.cols
    }

    /// A cell as a rectangle, for as long as it is borrowed: its rows and columns are those of the span. Panics where the
    /// cell is not of this tile.
    pub fn cell(&mut self, cell: &Cell) -> TileMut<'_> {
        assert!(self.owns(cell), "a cell of another tile");
        // The rules of `new` hold: the rectangle is in the span, no other worker writes it, and `self` is lent meanwhile.
        let (rows, cols) = (cell.rows.clone(), cell.cols.clone());
        TileMut {
            base: self.base,
            rows,
            cols,
            stride: self.stride,
            deal: None,
            stop: self.stop,
            life: PhantomData,
        }
    }

    /// A cell's columns of row `r`. Panics where the cell is not of this tile or the row not of the cell.
    pub fn cell_row(&mut self, cell: &Cell, r: usize) -> &mut [f32] {
        assert!(self.owns(cell) && cell.rows.contains(&r), "a cell of another tile");
        // SAFETY: in the span, and cells of different workers are disjoint (`owns`); `&mut self` lends one row at a
        // time.
        unsafe {
            std::slice::from_raw_parts_mut(self.base.add(r * self.stride + cell.cols.start), cell.cols.len())
        }
    }
}

impl Cut {
    /// Whether a `[rows, cols]` span can be cut so.
    pub(crate) fn fits(self, rows: usize, cols: usize) -> bool {
        match self {
            Cut::Pieces(len) => len > 0 && (rows * cols).is_multiple_of(len),
            Cut::Cols(group) => group > 0,
            Cut::Blocks { rows, cols } => rows > 0 && cols > 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workers_tiles_cover_a_span_once() {
        for (rows, cols) in [(0, 4), (1, 1), (3, 7), (5, 64), (13, 100)] {
            for cut in [Cut::Pieces(1), Cut::Cols(32), Cut::Blocks { rows: 4, cols: 3 }] {
                for of in [1, 2, 3, 7] {
                    let mut mem = vec![0.0; rows * cols];
                    for worker in 0..of {
                        let mut tile = TileMut::part(&mut mem, rows, cols, cut, worker, of);
                        let cells: Vec<Cell> = tile.cells().collect();
                        for cell in &cells {
                            cell.rows
                                .clone()
                                .for_each(|r| tile.cell_row(cell, r).iter_mut().for_each(|x| *x += 1.0));
                        }
                        if !matches!(cut, Cut::Blocks { .. }) {
                            tile.rows().for_each(|r| tile.row(r).iter_mut().for_each(|x| *x += 1.0));
                        }
                    }
                    assert!(mem.iter().all(|x| *x == 1.0), "{rows} x {cols}, {cut:?}, {of} workers");
                }
            }
        }
    }

    #[test]
    fn a_cell_is_a_rectangle_of_the_span() {
        let (mut mem, cut) = (vec![0.0; 7 * 5], Cut::Blocks { rows: 3, cols: 2 });
        for worker in 0..3 {
            let mut tile = TileMut::part(&mut mem, 7, 5, cut, worker, 3);
            for cell in tile.cells() {
                let mut part = tile.cell(&cell);
                assert_eq!((part.rows(), part.cols()), (cell.rows.clone(), cell.cols.clone()));
                for r in part.rows() {
                    let first = (r * 5 + cell.cols.start) as f32;
                    part.row(r).iter_mut().enumerate().for_each(|(i, x)| *x += first + i as f32);
                }
            }
        }
        assert!(mem.iter().enumerate().all(|(i, x)| *x == i as f32));
    }

    #[test]
    #[should_panic(expected = "a cell of another tile")]
    fn a_foreign_cell_is_no_rectangle() {
        let mut mem = vec![0.0; 64];
        let cut = Cut::Blocks { rows: 4, cols: 4 };
        let theirs = TileMut::part(&mut mem, 8, 8, cut, 1, 2).cells().next().unwrap();
        let _ = TileMut::part(&mut mem, 8, 8, cut, 0, 2).cell(&theirs);
    }

    #[test]
    #[should_panic(expected = "a cell of another tile")]
    fn a_foreign_cell_is_refused() {
        let mut mem = vec![0.0; 64];
        let cut = Cut::Blocks { rows: 4, cols: 4 };
        let theirs = TileMut::part(&mut mem, 8, 8, cut, 1, 2).cells().next().unwrap();
        TileMut::part(&mut mem, 8, 8, cut, 0, 2).cell_row(&theirs, 0);
    }
}
