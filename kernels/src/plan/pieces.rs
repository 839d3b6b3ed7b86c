//! Floor 0: a worker's tile in pieces, the last of which go to whoever comes first: processors are not equally fast, and
//! everybody waits for the slowest. Who computes what changes no bit. Knows no tasks.

use super::Span;
use crate::tile::{Cut, TileMut};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Words of a group of columns at most that count as few. More of them take so long that a group is a piece by itself.
const FEW: usize = 256;

/// Groups or cells for each worker at least, where it pays to deal them.
const EACH: usize = 8;

/// The same of groups that take long.
const EACH_LONG: usize = 2;

/// What [`Part::pieces`](super::Part::pieces) gives.
pub struct Pieces<'a> {
    base: *mut f32,
    span: Span,
    cut: Cut,
    worker: usize,
    of: usize,
    /// How many pieces were dealt; or the whole tile comes at once.
    dealt: Option<&'a AtomicUsize>,
    /// Groups of columns, or cells, and how many of them are shared out from the start.
    all: usize,
    shared: usize,
    /// Groups of a piece that is dealt.
    size: usize,
    /// Pieces that the worker took before what is dealt.
    taken: usize,
    stop: &'a AtomicBool,
}

impl<'a> Pieces<'a> {
    /// # Safety
    /// As for [`TileMut::new`], where the others write pieces from the same count, or their tiles if there is none.
    pub(super) unsafe fn new(
        base: *mut f32,
        span: Span,
        cut: Cut,
        [worker, of]: [usize; 2],
        dealt: Option<&'a AtomicUsize>,
        stop: &'a AtomicBool,
    ) -> Pieces<'a> {
        let all = match cut {
            Cut::Cols(group) => span.cols.div_ceil(group),
            Cut::Blocks { rows, cols } => span.rows.div_ceil(rows) * span.cols.div_ceil(cols),
            Cut::Pieces(_) => unreachable!("refused by `Plan::new`"),
        };
        let shared = all * 3 / 4;
        let (each, size) = match cut {
            Cut::Cols(group) if span.rows * group > FEW => (EACH_LONG, 1),
            Cut::Cols(_) => (EACH, (all - shared).div_ceil(2 * of)),
            _ => (EACH, 1),
        };
        let dealt = dealt.filter(|_| of > 1 && all >= each * of);
        Pieces { base, span, cut, worker, of, dealt, all, shared, size, taken: 0, stop }
    }

    /// The next groups or cells. First the worker's share of three quarters of them, groups all at once and cells in turn, one
    /// by one; then of the rest what nobody else has taken.
    fn take(&mut self, dealt: &AtomicUsize) -> Range<usize> {
        let (shared, taken) = (self.shared, self.taken);
        self.taken += 1;
        let next = self.worker + taken * self.of;
        match self.cut {
            Cut::Blocks { .. } if next < shared => return next..next + 1,
            Cut::Cols(_) if taken == 0 => {
                return shared * self.worker / self.of..shared * (self.worker + 1) / self.of;
            }
            _ => {}
        }
        let from = shared.saturating_add(dealt.fetch_add(1, Relaxed).saturating_mul(self.size));
        from.min(self.all)..self.all.min(from.saturating_add(self.size))
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = TileMut<'a>;

    fn next(&mut self) -> Option<TileMut<'a>> {
        let (size, stop) = ([self.span.rows, self.span.cols], Some(self.stop));
        let Some(dealt) = self.dealt else {
            let first = std::mem::replace(&mut self.taken, 1) == 0;
            // SAFETY: promised to `new`.
            return first
                .then(|| unsafe { TileMut::new(self.base, size, self.cut, [self.worker, self.of], stop) });
        };
        let mine = self.take(dealt);
        // SAFETY: promised to `new`; shares lie before all that is dealt, and a number is dealt once.
        (!mine.is_empty()).then(|| unsafe {
            match self.cut {
                Cut::Cols(group) => TileMut::groups(self.base, size, group, mine, stop),
                // A cell is the tile of one worker of as many. The last ones cost most, and come first.
                _ => TileMut::new(self.base, size, self.cut, [self.all - 1 - mine.start, self.all], stop),
            }
        })
    }
}
