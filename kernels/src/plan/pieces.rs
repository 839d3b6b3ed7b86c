//! Floor 0: a worker's tile in pieces, the last of which go to whoever comes first: processors are not equally fast, and
//! everybody waits for the slowest. Who computes what changes no bit. Knows no tasks.

use super::Span;
use crate::tile::{Cut, TileMut};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Words of a group of columns at most that count as few. More of them take so long that a group is a piece.
const FEW: usize = 256;

/// Groups for each worker at least: of few words, and of more.
const GROUPS: [usize; 2] = [8, 2];

/// What [`Part::pieces`](super::Part::pieces) gives.
pub struct Pieces<'a> {
    base: *mut f32,
    span: Span,
    cut: Cut,
    worker: usize,
    of: usize,
    /// Groups of columns, or cells.
    all: usize,
    /// How many of them are shared out from the start, by the rule of the cut.
    shared: usize,
    /// Groups of what is dealt after that.
    size: usize,
    /// How many pieces were dealt.
    dealt: Option<&'a AtomicUsize>,
    /// Pieces of its share that the worker took.
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
        let (all, few) = match cut {
            Cut::Cols(group) => (span.cols.div_ceil(group), span.rows * group <= FEW),
            Cut::Blocks { rows, cols } => (span.rows.div_ceil(rows) * span.cols.div_ceil(cols), false),
            Cut::Pieces(_) => unreachable!("refused by `Plan::new`"),
        };
        let dealt = dealt.filter(|_| of > 1 && all >= GROUPS[usize::from(!few)] * of);
        let shared = if dealt.is_some() { all * 3 / 4 } else { all };
        let size = if few { (all - shared).div_ceil(2 * of).max(1) } else { 1 };
        Pieces { base, span, cut, worker, of, all, shared, size, dealt, taken: 0, stop }
    }

    /// The next groups or cells: first the worker's share, groups all at once and cells one by one in turn; then what is
    /// dealt.
    fn take(&mut self) -> Range<usize> {
        let taken = self.taken;
        self.taken += 1;
        let mine = match self.cut {
            Cut::Blocks { .. } => {
                let next = self.worker + taken * self.of;
                next.min(self.shared)..(next + 1).min(self.shared)
            }
            _ if taken == 0 => self.shared * self.worker / self.of..self.shared * (self.worker + 1) / self.of,
            _ => 0..0,
        };
        match self.dealt {
            Some(dealt) if mine.is_empty() => {
                let next = dealt.fetch_add(1, Relaxed).saturating_mul(self.size);
                let from = self.shared.saturating_add(next).min(self.all);
                from..self.all.min(from + self.size)
            }
            _ => mine,
        }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = TileMut<'a>;

    fn next(&mut self) -> Option<TileMut<'a>> {
        let (size, mine) = ([self.span.rows, self.span.cols], self.take());
        if mine.is_empty() {
            return None;
        }
        // SAFETY: promised to `new`; shares lie before all that is dealt, and a number is dealt once.
        Some(unsafe {
            match self.cut {
                // The last cells cost most, and those come first. One of them is the tile of one worker of as many.
                Cut::Blocks { .. } => {
                    let place = [self.all - 1 - mine.start, self.all];
                    TileMut::new(self.base, size, self.cut, place, Some(self.stop))
                }
                Cut::Cols(group) | Cut::Pieces(group) => {
                    TileMut::groups(self.base, size, group, mine, Some(self.stop))
                }
            }
        })
    }
}
