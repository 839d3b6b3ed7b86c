//! Floor 0: which queries meet which chunks: cells of the output, and blocks of queries that share a reading of keys and
//! values.

use super::block::Block;
use super::parts::{chunks_of, finish, part_words};
use super::room::Room;
use super::{AttendArgs, MAX_DIM};
use crate::ops::per_isa;
use crate::pages::StateRef;
use crate::plan::TileMut;
use crate::simd::Simd;

per_isa! {
    /// Attention of `q [rows, heads * dim]` over the pages of each row's sequence, its own position included, so
    /// [`append`](super::append()) comes first. Without `split`, out is `[rows, heads * dim]`, cut in blocks of whole
    /// heads, and rows that see no position are zero. With it, out is `[parts * rows, heads * part_words]`, cut in blocks
    /// of all rows of a part and whole heads, for [`merge`](super::merge_isa); what no row of a part sees is left as it
    /// is.
    ///
    /// Panics where a position has no page, or scratch is shorter than [`scratch_words`](super::scratch_words).
    pub fn attend(out: &mut TileMut, q: &[f32], state: &StateRef, args: &AttendArgs, split: bool, scratch: &mut [f32]) = attend_with as attend_isa;
}

#[inline(always)]
fn attend_with<S: Simd>(
    s: S,
    out: &mut TileMut,
    q: &[f32],
    state: &StateRef,
    args: &AttendArgs,
    split: bool,
    scratch: &mut [f32],
) {
    let (dim, group, n) = (args.shape.dim, args.shape.group(), args.rows.len());
    assert!((1..=MAX_DIM).contains(&dim), "head dimension {dim}");
    let unit = if split { part_words(dim) } else { dim };
    for cell in out.cells() {
        let (part, above) =
            if split { (Some(cell.rows.start / n), cell.rows.start / n * n) } else { (None, 0) };
        let chunks = part.map_or(0..usize::MAX, chunks_of);
        let (rows, heads) =
            (cell.rows.start - above..cell.rows.end - above, cell.cols.start / unit..cell.cols.end / unit);
        let (mut row, mut head) = (rows.start, heads.start);
        while row < rows.end {
            // Rows of one sequence, and heads of one group.
            let end = rows.end.min(args.end_of(row));
            let next = heads.end.min((head / group + 1) * group);
            let block = Block::new::<S>(args, row..end, head..next, chunks.clone(), split);
            (row, head) = if next < heads.end { (row, next) } else { (end, heads.start) };
            if split && block.is_idle() {
                continue;
            }
            let mut room = Room::of(scratch, &args.shape, block.slots());
            block.pack(room.q, q);
            block.run(s, &mut room, state, out);
            for i in 0..block.queries() {
                let (r, h) = block.query(i);
                let at = (h - cell.cols.start / unit) * unit;
                let out = &mut out.cell_row(&cell, above + r)[at..at + unit];
                let acc = &room.out[i * room.width..][..room.width];
                let [max, sum] = room.of_out.stat(i);
                if split {
                    let (to, stats) = out.split_at_mut(room.width);
                    to.copy_from_slice(acc);
                    (stats[0], stats[1]) = (max, sum);
                } else {
                    finish(out, acc, if block.seen(r).is_empty() { 1.0 } else { sum });
                }
            }
        }
    }
}
