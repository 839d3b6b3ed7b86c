//! Floor 0: which queries meet which chunks: cells of the output, runs of rows of one sequence, panels of queries.

use super::tile::{Chunk, NOTHING, ROWS, Stat, panel};
use super::{AttendArgs, AttendShape, MAX_DIM, PAGE, head_words};
use crate::dtype::DType;
use crate::ops::per_isa;
use crate::pages::StateRef;
use crate::plan::TileMut;
use crate::quant::dequantize_row;
use crate::simd::{LANES, Simd};
use std::ops::Range;

per_isa! {
    /// out `[rows, heads * dim]`, cut in blocks of whole heads: attention of `q [rows, heads * dim]` over the pages of
    /// each row's sequence, its own position included, so [`append`](super::append) comes first. Rows that see no
    /// position are zero.
    ///
    /// Panics where a position has no page, or scratch is shorter than [`scratch_words`](super::scratch_words).
    pub fn attend(out: &mut TileMut, q: &[f32], state: &StateRef, args: &AttendArgs, scratch: &mut [f32]) = attend_with as attend_isa;
}

#[inline(always)]
fn attend_with<S: Simd>(
    s: S,
    out: &mut TileMut,
    q: &[f32],
    state: &StateRef,
    args: &AttendArgs,
    scratch: &mut [f32],
) {
    let (dim, group) = (args.shape.dim, args.shape.group());
    assert!((1..=MAX_DIM).contains(&dim), "head dimension {dim}");
    for cell in out.cells() {
        let (mut row, heads) = (cell.rows.start, cell.cols.start / dim..cell.cols.end / dim);
        while row < cell.rows.end {
            let seq = args.rows[row].seq;
            let end = row + args.rows[row..cell.rows.end].iter().take_while(|r| r.seq == seq).count();
            let mut head = heads.start;
            while head < heads.end {
                let next = heads.end.min((head / group + 1) * group);
                let block = Block::new::<S>(args, row..end, head..next);
                let mut room = Room::of(scratch, &args.shape, &block);
                block.pack(room.q, q);
                block.run(s, &mut room, state, out);
                block.finish(&room, |r, h, o, sum| {
                    let out = &mut out.cell_row(&cell, r)[(h - heads.start) * dim..][..dim];
                    for (out, o) in out.iter_mut().zip(o) {
                        *out = o / sum;
                    }
                });
                head = next;
            }
            row = end;
        }
    }
}

/// Rows of one sequence, and query heads that share one head of keys and values.
struct Block<'a> {
    args: &'a AttendArgs<'a>,
    rows: Range<usize>,
    heads: Range<usize>,
    /// Positions of the sequence, where attention is not causal.
    len: usize,
    /// Queries of a panel; the last one may have fewer.
    panel: usize,
}

impl<'a> Block<'a> {
    #[inline(always)]
    fn new<S: Simd>(args: &'a AttendArgs<'a>, rows: Range<usize>, heads: Range<usize>) -> Block<'a> {
        let seq = args.rows[rows.start].seq;
        let rest = args.rows[rows.start..].iter().take_while(|r| r.seq == seq);
        let len = if args.causal { 0 } else { rest.last().map_or(0, |r| r.pos as usize + 1) };
        let queries = rows.len() * heads.len();
        let panel = queries.div_ceil(queries.div_ceil(rows_of::<S>()).max(1)).max(1);
        Block { args, rows, heads, len, panel }
    }

    fn queries(&self) -> usize {
        self.rows.len() * self.heads.len()
    }

    /// Row and head of query `i`: the heads of a row are neighbours, since they see the same.
    #[inline(always)]
    fn query(&self, i: usize) -> (usize, usize) {
        (self.rows.start + i / self.heads.len(), self.heads.start + i % self.heads.len())
    }

    /// Positions that a row sees.
    #[inline(always)]
    fn seen(&self, row: usize) -> Range<usize> {
        let pos = self.args.rows[row].pos as usize;
        let first = self.args.window.map_or(0, |w| (pos + 1).saturating_sub(w as usize));
        first..if self.args.causal { pos + 1 } else { self.len }
    }

    /// `q [rows, heads * dim]` into `out [panel][dim][query]`.
    #[inline(always)]
    fn pack(&self, out: &mut [f32], q: &[f32]) {
        let (dim, cols) = (self.args.shape.dim, self.args.shape.heads * self.args.shape.dim);
        for i in 0..self.queries() {
            let ((r, h), first) = (self.query(i), i / self.panel * self.panel);
            let wide = self.panel.min(self.queries() - first);
            let out = out[first * dim..].chunks_exact_mut(wide);
            for (out, q) in out.zip(&q[r * cols + h * dim..][..dim]) {
                out[i - first] = *q;
            }
        }
    }

    /// Folds every chunk that somebody sees, in order. Returns early where the run was cancelled.
    #[inline(always)]
    fn run<S: Simd>(&self, s: S, room: &mut Room, state: &StateRef, tile: &TileMut) {
        room.out.fill(0.0);
        room.stats.fill(NOTHING);
        let seen = || self.rows.clone().map(|r| self.seen(r)).filter(|seen| !seen.is_empty());
        let from = seen().map(|r| r.start).min().unwrap_or(0);
        let to = seen().map(|r| r.end).max().unwrap_or(0);
        for at in (from / PAGE * PAGE..to).step_by(PAGE) {
            if tile.stop() {
                return;
            }
            let shape = &self.args.shape;
            let (id, _) = self.args.place(self.args.rows[self.rows.start].seq, at);
            let (words, kv) = (head_words(shape.dim, shape.cache), self.heads.start / shape.group());
            let head = &state.page(id)[kv * words..][..words];
            let read = from.max(at) - at..to.min(at + PAGE) - at;
            let (keys, values) = load(s, shape, head, read, room.keys, room.values);
            let chunk = Chunk { keys: keys.as_chunks().0, values, width: room.width };
            for first in (0..self.queries()).step_by(self.panel) {
                self.meet(s, [first, at], room.q, room.out, &mut room.stats[first / self.panel], chunk);
            }
        }
    }

    /// One panel, from query `first` on, meets the chunk at position `at`.
    #[inline(always)]
    fn meet<S: Simd>(
        &self,
        s: S,
        [first, at]: [usize; 2],
        q: &[f32],
        out: &mut [f32],
        stat: &mut Stat,
        chunk: Chunk,
    ) {
        let n = self.panel.min(self.queries() - first);
        let mut seen = [const { 0..0 }; ROWS];
        for (i, seen) in seen[..n].iter_mut().enumerate() {
            let all = self.seen(self.query(first + i).0);
            *seen = all.start.max(at) - at..all.end.clamp(at, at + PAGE) - at;
        }
        let (dim, scale) = (self.args.shape.dim, self.args.scale);
        let (q, out) = (&q[first * dim..][..n * dim], &mut out[first * chunk.width..][..n * chunk.width]);
        if seen.iter().all(Range::is_empty) {
            return;
        }
        if const { rows_of::<S>() == 1 } {
            return panel::<S, 1>(s, out, stat, q.as_chunks().0, chunk, &seen, scale);
        }
        match n {
            1 => panel::<S, 1>(s, out, stat, q.as_chunks().0, chunk, &seen, scale),
            2 => panel::<S, 2>(s, out, stat, q.as_chunks().0, chunk, &seen, scale),
            3 => panel::<S, 3>(s, out, stat, q.as_chunks().0, chunk, &seen, scale),
            4 => panel::<S, 4>(s, out, stat, q.as_chunks().0, chunk, &seen, scale),
            5 => panel::<S, 5>(s, out, stat, q.as_chunks().0, chunk, &seen, scale),
            _ => panel::<S, ROWS>(s, out, stat, q.as_chunks().0, chunk, &seen, scale),
        }
    }

    /// Hands out every query's row, head, weighted sum and sum of weights (1 where it saw nothing).
    #[inline(always)]
    fn finish(&self, room: &Room, mut put: impl FnMut(usize, usize, &[f32], f32)) {
        for (i, o) in room.out.chunks_exact(room.width).enumerate() {
            let (r, h) = self.query(i);
            let sum = room.stats[i / self.panel][1][i % self.panel];
            put(r, h, o, if self.seen(r).is_empty() { 1.0 } else { sum });
        }
    }
}

/// One head of a page as f32 keys `[dim][PAGE]` and values `[PAGE][width]`, of which rows `read` are valid: in place
/// where it is so already, else in the room given.
#[inline(always)]
fn load<'a, S: Simd>(
    s: S,
    shape: &AttendShape,
    head: &'a [f32],
    read: Range<usize>,
    keys: &'a mut [f32],
    values: &'a mut [f32],
) -> (&'a [f32], &'a [f32]) {
    let (dim, width) = (shape.dim, shape.dim.next_multiple_of(LANES));
    let (old_keys, old_values) = head.split_at(head.len() / 2);
    if shape.cache == DType::F32 {
        if dim != width {
            for i in read {
                values[i * width..][..dim].copy_from_slice(&old_values[i * dim..][..dim]);
            }
            return (old_keys, values);
        }
        return (old_keys, old_values);
    }
    let (old_keys, old_values): (&[u8], &[u8]) =
        (bytemuck::cast_slice(old_keys), bytemuck::cast_slice(old_values));
    widen(s, shape.cache, keys, old_keys);
    for i in read {
        widen(s, shape.cache, &mut values[i * width..][..dim], &old_values[2 * i * dim..][..2 * dim]);
    }
    (keys, values)
}

/// A worker's memory for one block.
struct Room<'a> {
    /// `[panel][dim][query]`
    q: &'a mut [f32],
    /// `[queries][width]`
    out: &'a mut [f32],
    /// `[panels]`
    stats: &'a mut [Stat],
    /// `[dim][PAGE]`
    keys: &'a mut [f32],
    /// `[PAGE][width]`
    values: &'a mut [f32],
    /// `dim`, filled up to whole vectors.
    width: usize,
}

/// Queries of a panel: plain Rust, which is not there for speed, takes them one by one and stays small.
const fn rows_of<S: Simd>() -> usize {
    if S::REGISTERS >= 16 { ROWS } else { 1 }
}

/// Words of queries, outputs, statistics (a panel each, and a panel has one query at least), keys and values.
fn sizes(shape: &AttendShape, queries: usize) -> [usize; 5] {
    let width = shape.dim.next_multiple_of(LANES);
    [
        (queries * shape.dim).next_multiple_of(LANES),
        queries * width,
        queries * 2 * LANES,
        PAGE * shape.dim,
        PAGE * width,
    ]
}

/// Words that blocks of up to `queries` queries need.
pub fn scratch_words(shape: &AttendShape, queries: usize) -> usize {
    sizes(shape, queries).iter().sum()
}

impl<'a> Room<'a> {
    #[inline(always)]
    fn of(scratch: &'a mut [f32], shape: &AttendShape, block: &Block) -> Room<'a> {
        let [q, out, stats, keys, values] = sizes(shape, block.queries());
        let (q, rest) = scratch.split_at_mut(q);
        let (out, rest) = rest.split_at_mut(out);
        let (stats, rest) = rest.split_at_mut(stats);
        let (keys, rest) = rest.split_at_mut(keys);
        let stats = stats.as_chunks_mut().0.as_chunks_mut().0;
        Room { q, out, stats, keys, values: &mut rest[..values], width: shape.dim.next_multiple_of(LANES) }
    }
}

/// 16-bit numbers as f32.
#[inline(always)]
fn widen<S: Simd>(s: S, from: DType, out: &mut [f32], bytes: &[u8]) {
    let ((out, last), (bytes, tail)) = (out.as_chunks_mut::<LANES>(), bytes.as_chunks::<{ 2 * LANES }>());
    for (out, bytes) in out.iter_mut().zip(bytes) {
        let x = if from == DType::F16 { s.load_f16(bytes) } else { s.load_bf16(bytes) };
        s.store(x, out);
    }
    dequantize_row(from, tail, last);
}
