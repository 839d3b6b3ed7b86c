//! Floor 0: a worker's memory for one block of queries. Knows no arithmetic.

use super::tile::ROWS;
use super::{AttendShape, Cache, MAX_DIM, PAGE};
use crate::simd::LANES;

/// Largest scores and sums of weights, a query a lane.
pub struct Stat<'a> {
    pub max: &'a mut [[f32; LANES]],
    pub sum: &'a mut [[f32; LANES]],
}

impl Stat<'_> {
    /// Nothing seen yet.
    pub fn clear(&mut self) {
        self.max.fill([f32::NEG_INFINITY; LANES]);
        self.sum.fill([0.0; LANES]);
    }

    /// Of query `i`.
    pub fn stat(&self, i: usize) -> [f32; 2] {
        [self.max.as_flattened()[i], self.sum.as_flattened()[i]]
    }
}

/// Memory for a number of slots: the queries of a block, filled up to whole panels.
pub struct Room<'a> {
    /// `[panel][dim][query]`
    pub q: &'a mut [f32],
    /// `[slots][PAGE]`: scores, then weights.
    pub p: &'a mut [[f32; PAGE]],
    /// What a panel gets of a chunk. Its rows have a constant length so that their ends need not be looked for.
    pub acc: &'a mut [[f32; MAX_DIM]; ROWS],
    /// `[slots][width]`: the parts before, folded.
    pub out: &'a mut [f32],
    /// `[slots][width]`: the chunks of this part, folded.
    pub part: &'a mut [f32],
    /// Statistics of `out`.
    pub of_out: Stat<'a>,
    /// Statistics of `part`.
    pub of_part: Stat<'a>,
    /// Statistics of a chunk.
    pub of_chunk: Stat<'a>,
    /// What outputs before and those of the chunk are multiplied by, a query a lane.
    pub factors: [&'a mut [[f32; LANES]]; 2],
    /// `[dim][PAGE]`: keys of another type than f32, widened.
    pub keys: &'a mut [f32],
    /// `[PAGE][width]`: values of another type, widened, or those whose rows are not whole vectors, filled up.
    pub values: &'a mut [f32],
    /// `dim`, filled up to whole vectors.
    pub width: usize,
}

/// Words of the members of a room, in their order; statistics and factors are eight together.
fn sizes(shape: &AttendShape, slots: usize) -> [usize; 8] {
    let width = shape.dim.next_multiple_of(LANES);
    let narrow = shape.cache != Cache::F32;
    let keys = if narrow { PAGE * shape.dim } else { 0 };
    let values = if narrow || width != shape.dim { PAGE * width } else { 0 };
    let q = (slots * shape.dim).next_multiple_of(LANES);
    let (rows, stats) = (slots * width, 8 * slots.next_multiple_of(LANES));
    [q, slots * PAGE, ROWS * MAX_DIM, rows, rows, stats, keys, values]
}

/// Words that blocks of up to `queries` queries need.
pub fn scratch_words(shape: &AttendShape, queries: usize) -> usize {
    sizes(shape, queries + ROWS - 1).iter().sum()
}

impl<'a> Room<'a> {
    /// Panics where scratch is shorter than [`scratch_words`].
    pub fn of(mut scratch: &'a mut [f32], shape: &AttendShape, slots: usize) -> Room<'a> {
        let [q, p, acc, out, part, stats, keys, values] = sizes(shape, slots).map(|words| {
            let (front, rest) = std::mem::take(&mut scratch).split_at_mut(words);
            scratch = rest;
            front
        });
        let mut stats = stats.as_chunks_mut().0;
        let each = stats.len() / 8;
        let [a, b, c, d, e, f, g, h] = [(); 8].map(|()| {
            let (front, rest) = std::mem::take(&mut stats).split_at_mut(each);
            stats = rest;
            front
        });
        Room {
            q,
            p: p.as_chunks_mut().0,
            acc: acc.as_chunks_mut().0.first_chunk_mut().expect("rows of outputs"),
            out,
            part,
            of_out: Stat { max: a, sum: b },
            of_part: Stat { max: c, sum: d },
            of_chunk: Stat { max: e, sum: f },
            factors: [g, h],
            keys,
            values,
            width: shape.dim.next_multiple_of(LANES),
        }
    }
}
