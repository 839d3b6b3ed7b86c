//! Floor 0: what is added to the scores of attention, by head and by how far a key is from the query. Knows no keys and
//! no pages.

use super::PAGE;
use crate::math::tanh;
use crate::simd::{LANES, Simd};

/// What is added to scaled (and capped) scores, before the mask. Distances are the key's position minus the query's.
#[derive(Clone, Copy, Debug)]
pub enum Bias<'a> {
    /// Nothing.
    None,
    /// ALiBi (Press et al. 2022): of each query head a slope, by which distances are multiplied.
    Slopes(&'a [f32]),
    /// Learned biases by distance (Raffel et al. 2020).
    Distance {
        /// As [`distance_table`] makes it.
        table: &'a [f32],
        /// The distance beyond which, either way, the bias no longer changes.
        far: usize,
    },
    /// Of each query head what a key's own position adds, whatever the query's, `[heads, len]`: ALiBi as Falcon rounds it.
    Positions {
        /// Head after head.
        table: &'a [f32],
        /// Positions of a head: a multiple of [`PAGE`] that no key reaches.
        len: usize,
    },
}

impl Bias<'_> {
    /// What is added to the score of a query of `head` at `pos` and the key at `key`. Panics where a table lacks them.
    #[must_use]
    pub fn at(&self, head: usize, pos: usize, key: usize) -> f32 {
        let distance = key as i64 - pos as i64;
        match *self {
            Bias::None => 0.0,
            Bias::Slopes(slopes) => slopes[head] * distance as f32,
            Bias::Positions { table, len } => table[head * len..][..len][key],
            Bias::Distance { table, far } => {
                let (width, middle) = (2 * (far + PAGE) - 1, (far + PAGE - 1) as i64);
                table[head * width + (middle + distance.clamp(-middle, middle)) as usize]
            }
        }
    }
}

/// The table of [`Bias::Distance`]: `of(head, distance)` for each of `heads` query heads and each distance from `-far` to
/// `far`. Both ends of a head's row are repeated, so that the biases of the positions of a chunk are always neighbours.
#[must_use]
pub fn distance_table(heads: usize, far: usize, of: impl Fn(usize, i64) -> f32) -> Vec<f32> {
    let (far, pad) = (far as i64, PAGE as i64 - 1);
    let row = |head: usize| (-far - pad..=far + pad).map(move |distance| (head, distance.clamp(-far, far)));
    (0..heads).flat_map(row).map(|(head, distance)| of(head, distance)).collect()
}

/// What happens to one query's scores of one chunk between scaling and mask.
pub struct Adjust<'a> {
    cap: Option<f32>,
    bias: Biases<'a>,
}

/// The biases of a chunk's positions.
enum Biases<'a> {
    None,
    /// Slope, and the distance of the chunk's first position.
    Line(f32, f32),
    Each(&'a [f32; PAGE]),
}

impl<'a> Adjust<'a> {
    /// For a query of head `head` at `pos`, and the chunk at `at`. Panics where a table lacks them.
    pub fn new(cap: Option<f32>, bias: Bias<'a>, head: usize, pos: u32, at: usize) -> Adjust<'a> {
        let distance = at as i64 - i64::from(pos);
        let bias = match bias {
            Bias::None => Biases::None,
            Bias::Slopes(slopes) => Biases::Line(slopes[head], distance as f32),
            Bias::Positions { table, len } => {
                Biases::Each(table[head * len..][..len][at..].first_chunk().expect("whole pages"))
            }
            Bias::Distance { table, far } => {
                let last = 2 * far + PAGE - 1;
                let start = (distance + (far + PAGE - 1) as i64).clamp(0, last as i64) as usize;
                let row = &table[head * (last + PAGE)..][..last + PAGE];
                Biases::Each(row[start..].first_chunk().expect("a row is padded by a chunk"))
            }
        };
        Adjust { cap, bias }
    }

    /// Raw scores become what the mask is laid on: scaled, by each position's key too where those have scales, capped
    /// and biased. Those of positions that do not exist are garbage and stay so.
    #[inline(always)]
    pub fn apply<S: Simd>(&self, s: S, p: &mut [f32; PAGE], scale: f32, keys: Option<&[f32; PAGE]>) {
        for z in (0..PAGE).step_by(LANES) {
            let mut x = s.load(&p[z..]);
            if let Some(keys) = keys {
                x = s.mul(x, s.load(&keys[z..]));
            }
            x = s.mul(x, s.splat(scale));
            if let Some(cap) = self.cap {
                let cap = s.splat(cap);
                x = s.mul(tanh(s, s.div(x, cap)), cap);
            }
            x = match self.bias {
                Biases::None => x,
                Biases::Line(slope, first) => {
                    let distance = s.add(s.load(&super::tile::INDEX), s.splat(first + z as f32));
                    s.fma(s.splat(slope), distance, x)
                }
                Biases::Each(biases) => s.add(x, s.load(&biases[z..])),
            };
            s.store(x, &mut p[z..]);
        }
    }
}
