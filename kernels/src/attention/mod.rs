//! Floor 0: attention over pages of keys and values, and appending to those pages. Knows nothing of who holds a page.
//!
//! A page holds [`PAGE`] absolute positions, and so does a chunk of the sum: every chunk computes its own (max, sum,
//! output) from zero, and chunks fold left in order (Milakov and Gimelshein 2018, kept blockwise as in Dao et al. 2022).
//! Which queries are computed together, and on how many threads, therefore changes no bit.
//!
//! One layer of a page is `[kv_head][keys [dim][PAGE], values [PAGE][dim]]` in the cache's type: in the keys a vector's
//! lanes are positions, in the values they are dimensions, so neither product needs a horizontal sum.

mod append;
mod attend;
#[cfg(feature = "train")]
mod back;
mod bias;
mod block;
mod cache;
mod parts;
mod room;
mod seen;
mod tile;

pub use append::{append, round_to};
#[cfg(feature = "train")]
pub use attend::attend_stat_isa;
pub use attend::{attend_isa, stat_cut};
#[cfg(feature = "train")]
pub use back::{
    BackArgs, Kept, attend_dbias_isa, attend_delta_isa, attend_dkv_isa, attend_dq_isa, back_scratch_words,
    dkv_cut, dq_cut,
};
pub use bias::{Bias, distance_table};
pub use cache::{Cache, head_words};
pub use parts::{merge_isa, part_words, parts};

use crate::plan::Cut;
use std::ops::Range;

/// Positions of a page, and of a chunk of attention.
pub const PAGE: usize = 64;

/// Largest head dimension.
pub const MAX_DIM: usize = 256;

/// Queries that a cell computes together at most (unless one row's group alone has more): their outputs and a chunk
/// of keys and values stay in a second-level cache.
const QUERIES: usize = 96;

/// Cells that a task is cut into at least, where it has as many: enough for a team to share evenly.
const CELLS: usize = 16;

/// One row of a call: a position of a sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Number of the sequence in the call.
    pub seq: u32,
    /// Position in it.
    pub pos: u32,
}

/// What memory attention needs depends on this alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttendShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head, 1 to [`MAX_DIM`].
    pub dim: usize,
    /// Type of the cached keys and values.
    pub cache: Cache,
}

/// What one call attends to.
#[derive(Clone, Copy)]
pub struct AttendArgs<'a> {
    /// Heads and cache.
    pub shape: AttendShape,
    /// What scores are multiplied by.
    pub scale: f32,
    /// Scaled scores become `cap * tanh(score / cap)` (Gemma Team 2024).
    pub cap: Option<f32>,
    /// What is added to them after that.
    pub bias: Bias<'a>,
    /// A query at `p` sees nothing before `p + 1 - window`, and where attention is not causal nothing after
    /// `p - 1 + window`.
    pub window: Option<u32>,
    /// Whether a query sees nothing after its own position. If not, it sees all of its sequence.
    pub causal: bool,
    /// The rows; those of a sequence are neighbours and their positions rise. Positions are those of the queries: keys
    /// may be of a source that is longer or shorter, where attention is not causal.
    pub rows: &'a [Row],
    /// Page numbers of all sequences, one after the other.
    pub pages: &'a [u32],
    /// Where each sequence begins in `pages`.
    pub seqs: &'a [u32],
    /// Positions that each sequence has keys and values of. Read only where attention is not causal.
    pub lens: &'a [u32],
}

impl AttendShape {
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

impl AttendArgs<'_> {
    /// The end of row `row`'s sequence among the rows.
    fn end_of(&self, row: usize) -> usize {
        let seq = self.rows[row].seq;
        row + self.rows[row..].iter().take_while(|r| r.seq == seq).count()
    }

    /// Positions that row `row` sees. From row to row of a sequence, neither end falls.
    fn seen_of(&self, row: usize) -> Range<usize> {
        let Row { seq, pos } = self.rows[row];
        let (pos, window) = (pos as usize, self.window.map(|w| w as usize));
        let first = window.map_or(0, |w| (pos + 1).saturating_sub(w));
        let end = if self.causal {
            pos + 1
        } else {
            let len = self.lens[seq as usize] as usize;
            window.map_or(len, |w| len.min(pos.saturating_add(w)))
        };
        first.min(end)..end
    }
}

/// Whether `rows` rows of outputs are too few to be shared: a task is cut along the keys then, and a [`merge`](merge_isa)
/// comes after it. Changes no bit.
#[must_use]
pub fn splits(shape: &AttendShape, rows: usize) -> bool {
    rows * shape.kv_heads <= 2 * CELLS && (rows <= 1 || rows * shape.group() <= QUERIES)
}

/// How the outputs of `rows` rows are best cut: `[rows, heads * dim]`, or with `split` the parts of sequences of up to
/// `len` positions, `[parts * rows, heads * part_words]`.
#[must_use]
pub fn cut(shape: &AttendShape, rows: usize, split: bool) -> Cut {
    if split {
        return Cut::Blocks { rows: rows.max(1), cols: shape.group() * part_words(shape.dim) };
    }
    let (mut heads, mut block) = (shape.group(), (QUERIES / shape.group()).clamp(1, rows.max(1)));
    let cells = |heads: usize, block: usize| shape.heads / heads * rows.div_ceil(block);
    while block > 1 && cells(heads, block) < CELLS && block * heads >= 4 * tile::ROWS {
        block = block.div_ceil(2);
    }
    // A group shares one reading of the keys, so it is split only where a team would stand idle.
    while cells(heads, block) < 4 && heads >= 4 && heads.is_multiple_of(2) {
        heads /= 2;
    }
    Cut::Blocks { rows: block, cols: heads * shape.dim }
}

/// How the outputs `[rows, heads * dim]` of a [`merge`](merge_isa) are best cut.
#[must_use]
pub fn merge_cut(shape: &AttendShape) -> Cut {
    Cut::Blocks { rows: 1, cols: shape.heads.div_ceil(2).min(parts::HEADS) * shape.dim }
}

/// Scratch words that [`attend`](attend_isa) needs for cells of [`cut`].
#[must_use]
pub fn scratch_words(shape: &AttendShape) -> usize {
    room::scratch_words(shape, QUERIES.max(shape.group()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_many_enough_and_never_empty() {
        for (heads, kv_heads) in [(9, 3), (12, 12), (14, 2), (8, 1), (200, 1), (1, 1)] {
            let shape = AttendShape { heads, kv_heads, dim: 64, cache: Cache::F32 };
            for rows in [0, 1, 2, 13, 64, 512, 4096] {
                for split in [false, true].into_iter().filter(|split| !split || splits(&shape, rows)) {
                    let Cut::Blocks { rows: block, cols } = cut(&shape, rows, split) else {
                        panic!("no blocks")
                    };
                    let unit = if split { part_words(64) } else { 64 };
                    assert!(block > 0 && cols > 0 && (heads / kv_heads * unit).is_multiple_of(cols));
                    let queries = block.min(rows) * cols / unit;
                    assert!(queries <= QUERIES.max(heads / kv_heads), "scratch is sized for so many");
                    assert!(split || rows < 64 || rows.div_ceil(block) * (heads * 64 / cols) >= 4);
                }
            }
        }
    }
}
