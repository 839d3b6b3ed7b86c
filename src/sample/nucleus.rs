//! Floor 5: where, in the order of weights, their sum reaches something: without putting them in order. Knows no logits and
//! no settings.
//!
//! Weights are summed as whole multiples of 2^-36 of the largest. Integers are exact, so it does not matter in which order
//! they are added, and the place found is the one that sorting finds.

use std::cmp::Ordering;

/// A token that may be chosen: its id and its logit or weight.
pub type Candidate = (u32, f32);

/// The unit of sums, as a share of the largest weight, which is 1. Smaller weights do not count: they are never drawn.
pub const LEAST: f32 = 1.0 / (1u64 << 36) as f32;

/// Candidates that are put in order rather than parted again.
const FEW: usize = 128;

/// Bits of a key that part candidates at once: the sums of so many parts stay in a first-level cache.
const BITS: u32 = 11;
const PARTS: usize = 1 << BITS;

/// Bits of a key: 36 exponents above [`LEAST`], and 23 bits of a fraction each.
const KEY: u32 = 29;

/// Most likely first, lower ids first among equals. No value is NaN here.
pub fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
}

/// A weight of at most 1 in units.
fn mass((_, weight): &Candidate) -> u64 {
    (weight / LEAST) as i64 as u64
}

/// Candidates with weights from [`LEAST`] to 1, and what their parts weigh.
pub struct Weights<'a> {
    list: &'a mut [Candidate],
    /// Of the parts by the uppermost bits.
    sums: [u64; PARTS],
    /// Of all.
    total: u64,
}

impl<'a> Weights<'a> {
    /// Adds up the candidates in `list`, and may move them about later.
    pub fn new(list: &'a mut [Candidate]) -> Weights<'a> {
        let sums = sums_of(list, KEY - BITS);
        Weights { list, sums, total: sums.iter().sum() }
    }

    /// The sum of all weights, in units.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The candidate in which a share `u` ends of what those weigh that reach `wanted` together, in the order of
    /// [`likelier`]; none where there are none.
    pub fn draw(&mut self, wanted: u64, u: f64) -> Option<u32> {
        let all = self.total;
        let kept = if wanted < all { self.place(wanted).map_or(all, |(_, sum)| sum) } else { all };
        // The sum that a candidate ends with is beyond the share.
        let share = (u * kept as f64) as u64 + 1;
        self.place(share.min(kept)).map(|(id, _)| id)
    }

    /// In the order of [`likelier`], the candidate with which the sum of weights reaches `wanted`, and that sum; none where
    /// all have less.
    fn place(&mut self, wanted: u64) -> Option<(u32, u64)> {
        let (mut list, mut sums, mut shift, mut before) = (&mut *self.list, self.sums, KEY - BITS, 0);
        // The part that has the place, by the uppermost bits of weights; within it the one by those that follow.
        loop {
            let found = sums.iter().position(|sum| {
                before += sum;
                before >= wanted
            })?;
            before -= sums[found];
            let mut n = 0;
            for i in 0..list.len() {
                if part(&list[i], shift) == found {
                    list.swap(i, n);
                    n += 1;
                }
            }
            list = &mut list[..n];
            if n <= FEW || shift == 0 {
                break;
            }
            shift = shift.saturating_sub(BITS);
            sums = sums_of(list, shift);
        }
        list.sort_unstable_by(likelier);
        list.iter().find_map(|candidate| {
            before += mass(candidate);
            (before >= wanted).then_some((candidate.0, before))
        })
    }
}

/// In which part a candidate is by the bits of its weight from `shift` on: the heavier come first.
fn part((_, weight): &Candidate, shift: u32) -> usize {
    ((1f32.to_bits() - weight.to_bits()) >> shift) as usize % PARTS
}

/// What the parts weigh.
fn sums_of(list: &[Candidate], shift: u32) -> [u64; PARTS] {
    let mut sums = [0; PARTS];
    for candidate in list {
        sums[part(candidate, shift)] += mass(candidate);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, uniform};

    #[test]
    fn the_place_is_the_one_that_sorting_finds() {
        for (n, spread) in
            [(1, 1.0), (100, 3.0), (5000, 24.0), (5000, 1.0), (5000, 1e-4), (5000, 1e-6), (5000, 0.0)]
        {
            let draw = |i| uniform(n, Stream::Sample, i) as f32;
            let list: Vec<Candidate> = (0..n).map(|i| (i as u32, libm::expf(-spread * draw(i)))).collect();
            let mut sorted = list.clone();
            sorted.sort_by(likelier);
            let all = list.iter().map(mass).sum::<u64>();
            let mut moved = list.clone();
            let mut weights = Weights::new(&mut moved);
            assert_eq!(weights.total(), all);
            for wanted in [1, all / 7, all / 2, all - 1, all, all + 1] {
                let mut sum = 0;
                let want = sorted.iter().find_map(|candidate| {
                    sum += mass(candidate);
                    (sum >= wanted).then_some((candidate.0, sum))
                });
                assert_eq!(weights.place(wanted), want, "{n} candidates, spread {spread}, {wanted}");
            }
        }
    }
}
