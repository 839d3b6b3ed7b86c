//! Floor 4: which tokens a page of keys and values stands for, so that equal beginnings are stored once. Knows no
//! sequences and no memory: its owner says when a page is full, written anew or free.
//!
//! A page's numbers depend on the tokens up to its end, the adapters and nothing else (the determinism contract), so a page is
//! named by its own tokens and the page before it; what stands before the first one names the adapters. Comparing those is exact; the hash only makes the search short.

use kernels::attention::PAGE;

/// Stands for the page before the first one where there are no adapters; smaller numbers stand for adapters.
pub const ROOT: u32 = u32::MAX;

/// What a page holds.
#[derive(Clone)]
struct Held {
    before: u32,
    ids: [u32; PAGE],
}

/// What each page holds, by its number.
#[derive(Default)]
pub struct Prefixes {
    /// 0: nothing that anyone may share.
    hashes: Vec<u64>,
    held: Vec<Held>,
}

impl Prefixes {
    /// Room for pages numbered below `n`, so that nothing is allocated later; false where there is no memory for it.
    pub fn reserve(&mut self, n: usize) -> bool {
        let more = n.saturating_sub(self.hashes.len());
        if self.hashes.try_reserve(more).is_err() || self.held.try_reserve(more).is_err() {
            return false;
        }
        if more > 0 {
            self.hashes.resize(n, 0);
            self.held.resize(n, Held { before: ROOT, ids: [0; PAGE] });
        }
        true
    }

    /// The page that holds `ids` after page `before`.
    pub fn find(&self, before: u32, ids: &[u32]) -> Option<u32> {
        let hash = hash(before, ids);
        let same = |&page: &usize| {
            self.hashes[page] == hash && self.held[page].before == before && self.held[page].ids == *ids
        };
        (0..self.hashes.len()).find(same).map(|page| page as u32)
    }

    /// Whether others may share `page`.
    pub fn knows(&self, page: u32) -> bool {
        self.hashes.get(page as usize).is_some_and(|hash| *hash != 0)
    }

    /// `page` is full: it holds `ids` after page `before`. One that there is no room for stays unknown.
    pub fn set(&mut self, page: u32, before: u32, ids: &[u32]) {
        let at = page as usize;
        if let (Some(held), Ok(ids)) = (self.held.get_mut(at), <[u32; PAGE]>::try_from(ids)) {
            self.hashes[at] = hash(before, &ids);
            *held = Held { before, ids };
        }
    }

    /// Nothing that was computed so far may be shared any more.
    pub fn clear(&mut self) {
        self.hashes.fill(0);
    }

    /// `page` will be written anew, or is free.
    pub fn forget(&mut self, page: u32) {
        if let Some(hash) = self.hashes.get_mut(page as usize) {
            *hash = 0;
        }
    }
}

/// FNV-1a over words; never 0.
fn hash(before: u32, ids: &[u32]) -> u64 {
    let step = |hash: u64, word: &u32| (hash ^ u64::from(*word)).wrapping_mul(0x0000_0100_0000_01B3);
    ids.iter().fold(step(0xCBF2_9CE4_8422_2325, &before), step) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_found_by_its_tokens_and_the_page_before() {
        let mut known = Prefixes::default();
        assert!(known.reserve(3));
        let (a, b) = ([1; PAGE], [2; PAGE]);
        known.set(1, ROOT, &a);
        known.set(2, 1, &b);
        known.set(9, ROOT, &b); // no room: not known
        assert_eq!((known.find(ROOT, &a), known.find(1, &b)), (Some(1), Some(2)));
        assert_eq!((known.find(ROOT, &b), known.find(0, &b), known.find(1, &a)), (None, None, None));
        assert!(known.knows(1) && !known.knows(0) && !known.knows(9));
        known.forget(1);
        assert_eq!((known.find(ROOT, &a), known.find(1, &b)), (None, Some(2)));
        assert!(!known.reserve(usize::MAX / 8));
        assert_eq!(known.find(1, &b), Some(2), "a refused reservation changes nothing");
    }
}
