//! Floor 0: a block of queries or of keys whose gradients are computed, and the order in which it meets the other kind.
//! Knows nothing of who gets them.

use super::room::Room;
use super::tile::{Products, Soft, Stats, Sums, Turn, panel};
use super::{BackArgs, Kept};
use crate::attention::tile::ROWS;
use crate::attention::{Bias, PAGE};
use crate::plan::TileMut;
use crate::simd::{Apart, LANES, Simd};
use std::ops::Range;

/// Whose gradients a block computes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Rows are queries, which meet keys and values.
    Queries,
    /// Rows are keys and values, which meet queries and gradients of outputs.
    Keys,
    /// As `Queries`, but the gradients are those of biases.
    Biases,
}

/// Rows of one sequence, and heads that share one head of the other kind, or one head of keys.
pub struct Block<'a> {
    args: &'a BackArgs<'a>,
    of: &'a Kept<'a>,
    owner: Owner,
    /// First row and rows of the sequence's queries, and of its keys.
    queries: Range<usize>,
    keys: Range<usize>,
    /// Rows, and heads, of the kind owned.
    rows: Range<usize>,
    heads: Range<usize>,
    /// Positions of the other kind that some row meets.
    reach: Range<usize>,
}

/// Slots that meet the same part of a chunk, the least that holds what each of them meets: whole panels of every set, so
/// that none meets zeros which another leaves out.
const TOGETHER: usize = 2 * ROWS;

/// A matrix of rows of heads.
#[derive(Clone, Copy)]
struct Heads<'a> {
    x: &'a [f32],
    cols: usize,
}

impl<'a> Block<'a> {
    pub fn new(
        args: &'a BackArgs<'a>,
        of: &'a Kept<'a>,
        owner: Owner,
        seq: usize,
        rows: Range<usize>,
        heads: Range<usize>,
    ) -> Block<'a> {
        let (queries, keys) = (BackArgs::rows(args.starts, seq), BackArgs::rows(args.key_starts, seq));
        let mut block = Block { args, of, owner, queries, keys, rows, heads, reach: 0..0 };
        block.reach = block.met_by(block.rows.clone());
        block
    }

    /// Positions of the other kind from the first that some of the rows meets to the last.
    fn met_by(&self, rows: Range<usize>) -> Range<usize> {
        let met = || rows.clone().map(|row| self.meets(row)).filter(|met| !met.is_empty());
        met().map(|m| m.start).min().unwrap_or(0)..met().map(|m| m.end).max().unwrap_or(0)
    }

    /// What the panel from slot `first` on meets of the chunk at position `at`.
    #[inline(never)]
    fn run(&self, first: usize, at: usize) -> Range<usize> {
        let first = first / TOGETHER * TOGETHER;
        let last = (first + TOGETHER).min(self.owned()) - 1;
        Block::part(&self.met_by(self.slot(first).0..self.slot(last).0 + 1), at)
    }

    pub fn dim(&self) -> usize {
        self.args.shape.dim
    }

    /// Rows and heads, a slot each.
    pub fn owned(&self) -> usize {
        self.rows.len() * self.heads.len()
    }

    /// Slots, filled up to whole panels.
    pub fn slots<S: Simd>(&self) -> usize {
        self.owned().next_multiple_of(panel::<S>())
    }

    /// Row and head of slot `i`.
    pub fn slot(&self, i: usize) -> (usize, usize) {
        (self.rows.start + i / self.heads.len(), self.heads.start + i % self.heads.len())
    }

    /// Position of a row of the kind owned.
    fn position(&self, row: usize) -> usize {
        row - if self.owner == Owner::Keys { self.keys.start } else { self.queries.start }
    }

    /// Positions of the other kind that a row meets.
    fn meets(&self, row: usize) -> Range<usize> {
        match self.owner {
            Owner::Keys => self.args.seen_by(self.position(row), self.queries.len()),
            _ => self.args.sees(self.position(row), self.keys.len()),
        }
    }

    /// Of what a row meets, the part in the chunk at position `at`.
    fn part(all: &Range<usize>, at: usize) -> Range<usize> {
        all.start.clamp(at, at + PAGE) - at..all.end.clamp(at, at + PAGE) - at
    }

    /// The two matrices of queries, or of keys.
    fn sides(&self, queries: bool) -> [Heads<'a>; 2] {
        let shape = &self.args.shape;
        let cols = if queries { shape.heads } else { shape.kv_heads } * shape.dim;
        let pair = if queries { [self.of.q, self.of.dout] } else { [self.of.k, self.of.v] };
        pair.map(|x| Heads { x, cols })
    }

    /// Heads of the other kind, in order.
    fn others(&self) -> Range<usize> {
        let group = self.args.shape.group();
        match self.owner {
            Owner::Keys => self.heads.start * group..(self.heads.start + 1) * group,
            _ => self.heads.start / group..self.heads.start / group + 1,
        }
    }

    /// Largest score, one over the sum of weights, and delta of a query.
    fn stats(&self, row: usize, head: usize) -> [f32; 3] {
        let at = row * self.args.shape.heads + head;
        [self.of.stat[2 * at], self.of.stat[2 * at + 1].recip(), self.of.delta[at]]
    }

    /// The rows owned, in panels, and their statistics.
    #[inline(never)]
    fn pack(&self, room: &mut Room, panel: usize) {
        let (dim, n) = (self.dim(), self.owned());
        for (side, out) in self.sides(self.owner != Owner::Keys).into_iter().zip(&mut room.own) {
            for (first, out) in (0..n).step_by(panel).zip(out.chunks_exact_mut(panel * dim)) {
                let (some, mut each) = (panel.min(n - first), [&[][..]; ROWS]);
                for (i, each) in each[..some].iter_mut().enumerate() {
                    let (row, head) = self.slot(first + i);
                    *each = &side.x[row * side.cols + head * dim..][..dim];
                }
                // Rows of nobody are zeros.
                for (d, out) in out.chunks_exact_mut(panel).enumerate() {
                    for (out, x) in out.iter_mut().zip(&each) {
                        *out = x.get(d).copied().unwrap_or(0.0);
                    }
                }
            }
        }
        if self.owner != Owner::Keys {
            for (i, stats) in room.slots.iter_mut().enumerate().take(n) {
                let (row, head) = self.slot(i);
                *stats = self.stats(row, head);
            }
        }
    }

    /// A chunk of the other kind: its rows, as they are where they are to be weighed, and turned.
    #[inline(always)]
    fn load<S: Simd>(&self, s: S, room: &mut Room, other: usize, at: usize) {
        let (dim, keys) = (self.dim(), self.owner == Owner::Keys);
        let all = if keys { &self.queries } else { &self.keys };
        let (first, n) = (all.start + at, PAGE.min(all.len() - at));
        // Whole squares of sixteen rows and elements.
        let [whole, across] = [n, dim].map(|n| n - n % LANES);
        for (side, out) in self.sides(keys).into_iter().zip(&mut room.turned) {
            let x = &side.x[first * side.cols + other * dim..];
            for i in (0..whole).step_by(LANES) {
                for d in (0..across).step_by(LANES) {
                    let (out, x) = (&mut out[d * PAGE + i..], &x[i * side.cols + d..]);
                    s.apart(Turn { out, x, stride: side.cols });
                }
            }
            turn_rest(out, x, side.cols, [n, dim], [whole, across]);
        }
        let plain = if self.owner == Owner::Biases { 0 } else { 1 + usize::from(keys) };
        for (side, out) in self.sides(keys).into_iter().zip(&mut room.plain).take(plain) {
            let x = &side.x[first * side.cols + other * dim..];
            for (i, out) in out.chunks_exact_mut(room.width).enumerate().take(n) {
                out[..dim].copy_from_slice(&x[i * side.cols..][..dim]);
                out[dim..].fill(0.0);
            }
        }
        if keys {
            for i in 0..n {
                let stats = self.stats(first + i, other);
                (0..3).for_each(|j| room.lanes[j][i] = stats[j]);
            }
        }
    }

    /// Fills in what is added to the scores of a slot in the chunk at `at`: numbers, for the factor returned.
    #[inline(never)]
    fn bias(
        &self,
        out: &mut [f32; PAGE],
        slot: usize,
        other: usize,
        at: usize,
        run: &Range<usize>,
    ) -> Option<f32> {
        let (row, head) = self.slot(slot);
        let (own, keys) = (self.position(row), self.owner == Owner::Keys);
        let head = if keys { other } else { head };
        for lane in run.clone() {
            let (pos, key) = if keys { (at + lane, own) } else { (own, at + lane) };
            out[lane] = match self.args.bias {
                Bias::None => return None,
                Bias::Slopes(_) => (key as i64 - pos as i64) as f32,
                Bias::Distance { .. } | Bias::Positions { .. } => self.args.bias.at(head, pos, key),
            };
        }
        Some(if let Bias::Slopes(slopes) = self.args.bias { slopes[head] } else { 1.0 })
    }

    /// Weights and gradients of scores of the panel from slot `first` on, in `room.p` and `room.d`.
    #[inline(always)]
    fn soften<S: Simd>(
        &self,
        s: S,
        room: &mut Room,
        first: usize,
        [other, at]: [usize; 2],
        run: &Range<usize>,
    ) {
        let (panel, dim) = (const { panel::<S>() }, self.dim());
        let (own, [a, b], turned) = (first * dim..(first + panel) * dim, &room.own, &room.turned);
        s.apart(Products { out: room.p, own: &a[own.clone()], turned: turned[0], run });
        s.apart(Products { out: room.d, own: &b[own], turned: turned[1], run });
        for i in 0..panel.min(self.owned() - first) {
            let part = Block::part(&self.meets(self.slot(first + i).0), at);
            let factor = self.bias(room.bias, first + i, other, at, run);
            let bias = if let Some(factor) = factor { Some((factor, &*room.bias)) } else { None };
            let keys = self.owner == Owner::Keys;
            let stats = if keys { Stats::Each(room.lanes) } else { Stats::One(room.slots[first + i]) };
            let (scale, cap, capped) = (self.args.scale, self.args.cap, self.owner == Owner::Biases);
            let (p, d) = (&mut room.p[i], &mut room.d[i]);
            s.apart(Soft { p, d, run, own: &part, stats, scale, cap, bias, capped });
        }
    }
}

/// The elements of a chunk that are in no whole square: `x [n, dim]`, rows `cols` apart, to `out [dim][PAGE]`.
#[inline(never)]
fn turn_rest(out: &mut [f32], x: &[f32], cols: usize, [n, dim]: [usize; 2], [whole, across]: [usize; 2]) {
    for i in 0..n {
        for d in if i < whole { across } else { 0 }..dim {
            out[d * PAGE + i] = x[i * cols + d];
        }
    }
}

/// Gradients of queries into `room.acc[0]`, of keys and of values into both; or of the biases of one head, added to its
/// row of `tile`.
pub struct Run<'a, 'r, 't> {
    pub block: &'a Block<'a>,
    pub room: &'a mut Room<'r>,
    /// Says when to stop.
    pub tile: &'a mut TileMut<'t>,
}

impl<S: Simd> Apart<S> for Run<'_, '_, '_> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Run { block, room, tile } = self;
        let (panel, n) = (const { panel::<S>() }, block.slots::<S>());
        room.acc.iter_mut().for_each(|acc| acc[..n].iter_mut().for_each(|acc| acc[..room.width].fill(0.0)));
        block.pack(room, panel);
        for other in block.others() {
            for at in (block.reach.start / PAGE * PAGE..block.reach.end).step_by(PAGE) {
                if tile.stop() {
                    return;
                }
                block.load(s, room, other, at);
                for first in (0..block.owned()).step_by(panel) {
                    let run = &block.run(first, at);
                    if run.is_empty() {
                        continue;
                    }
                    block.soften(s, room, first, [other, at], run);
                    if block.owner == Owner::Biases {
                        block.count(tile, &room.d[..panel], first, at);
                        continue;
                    }
                    let [a, b] = &mut room.acc;
                    s.apart(Sums { acc: &mut a[first..], p: room.d, plain: room.plain[0], run });
                    if block.owner == Owner::Keys {
                        s.apart(Sums { acc: &mut b[first..], p: room.p, plain: room.plain[1], run });
                    }
                }
            }
        }
    }
}

impl Block<'_> {
    /// Adds the gradients of a panel's scores in the chunk at `at` to those of their distances, `[2 * far + 1]`.
    #[inline(never)]
    fn count(&self, tile: &mut TileMut, d: &[[f32; PAGE]], first: usize, at: usize) {
        let out = tile.row(self.heads.start);
        let far = (out.len() / 2) as i64;
        for (slot, d) in (first..self.owned()).zip(d) {
            let (row, _) = self.slot(slot);
            for lane in Block::part(&self.meets(row), at) {
                let distance = (at + lane) as i64 - self.position(row) as i64;
                out[(distance.clamp(-far, far) + far) as usize] += d[lane];
            }
        }
    }
}
