//! Floor 5: in which order examples are seen: each once per epoch, shuffled anew, by a seed and the number of the step alone,
//! so that a run that goes on sees what it would have seen. Knows no data.

use crate::rng::{Stream, uniform};

/// The order of `len` examples.
pub struct Order {
    len: usize,
    seed: u64,
    /// The epoch that `places` is of.
    epoch: Option<u64>,
    places: Vec<u32>,
}

impl Order {
    /// One of `len` examples: at least one, and less than 2^32.
    #[must_use]
    pub fn new(len: usize, seed: u64) -> Order {
        Order { len, seed, epoch: None, places: Vec::new() }
    }

    /// The `i`-th example of all that are ever seen.
    pub fn at(&mut self, i: u64) -> usize {
        let (epoch, place) = (i / self.len as u64, (i % self.len as u64) as usize);
        if self.epoch != Some(epoch) {
            self.places = (0..self.len as u32).collect();
            for last in (1..self.len).rev() {
                let share = uniform(self.seed, Stream::Shuffle, epoch << 32 | last as u64);
                self.places.swap(last, (share * (last + 1) as f64) as usize);
            }
            self.epoch = Some(epoch);
        }
        self.places[place] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_every_example_once_in_another_order() {
        let mut order = Order::new(17, 3);
        let epochs: Vec<Vec<usize>> =
            (0..3).map(|e| (0..17).map(|i| order.at(e * 17 + i)).collect()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..17).collect::<Vec<_>>());
        }
        assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
        // Whoever begins in the middle sees the same.
        assert_eq!(Order::new(17, 3).at(20), epochs[1][3]);
        assert_ne!((0..17).map(|i| Order::new(17, 4).at(i)).collect::<Vec<_>>(), epochs[0]);
    }
}
