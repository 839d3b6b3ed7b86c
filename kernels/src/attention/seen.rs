//! Floor 0: what the queries of a panel see of a chunk, and the steps in which they take its values. Knows no queries but by
//! number.

use super::PAGE;
use super::tile::{ROWS, panel_within};
use std::ops::Range;

/// What the queries of a panel see of a chunk.
pub struct Seen {
    /// Queries of a panel that see the same positions, in order: the first `runs` of these.
    each: [Same; ROWS],
    runs: usize,
    /// From the first position that some query sees to the last.
    pub some: Range<usize>,
    /// Those that every query sees that sees any.
    every: Range<usize>,
}

/// Neighbours that see the same positions of a chunk.
#[derive(Clone)]
pub struct Same {
    pub queries: Range<usize>,
    pub positions: Range<usize>,
}

impl Same {
    const NONE: Same = Same { queries: 0..0, positions: 0..0 };
}

impl Seen {
    /// So many queries see the whole chunk.
    #[inline(always)]
    pub fn all(queries: usize) -> Seen {
        let mut seen = Seen { runs: 1, some: 0..PAGE, ..Seen::nothing() };
        seen.each[0] = Same { queries: 0..queries, positions: 0..PAGE };
        seen
    }

    /// Nobody sees anything.
    #[inline(always)]
    pub fn nothing() -> Seen {
        Seen { each: [Same::NONE; ROWS], runs: 0, some: 0..0, every: 0..PAGE }
    }

    /// The next `queries` see `positions`, both ends of which rise from call to call.
    #[inline(always)]
    pub fn add(&mut self, queries: Range<usize>, positions: Range<usize>) {
        if positions.is_empty() {
            return;
        }
        let start = if self.runs == 0 { positions.start } else { self.some.start };
        self.some = start..positions.end;
        self.every = self.every.start.max(positions.start)..self.every.end.min(positions.end);
        match self.each[..self.runs].last_mut() {
            Some(last) if last.positions == positions => last.queries.end = queries.end,
            _ => {
                self.each[self.runs] = Same { queries, positions };
                self.runs += 1;
            }
        }
    }

    /// Queries that see anything.
    pub fn each(&self) -> &[Same] {
        &self.each[..self.runs]
    }

    /// Whether the first `queries` all see the same.
    pub fn together(&self, queries: usize) -> bool {
        self.runs == 1 && self.each[0].queries == (0..queries)
    }

    /// The steps in which `panel` queries take their values, each in the order of positions. What every query sees they
    /// take together, the rest with those that see the same: an unseen position has no part at all, for 0 * NaN is not 0,
    /// and -0 + 0 is not -0.
    #[inline(never)]
    pub fn steps(&self, panel: usize) -> ([Same; 2 * ROWS + 1], usize) {
        let (mut steps, mut n) = ([Same::NONE; 2 * ROWS + 1], 0);
        let mut push = |mut queries: Range<usize>, positions: Range<usize>| {
            while !positions.is_empty() && !queries.is_empty() {
                let first = queries.start..queries.start + panel_within(queries.len());
                queries.start = first.end;
                (steps[n], n) = (Same { queries: first, positions: positions.clone() }, n + 1);
            }
        };
        let apart = self.every.is_empty();
        for Same { queries, positions } in self.each() {
            push(queries.clone(), positions.start..if apart { positions.end } else { self.every.start });
        }
        if !apart {
            push(0..panel, self.every.clone());
            for Same { queries, positions } in self.each() {
                push(queries.clone(), self.every.end..positions.end);
            }
        }
        (steps, n)
    }
}
