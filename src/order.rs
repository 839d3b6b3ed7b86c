//! Floor 1: sorting where it is not what takes time. Knows nothing of what is sorted.
//!
//! The standard library's sort is some thousand instructions for every type and every comparison; this is one of them.

use std::cmp::Ordering;

/// The items in the order of `compare`; equal ones stay in theirs.
pub fn sorted<T>(items: Vec<T>, compare: impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    let order = places(items.len(), &|a, b| compare(&items[a], &items[b]));
    let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
    order.into_iter().filter_map(|place| items[place].take()).collect()
}

/// The numbers below `n` in the order of `compare`; equal ones rise.
pub fn places(n: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| compare(*a, *b));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_items_keep_their_order() {
        let items = vec![(2, 'a'), (1, 'b'), (2, 'c'), (0, 'd'), (1, 'e')];
        let mut want = items.clone();
        want.sort_by_key(|item| item.0);
        assert_eq!(sorted(items, |a, b| a.0.cmp(&b.0)), want);
        assert_eq!(sorted(Vec::<String>::new(), Ord::cmp), Vec::<String>::new());
    }

    #[test]
    fn places_leave_nothing_out() {
        let keys = [3, 1, 3, 0];
        assert_eq!(places(4, &|a, b| keys[a].cmp(&keys[b])), [3, 1, 0, 2]);
    }
}
