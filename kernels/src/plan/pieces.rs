//! Floor 0: a worker's tile in pieces, the last of which go to whoever comes first: processors are not equally fast, and
//! everybody waits for the slowest. Who computes what changes no bit. Knows no tasks.

use super::Span;
use crate::tile::{Cut, TileMut};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Rows at most of what is dealt: with more, a piece costs no less by itself and stages are long.
const ROWS: usize = 8;

/// Groups of columns for each worker at least.
const GROUPS: usize = 8;

/// What [`Part::pieces`](super::Part::pieces) gives.
pub struct Pieces<'a> {
    base: *mut f32,
    span: Span,
    /// Columns of a group.
    group: usize,
    worker: usize,
    of: usize,
    /// How many pieces were dealt; or the whole tile comes at once.
    dealt: Option<&'a AtomicUsize>,
    first: bool,
    stop: &'a AtomicBool,
}

impl<'a> Pieces<'a> {
    /// # Safety
    /// As for [`TileMut::new`], where the others write pieces from the same count, or their tiles if there is none.
    pub(super) unsafe fn new(
        base: *mut f32,
        span: Span,
        group: usize,
        [worker, of]: [usize; 2],
        dealt: Option<&'a AtomicUsize>,
        stop: &'a AtomicBool,
    ) -> Pieces<'a> {
        let pays = of > 1 && span.rows <= ROWS && span.cols.div_ceil(group) >= GROUPS * of;
        Pieces { base, span, group, worker, of, dealt: dealt.filter(|_| pays), first: true, stop }
    }

    /// The groups of the next piece: first the worker's share of three quarters of `all`, then pieces of the rest, twice as many
    /// as workers.
    fn dealt(&mut self, all: usize, dealt: &AtomicUsize) -> Range<usize> {
        let shared = all * 3 / 4;
        if std::mem::replace(&mut self.first, false) {
            return shared * self.worker / self.of..shared * (self.worker + 1) / self.of;
        }
        let size = (all - shared).div_ceil(2 * self.of);
        let from = shared.saturating_add(dealt.fetch_add(1, Relaxed).saturating_mul(size)).min(all);
        from..all.min(from + size)
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = TileMut<'a>;

    fn next(&mut self) -> Option<TileMut<'a>> {
        let size = [self.span.rows, self.span.cols];
        let Some(dealt) = self.dealt else {
            let (cut, place) = (Cut::Dealt(self.group), [self.worker, self.of]);
            let first = std::mem::replace(&mut self.first, false);
            // SAFETY: promised to `new`.
            return first.then(|| unsafe { TileMut::new(self.base, size, cut, place, Some(self.stop)) });
        };
        let mine = self.dealt(self.span.cols.div_ceil(self.group), dealt);
        // SAFETY: promised to `new`; shares lie before all that is dealt, and a number is dealt once.
        (!mine.is_empty())
            .then(|| unsafe { TileMut::groups(self.base, size, self.group, mine, Some(self.stop)) })
    }
}
