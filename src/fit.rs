//! Floor 1: how much of a list one run takes. Knows nothing of what runs.

/// How many of the first items, whose lengths are `lens`, have up to `most` together; at least one, as none is parted.
pub fn that_fit(lens: impl Iterator<Item = usize>, most: usize) -> usize {
    let mut sum = 0;
    let fits = lens.take_while(|len| {
        sum += len;
        sum <= most
    });
    fits.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::that_fit;

    #[test]
    fn one_that_is_too_long_goes_alone() {
        let fit = |lens: &[usize]| that_fit(lens.iter().copied(), 10);
        assert_eq!((fit(&[4, 6, 1]), fit(&[4, 7, 1]), fit(&[11, 1]), fit(&[3])), (2, 1, 1, 1));
    }
}
