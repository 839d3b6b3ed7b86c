//! Floor 0: which queries meet which chunks: cells of the output, and blocks of queries that share a reading of keys and
//! values.

use super::block::Block;
use super::parts::{chunks_of, finish, part_words};
use super::room::Room;
use super::{AttendArgs, MAX_DIM};
use crate::ops::per_isa;
use crate::pages::StateRef;
use crate::plan::{Cell, Cut, TileMut};
use crate::simd::{Apart, Simd};

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
    s.apart(Attend { out, stat: None, q, state, args, split, scratch });
}

#[cfg(feature = "train")]
per_isa! {
    /// [`attend`](attend_isa) without `split`, with the same bits, which also keeps what gradients need: stat `[rows, heads * 2]`, cut
    /// as [`stat_cut`] says, has each row's and head's largest score and its sum of weights relative to that (-inf and 0
    /// where it sees no position).
    pub fn attend_stat(out: &mut TileMut, stat: &mut TileMut, q: &[f32], state: &StateRef, args: &AttendArgs, scratch: &mut [f32]) = stat_with as attend_stat_isa;
}

#[cfg(feature = "train")]
#[inline(always)]
fn stat_with<S: Simd>(
    s: S,
    out: &mut TileMut,
    stat: &mut TileMut,
    q: &[f32],
    state: &StateRef,
    args: &AttendArgs,
    scratch: &mut [f32],
) {
    s.apart(Attend { out, stat: Some(stat), q, state, args, split: false, scratch });
}

/// The cut of statistics `[rows, heads * 2]` beside outputs cut so, in blocks of whole heads of `dim`.
///
/// Panics where that is no cut in blocks.
#[must_use]
pub fn stat_cut(of_out: Cut, dim: usize) -> Cut {
    let Cut::Blocks { rows, cols } = of_out else { panic!("outputs of attention are cut in blocks") };
    Cut::Blocks { rows, cols: cols / dim * 2 }
}

/// Attention of a worker's cells, compiled once for a set.
struct Attend<'a, 'o, 's> {
    out: &'a mut TileMut<'o>,
    stat: Option<&'a mut TileMut<'s>>,
    q: &'a [f32],
    state: &'a StateRef<'a>,
    args: &'a AttendArgs<'a>,
    split: bool,
    scratch: &'a mut [f32],
}

impl<S: Simd> Apart<S> for Attend<'_, '_, '_> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Attend { out, mut stat, q, state, args, split, scratch } = self;
        let (dim, group, n) = (args.shape.dim, args.shape.group(), args.rows.len());
        assert!((1..=MAX_DIM).contains(&dim), "head dimension {dim}");
        let unit = if split { part_words(dim) } else { dim };
        let mut kept = stat.as_ref().map(|stat| stat.cells());
        for cell in out.cells() {
            let (kept, mut out) = (kept.as_mut().and_then(Iterator::next), out.cell(&cell));
            let (part, above) =
                if split { (Some(cell.rows.start / n), cell.rows.start / n * n) } else { (None, 0) };
            let chunks = part.map_or(0..usize::MAX, chunks_of);
            let (rows, heads) = (
                cell.rows.start - above..cell.rows.end - above,
                cell.cols.start / unit..cell.cols.end / unit,
            );
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
                block.pack(s, room.q, q);
                block.run(s, &mut room, state, &out);
                for i in 0..block.queries() {
                    let (r, h) = block.query(i);
                    let at = (h - cell.cols.start / unit) * unit;
                    let out = &mut out.row(above + r)[at..at + unit];
                    let acc = &room.out[i * room.width..][..room.width];
                    let [max, sum] = room.of_out.stat(i);
                    if split {
                        let (to, stats) = out.split_at_mut(room.width);
                        to.copy_from_slice(acc);
                        (stats[0], stats[1]) = (max, sum);
                    } else {
                        if let (Some(stat), Some(kept)) = (&mut stat, &kept) {
                            keep(stat, kept, [r, 2 * h], [max, sum]);
                        }
                        finish(s, out, acc, if block.seen(r).is_empty() { 1.0 } else { sum });
                    }
                }
            }
        }
    }
}

/// Writes the statistics of a row and head, the first of which is at column `at` of row `r`.
#[inline(never)]
fn keep(stat: &mut TileMut, cell: &Cell, [r, at]: [usize; 2], stats: [f32; 2]) {
    stat.cell_row(cell, r)[at - cell.cols.start..][..2].copy_from_slice(&stats);
}
