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
mod tile;

pub use append::append;
pub use attend::attend_isa;

use crate::dtype::DType;

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
    /// Type of the cached keys and values: F32, F16 or BF16.
    pub cache: DType,
}

/// What one call attends to.
#[derive(Clone, Copy)]
pub struct AttendArgs<'a> {
    /// Heads and cache.
    pub shape: AttendShape,
    /// What scores are multiplied by.
    pub scale: f32,
    /// A query at `p` sees nothing before `p + 1 - window`.
    pub window: Option<u32>,
    /// Whether a query sees nothing after its own position. If not, it sees up to the last row of its sequence.
    pub causal: bool,
    /// The rows; those of a sequence are neighbours and their positions rise.
    pub rows: &'a [Row],
    /// Page numbers of all sequences, one after the other.
    pub pages: &'a [u32],
    /// Where each sequence begins in `pages`.
    pub seqs: &'a [u32],
}

impl AttendShape {
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// Words of one key/value head of one layer of a page.
#[must_use]
pub fn head_words(dim: usize, cache: DType) -> usize {
    // Two matrices of `PAGE * dim`; the 16-bit types put two numbers in a word, and `PAGE` is even.
    if cache == DType::F32 { 2 * PAGE * dim } else { PAGE * dim }
}

/// Rows and columns of the cells that `rows` rows of outputs `[rows, heads * dim]` are best cut into.
#[must_use]
pub fn block(shape: &AttendShape, rows: usize) -> (usize, usize) {
    let (mut heads, mut block) = (shape.group(), (QUERIES / shape.group()).clamp(1, rows.max(1)));
    let cells = |heads: usize, block: usize| shape.heads / heads * rows.div_ceil(block);
    while block > 1 && cells(heads, block) < CELLS && block * heads >= 4 * tile::ROWS {
        block = block.div_ceil(2);
    }
    // A group shares one reading of the keys, so it is split only where a team would stand idle.
    while cells(heads, block) < 4 && heads >= 4 && heads.is_multiple_of(2) {
        heads /= 2;
    }
    (block, heads * shape.dim)
}

/// Scratch words that [`attend`](attend_isa) needs for cells of [`block`].
#[must_use]
pub fn scratch_words(shape: &AttendShape) -> usize {
    attend::scratch_words(shape, QUERIES.max(shape.group()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_many_enough_and_never_empty() {
        for (heads, kv_heads) in [(9, 3), (12, 12), (14, 2), (8, 1), (200, 1), (1, 1)] {
            let shape = AttendShape { heads, kv_heads, dim: 64, cache: DType::F32 };
            for rows in [0, 1, 2, 13, 64, 512, 4096] {
                let (block, cols) = block(&shape, rows);
                assert!(block > 0 && cols > 0 && (heads / kv_heads * 64).is_multiple_of(cols));
                assert!(block * cols / 64 <= QUERIES.max(heads / kv_heads), "scratch is sized for so many");
                assert!(rows < 64 || rows.div_ceil(block) * (heads * 64 / cols) >= 4);
            }
        }
    }
}
