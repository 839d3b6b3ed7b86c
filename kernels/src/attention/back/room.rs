//! Floor 0: a worker's memory for one block of queries or keys whose gradients are computed. Knows no arithmetic.

use crate::attention::tile::ROWS;
use crate::attention::{AttendShape, MAX_DIM, PAGE};
use crate::simd::LANES;

/// Memory for a number of slots: the rows of a block, filled up to whole panels.
pub struct Room<'a> {
    /// `[panel][dim][slot]` each: queries and gradients of outputs, or keys and values.
    pub own: [&'a mut [f32]; 2],
    /// `[slots][dim]`: the gradients of queries, or of keys and of values. Rows have a constant length so that their ends
    /// need not be looked for.
    pub acc: [&'a mut [[f32; MAX_DIM]]; 2],
    /// Of the rows of a panel: scores, then weights; gradients of weights, then of scores.
    pub p: &'a mut [[f32; PAGE]; ROWS],
    pub d: &'a mut [[f32; PAGE]; ROWS],
    /// `[dim][PAGE]` each: what the block meets a chunk of, of the other kind than `own`.
    pub turned: [&'a mut [f32]; 2],
    /// `[PAGE][width]` each: the same, with rows filled up to whole vectors.
    pub plain: [&'a mut [f32]; 2],
    /// Of each query of the chunk: largest score, one over the sum of weights, and delta.
    pub lanes: &'a mut [[f32; PAGE]; 3],
    /// The same of each slot that is a query.
    pub slots: &'a mut [[f32; 3]],
    /// What is added to the scores of one slot.
    pub bias: &'a mut [f32; PAGE],
    /// `dim`, filled up to whole vectors.
    pub width: usize,
}

/// Words of the members of a room, in their order.
fn sizes(shape: &AttendShape, slots: usize) -> [usize; 12] {
    let (dim, width) = (shape.dim, shape.dim.next_multiple_of(LANES));
    let (own, acc, panel) = ((slots * dim).next_multiple_of(LANES), slots * MAX_DIM, ROWS * PAGE);
    let (turned, plain) = (dim * PAGE, PAGE * width);
    [own, own, acc, acc, panel, panel, turned, turned, plain, plain, 3 * PAGE + PAGE, 3 * slots]
}

/// Words that blocks of up to `rows` rows need.
pub fn scratch_words(shape: &AttendShape, rows: usize) -> usize {
    sizes(shape, rows + ROWS - 1).iter().sum()
}

impl<'a> Room<'a> {
    /// Panics where scratch is shorter than [`scratch_words`].
    pub fn of(mut scratch: &'a mut [f32], shape: &AttendShape, slots: usize) -> Room<'a> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = sizes(shape, slots).map(|words| {
            let (front, rest) = std::mem::take(&mut scratch).split_at_mut(words);
            scratch = rest;
            front
        });
        let (lanes, bias) = k.split_at_mut(3 * PAGE);
        let rows = "rows of a constant length";
        Room {
            own: [a, b],
            acc: [c.as_chunks_mut().0, d.as_chunks_mut().0],
            p: e.as_chunks_mut().0.first_chunk_mut().expect(rows),
            d: f.as_chunks_mut().0.first_chunk_mut().expect(rows),
            turned: [g, h],
            plain: [i, j],
            lanes: lanes.as_chunks_mut().0.first_chunk_mut().expect(rows),
            slots: l.as_chunks_mut().0,
            bias: bias.first_chunk_mut().expect(rows),
            width: shape.dim.next_multiple_of(LANES),
        }
    }
}
