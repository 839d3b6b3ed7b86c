//! Floor 4: whole pages that sequences with one beginning share. Knows no memory.

use super::{Pool, Sequence, pages_for};
use kernels::attention::PAGE;

impl Pool {
    /// No sequence takes over what another one computed so far.
    pub fn share_nothing(&mut self) {
        self.prefixes.clear();
    }

    /// Takes over the whole pages of `ids`, the tokens of `seq` from its beginning, that any sequence holds beyond what
    /// `seq` does: from then on both hold them, as after a fork. Nothing is copied or computed.
    pub fn adopt(&mut self, seq: &mut Sequence, ids: &[u32]) {
        if seq.lead > 0 {
            return; // pages do not begin where tokens do
        }
        let base = seq.len / PAGE;
        for (at, ids) in ids.chunks_exact(PAGE).enumerate().take(pages_for(seq.limit)).skip(base) {
            let before = if at == 0 { seq.root } else { seq.pages[at - 1] };
            let Some(page) = self.prefixes.find(before, ids) else { return };
            // Counted first: the sequence's own half-forgotten page may be the one that was found.
            self.refs[page as usize] += 1;
            if at == base {
                self.rewind(seq, base * PAGE);
            }
            seq.pages.push(page);
            seq.len = (at + 1) * PAGE;
        }
    }

    /// Makes the pages of `seq` that became full since it had `from` positions known to [`Pool::adopt`]; `ids` are its
    /// tokens from its beginning. A page that another sequence filled with the same meanwhile takes the place of its own.
    pub fn publish(&mut self, seq: &mut Sequence, from: usize, ids: &[u32]) {
        if seq.lead > 0 {
            return;
        }
        for at in from / PAGE..seq.len / PAGE {
            let (own, Some(ids)) = (seq.pages[at], ids.get(at * PAGE..(at + 1) * PAGE)) else { return };
            let before = if at == 0 { seq.root } else { seq.pages[at - 1] };
            if self.prefixes.knows(own) {
                continue;
            }
            let Some(other) = self.prefixes.find(before, ids) else {
                self.prefixes.set(own, before, ids);
                continue;
            };
            seq.pages[at] = other;
            self.refs[other as usize] += 1;
            self.refs[own as usize] -= 1;
            if self.refs[own as usize] == 0 {
                self.free.push(own);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ROOT;
    use super::*;
    use kernels::attention::Cache;

    fn pool() -> Pool {
        Pool::new(2, &[(1, 4)], Cache::F32)
    }

    /// A sequence that has computed `ids`.
    fn computed(pool: &mut Pool, ids: &[u32]) -> Sequence {
        let mut seq = pool.open(4 * PAGE).unwrap();
        run(pool, &mut seq, ids);
        seq
    }

    /// Makes `seq`, which holds the beginning of `ids`, hold all of them.
    fn run(pool: &mut Pool, seq: &mut Sequence, ids: &[u32]) {
        let from = seq.len;
        pool.grow(seq, ids.len() - from).unwrap();
        seq.len = ids.len();
        pool.publish(seq, from, ids);
    }

    fn end(pool: &mut Pool, seqs: &mut [Sequence]) {
        seqs.iter_mut().for_each(|seq| pool.close(seq));
        assert_eq!((pool.pages_len(), pool.free.len()), (0, 0));
        assert!((0..20).all(|page| !pool.prefixes.knows(page)), "a free page is nobody's beginning");
    }

    #[test]
    fn equal_beginnings_are_adopted_in_whole_pages() {
        let mut pool = pool();
        let ids: Vec<u32> = (0..200).collect();
        let mut a = computed(&mut pool, &ids);
        let mut b = pool.open(4 * PAGE).unwrap();
        pool.adopt(&mut b, &ids[..PAGE * 2 - 1]);
        assert_eq!((b.len, &b.pages[..]), (PAGE, &a.pages[..1]));
        let other = [&ids[..100], &ids[..100]].concat();
        pool.adopt(&mut b, &other);
        assert_eq!(b.len, PAGE, "the second page has other tokens");
        run(&mut pool, &mut b, &other[..100]);
        pool.adopt(&mut b, &ids);
        assert_eq!((b.len, &b.pages[..]), (3 * PAGE, &a.pages[..3]), "its own half page made room");
        // The one that computed them goes, or writes: nobody notices.
        pool.rewind(&mut a, 10);
        run(&mut pool, &mut a, &[&ids[..10], &ids[100..154]].concat());
        assert_ne!(a.pages[0], b.pages[0]);
        let mut c = pool.open(4 * PAGE).unwrap();
        pool.adopt(&mut c, &ids);
        assert_eq!((c.len, &c.pages), (3 * PAGE, &b.pages));
        end(&mut pool, &mut [a, b, c]);
    }

    #[test]
    fn a_page_that_is_written_anew_is_forgotten() {
        let mut pool = pool();
        let ids: Vec<u32> = (0..200).collect();
        let mut a = computed(&mut pool, &ids);
        let kept = a.pages.clone();
        pool.rewind(&mut a, PAGE + 3);
        pool.adopt(&mut a, &ids);
        assert_eq!((a.len, &a.pages[..2]), (2 * PAGE, &kept[..2]), "untouched, it is still what it was");
        pool.rewind(&mut a, PAGE + 3);
        pool.grow(&mut a, 1).unwrap();
        let mut b = pool.open(4 * PAGE).unwrap();
        pool.adopt(&mut b, &ids);
        assert_eq!(b.len, PAGE);
        end(&mut pool, &mut [a, b]);
    }

    #[test]
    fn pages_computed_twice_are_stored_once() {
        let mut pool = pool();
        let ids: Vec<u32> = (0..3 * PAGE as u32 + 5).collect();
        let a = computed(&mut pool, &ids);
        let b = computed(&mut pool, &ids);
        assert_eq!(a.pages[..3], b.pages[..3]);
        assert_ne!(a.pages[3], b.pages[3]);
        assert_eq!(pool.free.len(), 8 - 5);
        let c = computed(&mut pool, &[&ids[..PAGE], &ids[1..PAGE + 1]].concat());
        assert_eq!(c.pages[0], a.pages[0]);
        assert_ne!(c.pages[1], a.pages[1]);
        end(&mut pool, &mut [a, b, c]);
    }

    #[test]
    fn what_other_adapters_computed_is_not_shared() {
        let mut pool = pool();
        let ids: Vec<u32> = (0..200).collect();
        let a = computed(&mut pool, &ids);
        let mut b = pool.open(4 * PAGE).unwrap();
        b.root = ROOT - 1;
        pool.adopt(&mut b, &ids);
        assert_eq!(b.len, 0);
        run(&mut pool, &mut b, &ids);
        assert_ne!(a.pages[0], b.pages[0]);
        let mut c = pool.fork(&b).unwrap();
        pool.rewind(&mut c, 0);
        pool.adopt(&mut c, &ids);
        assert_eq!((c.len, c.pages[0]), (3 * PAGE, b.pages[0]), "one of the same adapters is");
        pool.share_nothing();
        let mut d = pool.open(4 * PAGE).unwrap();
        pool.adopt(&mut d, &ids);
        assert_eq!(d.len, 0);
        end(&mut pool, &mut [a, b, c, d]);
    }
}
