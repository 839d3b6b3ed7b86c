//! Floor 0: gradients of attention from what the way there kept of each row and head, its largest score and its sum of
//! weights: scores are computed anew, chunk by chunk, and nothing quadratic is stored (Dao et al. 2022, alg. 4, in two
//! halves: one owns queries, one owns keys, so that nobody adds to what another one writes). Knows nothing of who learns.
//!
//! A score has the bits it had, where keys were cached as f32 or as [`round_to`](super::round_to) made them. An element of
//! dq is one chain over keys in order, of dk and dv one over the heads of the group and, for each, queries in order.

mod block;
mod room;
mod tile;

use super::{AttendShape, Bias, CELLS, MAX_DIM, QUERIES};
use crate::norm::filled;
use crate::ops::per_isa;
use crate::plan::{Cell, Cut, TileMut};
use crate::simd::{LANES, Simd};
use block::{Block, Owner};
use room::Room;
use std::ops::Range;

/// What a batch attended to: whole sequences, each from its first position on.
#[derive(Clone, Copy)]
pub struct BackArgs<'a> {
    /// Heads; the type of the cache is not looked at.
    pub shape: AttendShape,
    /// What scores are multiplied by.
    pub scale: f32,
    /// As in [`AttendArgs`](super::AttendArgs).
    pub cap: Option<f32>,
    /// As in [`AttendArgs`](super::AttendArgs).
    pub bias: Bias<'a>,
    /// As in [`AttendArgs`](super::AttendArgs).
    pub window: Option<u32>,
    /// Whether a query sees nothing after its own position.
    pub causal: bool,
    /// The row where each sequence begins among the queries, and the one where the last ends.
    pub starts: &'a [u32],
    /// The same among the keys, of as many sequences: `starts`, or those of the sources.
    pub key_starts: &'a [u32],
}

/// What gradients are computed from. Keys and values are those that were attended to: rounded to the cache's type.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    /// Queries `[rows, heads * dim]`.
    pub q: &'a [f32],
    /// Keys `[key_rows, kv_heads * dim]`.
    pub k: &'a [f32],
    /// Values `[key_rows, kv_heads * dim]`.
    pub v: &'a [f32],
    /// The gradient of the outputs `[rows, heads * dim]`.
    pub dout: &'a [f32],
    /// `[rows, heads * 2]`: largest score and sum of weights, as [`attend_stat`](super::attend_stat_isa) writes them.
    pub stat: &'a [f32],
    /// `[rows, heads]`, as [`attend_delta`](attend_delta_isa) writes it.
    pub delta: &'a [f32],
}

impl BackArgs<'_> {
    /// Positions of keys, of `keys`, that the query at `pos` sees.
    fn sees(&self, pos: usize, keys: usize) -> Range<usize> {
        let window = self.window.map(|w| w as usize);
        let first = window.map_or(0, |w| (pos + 1).saturating_sub(w));
        let end = if self.causal { pos + 1 } else { window.map_or(keys, |w| pos.saturating_add(w)) };
        first.min(end.min(keys))..end.min(keys)
    }

    /// Positions of queries, of `queries`, that see the key at `pos`.
    fn seen_by(&self, pos: usize, queries: usize) -> Range<usize> {
        let window = self.window.map(|w| w as usize);
        let first = if self.causal { pos } else { window.map_or(0, |w| (pos + 1).saturating_sub(w)) };
        let end = window.map_or(queries, |w| queries.min(pos.saturating_add(w)));
        first.min(end)..end
    }

    /// Number and rows of the sequence that row `row` belongs to.
    fn sequence(starts: &[u32], row: usize) -> Option<(usize, Range<usize>)> {
        let next = starts.partition_point(|start| *start as usize <= row);
        let seq = next.checked_sub(1)?;
        Some((seq, starts[seq] as usize..*starts.get(next)? as usize))
    }

    /// Rows of sequence `seq`. Panics where there is none.
    fn rows(starts: &[u32], seq: usize) -> Range<usize> {
        starts[seq] as usize..starts[seq + 1] as usize
    }
}

/// How dq `[rows, heads * dim]` is best cut.
#[must_use]
pub fn dq_cut(shape: &AttendShape, rows: usize) -> Cut {
    super::cut(shape, rows, false)
}

/// How dk and dv `[key_rows, kv_heads * dim]` are best cut.
#[must_use]
pub fn dkv_cut(shape: &AttendShape, key_rows: usize) -> Cut {
    let mut rows = QUERIES;
    while rows > QUERIES / 4 && shape.kv_heads * key_rows.div_ceil(rows) < CELLS {
        rows /= 2;
    }
    Cut::Blocks { rows, cols: shape.dim }
}

/// Scratch words of [`attend_dq`](attend_dq_isa), [`attend_dkv`](attend_dkv_isa) and [`attend_dbias`](attend_dbias_isa).
#[must_use]
pub fn back_scratch_words(shape: &AttendShape) -> usize {
    room::scratch_words(shape, QUERIES.max(shape.group()))
}

per_isa! {
    /// delta `[rows, heads]`, cut in rows: of each head the sum of `dout * out`, both `[rows, heads * dim]`, over 16 lanes, then
    /// over the lanes.
    pub fn attend_delta(delta: &mut TileMut, dout: &[f32], out: &[f32], dim: usize) =
        delta_with as attend_delta_isa on scalar avx2;
}

#[inline(always)]
fn delta_with<S: Simd>(s: S, delta: &mut TileMut, dout: &[f32], out: &[f32], dim: usize) {
    let heads = delta.cols().len();
    for r in delta.rows() {
        for (h, delta) in delta.row(r).iter_mut().enumerate() {
            let at = (r * heads + h) * dim;
            let (a, b) = (dout[at..][..dim].as_chunks::<LANES>(), out[at..][..dim].as_chunks::<LANES>());
            let mut acc = s.mul(s.load(&filled(a.1, 0.0)), s.load(&filled(b.1, 0.0)));
            for i in 0..a.0.len() {
                acc = s.fma(s.load(&a.0[i]), s.load(&b.0[i]), acc);
            }
            *delta = s.fold_sum(acc);
        }
    }
}

per_isa! {
    /// dq `[rows, heads * dim]`, cut in blocks of whole heads (see [`dq_cut`]): the gradient of the queries. Rows of no sequence
    /// and queries that see no key are zeros. What is not seen counts as zero times it: elements have to be finite.
    ///
    /// Panics where the sizes do not fit, or scratch is shorter than [`back_scratch_words`].
    pub fn attend_dq(dq: &mut TileMut, of: &Kept, args: &BackArgs, scratch: &mut [f32]) = dq_with as attend_dq_isa;
}

#[inline(always)]
fn dq_with<S: Simd>(s: S, dq: &mut TileMut, of: &Kept, args: &BackArgs, scratch: &mut [f32]) {
    let (dim, group) = (args.shape.dim, args.shape.group());
    assert!((1..=MAX_DIM).contains(&dim), "head dimension {dim}");
    for cell in dq.cells() {
        let (mut row, heads) = (cell.rows.start, cell.cols.start / dim..cell.cols.end / dim);
        while row < cell.rows.end {
            let Some((seq, all)) = BackArgs::sequence(args.starts, row) else {
                dq.cell_row(&cell, row).fill(0.0);
                row += 1;
                continue;
            };
            let rows = row..cell.rows.end.min(all.end);
            row = rows.end;
            let mut head = heads.start;
            while head < heads.end {
                let next = heads.end.min((head / group + 1) * group);
                let block = Block::new(args, of, Owner::Queries, seq, rows.clone(), head..next);
                let mut room = Room::of(scratch, &args.shape, block.slots::<S>());
                s.apart(block::Run { block: &block, room: &mut room, tile: dq });
                give(dq, &cell, &block, room.acc[0], args.scale);
                head = next;
            }
        }
    }
}

per_isa! {
    /// dk and dv `[key_rows, kv_heads * dim]`, both cut alike, in blocks of whole heads (see [`dkv_cut`]): the gradients of keys
    /// and values. Rows of no sequence, and those that no query sees, are zeros. What is not seen counts as zero times it:
    /// elements have to be finite.
    ///
    /// Panics where the sizes do not fit, or scratch is shorter than [`back_scratch_words`].
    pub fn attend_dkv(dk: &mut TileMut, dv: &mut TileMut, of: &Kept, args: &BackArgs, scratch: &mut [f32]) =
        dkv_with as attend_dkv_isa;
}

#[inline(always)]
fn dkv_with<S: Simd>(
    s: S,
    dk: &mut TileMut,
    dv: &mut TileMut,
    of: &Kept,
    args: &BackArgs,
    scratch: &mut [f32],
) {
    let dim = args.shape.dim;
    assert!((1..=MAX_DIM).contains(&dim), "head dimension {dim}");
    for cell in dk.cells() {
        let (mut row, heads) = (cell.rows.start, cell.cols.start / dim..cell.cols.end / dim);
        while row < cell.rows.end {
            let Some((seq, all)) = BackArgs::sequence(args.key_starts, row) else {
                dk.cell_row(&cell, row).fill(0.0);
                dv.cell_row(&cell, row).fill(0.0);
                row += 1;
                continue;
            };
            let rows = row..cell.rows.end.min(all.end);
            row = rows.end;
            for head in heads.clone() {
                let block = Block::new(args, of, Owner::Keys, seq, rows.clone(), head..head + 1);
                let mut room = Room::of(scratch, &args.shape, block.slots::<S>());
                s.apart(block::Run { block: &block, room: &mut room, tile: dk });
                give(dk, &cell, &block, room.acc[0], args.scale);
                give(dv, &cell, &block, room.acc[1], 1.0);
            }
        }
    }
}

/// Writes what a block's rows got, times `scale`.
#[inline(never)]
fn give(out: &mut TileMut, cell: &Cell, block: &Block, acc: &[[f32; MAX_DIM]], scale: f32) {
    for (i, acc) in acc.iter().enumerate().take(block.owned()) {
        let (row, head) = block.slot(i);
        let (dim, row) = (block.dim(), out.cell_row(cell, row));
        for (out, acc) in row[head * dim - cell.cols.start..][..dim].iter_mut().zip(acc) {
            *out = acc * scale;
        }
    }
}

per_isa! {
    /// dbias `[heads, 2 * far + 1]`, cut in pieces of `2 * far + 1`: the gradient of the biases of distances from `-far` to `far`,
    /// `+=` over sequences in order. It is that of scores after the cap; [`Bias::Distance`] says which distances share one.
    ///
    /// Panics where the sizes do not fit, or scratch is shorter than [`back_scratch_words`].
    pub fn attend_dbias(dbias: &mut TileMut, of: &Kept, args: &BackArgs, scratch: &mut [f32]) =
        dbias_with as attend_dbias_isa;
}

#[inline(always)]
fn dbias_with<S: Simd>(s: S, dbias: &mut TileMut, of: &Kept, args: &BackArgs, scratch: &mut [f32]) {
    for head in dbias.rows() {
        for seq in 0..args.starts.len().saturating_sub(1) {
            let all = BackArgs::rows(args.starts, seq);
            // Blocks of a fixed size: the order of the sums is that of blocks, chunks of keys, queries, keys.
            for first in all.clone().step_by(QUERIES) {
                let rows = first..all.end.min(first + QUERIES);
                let block = Block::new(args, of, Owner::Biases, seq, rows, head..head + 1);
                let mut room = Room::of(scratch, &args.shape, block.slots::<S>());
                s.apart(block::Run { block: &block, room: &mut room, tile: dbias });
            }
        }
    }
}
