//! Floor 0: a block of queries that share keys and values, and the order in which it meets their chunks. Knows nothing
//! of who gets the outputs.
//!
//! What computes with vectors is inlined into an instance of its instruction set; what only counts is not, and has no
//! closures where vectors live: those are compiled without the set, and calls would spill registers.

use super::bias::{Adjust, Bias};
use super::cache::{self, Head};
use super::parts::{chunks_of, fold_outputs, fold_stats, part_of};
use super::room::Room;
use super::seen::{Same, Seen};
use super::tile::{ROWS, To, Widen, largest, panel_of, reads, scores, weigh, weights, with_panel};
use super::{AttendArgs, Cache, PAGE, head_words};
use crate::pages::StateRef;
use crate::plan::TileMut;
use crate::simd::{LANES, Simd};
use std::ops::Range;

/// Elements of a query that are interleaved at once.
const WIDE: usize = 32;

/// Rows of one sequence, and query heads that share one head of keys and values.
pub struct Block<'a> {
    args: &'a AttendArgs<'a>,
    rows: Range<usize>,
    heads: Range<usize>,
    /// Positions that some row sees, of the part wanted.
    reach: Range<usize>,
    /// Whether only one part is wanted.
    split: bool,
    /// Queries of a panel; the last one may be filled up with queries of nobody.
    panel: usize,
}

impl<'a> Block<'a> {
    /// Of the positions that the rows see, the block meets those of `chunks`; with `split`, these are one part.
    pub fn new<S: Simd>(
        args: &'a AttendArgs<'a>,
        rows: Range<usize>,
        heads: Range<usize>,
        chunks: Range<usize>,
        split: bool,
    ) -> Block<'a> {
        let panel = panel_of::<S>(rows.len() * heads.len());
        let mut block = Block { args, rows, heads, reach: 0..0, split, panel };
        let seen = || block.rows.clone().map(|r| block.seen(r)).filter(|seen| !seen.is_empty());
        let from = seen().map(|r| r.start).min().unwrap_or(0).max(chunks.start.saturating_mul(PAGE));
        let to = seen().map(|r| r.end).max().unwrap_or(0).min(chunks.end.saturating_mul(PAGE));
        block.reach = from..to;
        block
    }

    /// Whether no row sees anything of what is wanted.
    pub fn is_idle(&self) -> bool {
        self.reach.is_empty()
    }

    /// Queries, an index each.
    pub fn queries(&self) -> usize {
        self.rows.len() * self.heads.len()
    }

    /// Queries, filled up to whole panels.
    pub fn slots(&self) -> usize {
        self.queries().next_multiple_of(self.panel)
    }

    /// Row and head of query `i`: the heads of a row are neighbours, since they see the same.
    pub fn query(&self, i: usize) -> (usize, usize) {
        (self.rows.start + i / self.heads.len(), self.heads.start + i % self.heads.len())
    }

    /// Positions that a row sees.
    pub fn seen(&self, row: usize) -> Range<usize> {
        self.args.seen_of(row)
    }

    /// `q [rows, heads * dim]` into `out [panel][dim][query]`; queries of nobody are zeros.
    #[inline(always)]
    pub fn pack<S: Simd>(&self, s: S, out: &mut [f32], q: &[f32]) {
        let (dim, cols) = (self.args.shape.dim, self.args.shape.heads * self.args.shape.dim);
        for (first, out) in
            (0..self.queries()).step_by(self.panel).zip(out.chunks_exact_mut(self.panel * dim))
        {
            let (n, mut each) = (self.panel.min(self.queries() - first), [&[][..]; ROWS]);
            for (i, each) in each[..n].iter_mut().enumerate() {
                let (r, h) = self.query(first + i);
                *each = &q[r * cols + h * dim..][..dim];
            }
            // What is exchanged at once where a panel is full.
            let wide = if n == ROWS { dim / WIDE * WIDE } else { 0 };
            for at in (0..wide).step_by(WIDE) {
                let mut rows = [&[0.0; WIDE]; ROWS];
                for (row, q) in rows.iter_mut().zip(each) {
                    *row = q[at..].first_chunk().expect("so many elements");
                }
                s.columns::<ROWS>(&rows, &mut out[at * ROWS..], ROWS);
            }
            rest(&mut out[wide * self.panel..], &each[..n], self.panel, wide);
        }
    }

    /// Folds every chunk that somebody sees, in order, part after part. Returns early where the run was cancelled.
    #[inline(always)]
    pub fn run<S: Simd>(&self, s: S, room: &mut Room, state: &StateRef, tile: &TileMut) {
        room.out.fill(0.0);
        room.of_out.clear();
        let (mut chunk, end) = (self.reach.start / PAGE, self.reach.end.div_ceil(PAGE));
        while chunk < end {
            let chunks = chunks_of(part_of(chunk));
            // What is folded from zero need not be folded again to be a part.
            let alone = self.split || chunks.len() == 1;
            if !alone {
                room.part.fill(0.0);
                room.of_part.clear();
            }
            for chunk in chunk..end.min(chunks.end) {
                if tile.stop() {
                    return;
                }
                self.meet(s, room, state, chunk * PAGE, alone);
            }
            if !alone {
                self.fold(s, room, chunks.start * PAGE..chunks.end * PAGE);
            }
            chunk = chunks.end;
        }
    }

    /// All queries meet the chunk at position `at`.
    #[inline(always)]
    fn meet<S: Simd>(&self, s: S, room: &mut Room, state: &StateRef, at: usize, alone: bool) {
        let shape = &self.args.shape;
        let (id, _) = self.args.place(self.args.rows[self.rows.start].seq, at);
        let (words, kv) = (head_words(shape.dim, shape.cache), self.heads.start / shape.group());
        let head = |id| Head::of(&state.page(id)[kv * words..][..words], shape.dim, shape.cache);
        // Queries that meet a chunk once ask for its values while they read its keys, and for the next keys after that.
        let once = self.queries() <= self.panel && reads::<S>(shape.cache, self.panel);
        let next = once && at + PAGE < self.reach.end;
        let next = next.then(|| head(self.args.place(self.args.rows[self.rows.start].seq, at + PAGE).0));
        let head = head(id);
        self.weights(s, room, head, at, once);
        let stat = if alone { &mut room.of_out } else { &mut room.of_part };
        for i in 0..stat.max.len() {
            let (max, sum) = (&room.of_chunk.max[i], &room.of_chunk.sum[i]);
            let [old, new] = &mut room.factors;
            (old[i], new[i]) = fold_stats(s, &mut stat.max[i], &mut stat.sum[i], max, sum);
        }
        self.outputs(s, room, head, next.map(|next| next.keys), at, [once, alone]);
    }

    /// Scores and weights of a chunk, and its statistics.
    #[inline(always)]
    fn weights<S: Simd>(&self, s: S, room: &mut Room, head: Head, at: usize, once: bool) {
        let dim = self.args.shape.dim;
        let ahead = if once { distance(head.keys, head.values) } else { 0 };
        let (cache, keys) = readable(s, self.args.shape.cache, head.keys, once, room.keys);
        room.of_chunk.clear();
        let max = room.of_chunk.max.as_flattened_mut();
        let sum = room.of_chunk.sum.as_flattened_mut();
        let all = self.sees_all(at);
        for first in (0..self.queries()).step_by(self.panel) {
            let seen = self.panel_sees(first, at, all);
            if seen.some.is_empty() {
                continue;
            }
            let (p, q) = (&mut room.p[first..][..self.panel], &room.q[first * dim..][..self.panel * dim]);
            with_panel!(S, self.panel, cache, scores(s, p, q, keys, &seen.some, ahead));
            let [mut of_keys, of_values] = head.scales.map_or([None; 2], |scales| scales.map(Some));
            let mut scale = self.args.scale;
            if self.adjusts() {
                for i in seen.each().iter().flat_map(|same| same.queries.clone()) {
                    self.adjust(first + i, at).apply(s, &mut p[i], scale, of_keys);
                }
                (scale, of_keys) = (1.0, None);
            }
            // One step for all queries, then the other: reductions of one query overlap with those of the next.
            let (max, sum) = (&mut max[first..][..self.panel], &mut sum[first..][..self.panel]);
            for same in seen.each() {
                for i in same.queries.clone() {
                    max[i] = largest(s, &mut p[i], &same.positions, scale, of_keys);
                }
            }
            for i in seen.each().iter().flat_map(|same| same.queries.clone()) {
                sum[i] = weights(s, &mut p[i], max[i], of_values);
            }
        }
    }

    /// Whether more happens to scores than scaling.
    fn adjusts(&self) -> bool {
        self.args.cap.is_some() || !matches!(self.args.bias, Bias::None)
    }

    /// What happens to the scores of query `i` of the chunk at position `at`.
    fn adjust(&self, i: usize, at: usize) -> Adjust<'a> {
        let (row, head) = self.query(i);
        Adjust::new(self.args.cap, self.args.bias, head, self.args.rows[row].pos, at)
    }

    /// A chunk's outputs, folded into those before.
    #[inline(always)]
    fn outputs<S: Simd>(
        &self,
        s: S,
        room: &mut Room,
        head: Head,
        next: Option<&[u8]>,
        at: usize,
        [once, alone]: [bool; 2],
    ) {
        let (width, dim) = (room.width, self.args.shape.dim);
        let cache = self.args.shape.cache;
        let (cache, values) = if width == dim {
            readable(s, cache, head.values, once, room.values)
        } else {
            let read = self.reach.start.max(at) - at..self.reach.end.min(at + PAGE) - at;
            fill_up(room.values, head.values, [dim, width], cache, read);
            (Cache::F32, bytemuck::cast_slice(&*room.values))
        };
        let ahead = next.map_or(0, |next| distance(values, next));
        let (out, all) = (if alone { &mut *room.out } else { &mut *room.part }, self.sees_all(at));
        let [old, new] = room.factors.each_ref().map(|each| each.as_flattened());
        for first in (0..self.queries()).step_by(self.panel) {
            let seen = self.panel_sees(first, at, all);
            if seen.some.is_empty() {
                continue;
            }
            let (p, out) = (&room.p[first..], &mut out[first * width..][..self.panel * width]);
            let (old, new) = (&old[first..], &new[first..]);
            if seen.together(self.panel.min(self.queries() - first)) {
                let run = &seen.some;
                let to = To::Fold { out, old, new };
                weigh_as(s, self.panel, cache, to, p, values, run, ahead);
                continue;
            }
            let (steps, n) = seen.steps(self.panel);
            room.acc[..self.panel].iter_mut().for_each(|acc| acc[..width].fill(0.0));
            for Same { queries, positions } in &steps[..n] {
                let (to, p) = (To::Onto(&mut room.acc[queries.start..]), &p[queries.start..]);
                weigh_as(s, queries.len(), cache, to, p, values, positions, ahead);
            }
            for i in seen.each().iter().flat_map(|same| same.queries.clone()) {
                let (out, acc) = (&mut out[i * width..][..width], &room.acc[i][..width]);
                fold_outputs(s, out, acc, old[i], new[i]);
            }
        }
    }

    /// Folds the part at `positions` into what was before, for those that saw any of it.
    #[inline(always)]
    fn fold<S: Simd>(&self, s: S, room: &mut Room, positions: Range<usize>) {
        for lanes in 0..room.of_out.max.len() {
            let (max, sum) = (&mut room.of_out.max[lanes], &mut room.of_out.sum[lanes]);
            let (old, new) = fold_stats(s, max, sum, &room.of_part.max[lanes], &room.of_part.sum[lanes]);
            for i in lanes * LANES..self.queries().min((lanes + 1) * LANES) {
                let seen = self.seen(self.query(i).0);
                if seen.start < positions.end && positions.start < seen.end {
                    let at = i * room.width..(i + 1) * room.width;
                    fold_outputs(
                        s,
                        &mut room.out[at.clone()],
                        &room.part[at],
                        old[i % LANES],
                        new[i % LANES],
                    );
                }
            }
        }
    }

    /// Whether every row sees all of the chunk at position `at`.
    fn sees_all(&self, at: usize) -> bool {
        // Positions rise from row to row, and with them both ends of what is seen.
        let (a, b) = (self.seen(self.rows.start), self.seen(self.rows.end - 1));
        b.start <= at && at + PAGE <= a.end
    }

    /// What the panel from query `first` on sees of the chunk at position `at`, of which all see `all` or not.
    #[inline(always)]
    fn panel_sees(&self, first: usize, at: usize, all: bool) -> Seen {
        if !all {
            return self.panel_sees_some(first, at);
        }
        Seen::all(self.panel.min(self.queries() - first))
    }

    /// The same, row by row.
    #[inline(never)]
    fn panel_sees_some(&self, first: usize, at: usize) -> Seen {
        let mut seen = Seen::nothing();
        let (n, mut i) = (self.panel.min(self.queries() - first), 0);
        while i < n {
            let (row, head) = self.query(first + i);
            let (queries, all) = (i..n.min(i + self.heads.end - head), self.seen(row));
            i = queries.end;
            let positions = all.start.clamp(at, at + PAGE) - at..all.end.clamp(at, at + PAGE) - at;
            seen.add(queries, positions);
        }
        seen
    }
}

/// [`weigh`] of so many queries.
#[inline(never)]
fn weigh_as<S: Simd>(
    s: S,
    queries: usize,
    cache: Cache,
    to: To,
    p: &[[f32; PAGE]],
    values: &[u8],
    run: &Range<usize>,
    ahead: usize,
) {
    with_panel!(S, queries, cache, weigh(s, to, p, values, run, ahead));
}

/// Dimensions `from..` of some queries, interleaved for a panel; queries of nobody are zeros.
fn rest(out: &mut [f32], queries: &[&[f32]], panel: usize, from: usize) {
    for (out, d) in out.chunks_exact_mut(panel).zip(from..) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = queries.get(i).map_or(0.0, |q| q[d]);
        }
    }
}

/// A chunk's keys or values and their type, as tiles read them: as they are by who reads them `once`, else widened to f32.
#[inline(always)]
fn readable<'a, S: Simd>(
    s: S,
    cache: Cache,
    bytes: &'a [u8],
    once: bool,
    room: &'a mut [f32],
) -> (Cache, &'a [u8]) {
    if once || cache == Cache::F32 {
        return (cache, bytes);
    }
    s.apart(Widen { out: room, bytes, cache });
    (Cache::F32, bytemuck::cast_slice(room))
}

/// Rows `read` of values `[PAGE][dim]` as f32 `[PAGE][width]`.
fn fill_up(out: &mut [f32], values: &[u8], [dim, width]: [usize; 2], cache: Cache, read: Range<usize>) {
    for i in read {
        for (out, d) in out[i * width..][..dim].iter_mut().zip(0..) {
            *out = cache.element(values, i * dim + d);
        }
    }
}

/// Bytes from what is read to what will be.
fn distance(from: &[u8], to: &[u8]) -> usize {
    to.as_ptr().addr().wrapping_sub(from.as_ptr().addr())
}
