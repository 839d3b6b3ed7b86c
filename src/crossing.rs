//! Floor 4: the memory that lies between the program of an encoder and that of its decoder, where both learn: keys and values
//! of the source for every block of the decoder, which the first writes, and their gradients, which the second writes. Knows
//! no maths.

use crate::error::{Error, Result};
use kernels::Span;

/// The memory's number.
pub const CROSSING: usize = 2;

/// Words between two places are a multiple of this: two cache lines.
const UNIT: usize = 32;

/// Places of one block.
const PLACES: usize = 4;

/// One of the places of that memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crossing {
    /// The block of the decoder.
    pub layer: usize,
    /// Whether values are meant, not keys.
    pub values: bool,
    /// Whether it is their gradient.
    pub grad: bool,
}

impl Crossing {
    /// Keys and values of a block.
    pub fn pair(layer: usize) -> [Crossing; 2] {
        [false, true].map(|values| Crossing { layer, values, grad: false })
    }

    /// The place of what is to flow back here.
    #[cfg(feature = "train")]
    #[must_use]
    pub fn grad(self) -> Crossing {
        Crossing { grad: true, ..self }
    }

    /// Where it lies: `rows` rows (tokens of all sources) of `cols` words, as all places have; and words of the whole memory
    /// up to the end of its block.
    ///
    /// # Errors
    /// `Memory` where the sizes overflow.
    pub fn span(self, [rows, cols]: [usize; 2]) -> Result<(Span, usize)> {
        let refused = Error::Memory { what: "keys and values of the sources of a batch", bytes: u64::MAX };
        let unit = rows.checked_mul(cols).and_then(|words| words.checked_next_multiple_of(UNIT));
        let block = unit.and_then(|unit| unit.checked_mul(PLACES));
        let end = block.and_then(|block| block.checked_mul(self.layer + 1));
        let (Some(unit), Some(block), Some(end)) = (unit, block, end) else { return Err(refused) };
        let place = 2 * usize::from(self.grad) + usize::from(self.values);
        Ok((Span { mem: CROSSING, at: self.layer * block + place * unit, rows, cols }, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_apart_and_within_the_memory() {
        let mut ends = vec![0];
        for layer in 0..3 {
            for grad in [false, true] {
                for place in Crossing::pair(layer) {
                    let (span, words) = Crossing { grad, ..place }.span([5, 9]).expect("a small memory");
                    assert!(span.at >= ends[ends.len() - 1] && span.at + 45 <= words);
                    ends.push(span.at + 45);
                }
            }
        }
        assert_eq!(Crossing::pair(2)[0].span([5, 9]).expect("a small memory").1, 3 * 4 * 64);
        assert!(Crossing::pair(0)[0].span([usize::MAX, 2]).is_err());
    }
}
