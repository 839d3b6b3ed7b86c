//! Floor 4: refcounted pages of keys and values, and who holds them. Knows no maths.

mod share;

use crate::error::{Error, Result};
use crate::prefix::Prefixes;
pub use crate::prefix::ROOT;
use kernels::Pages;
use kernels::attention::{Cache, PAGE, head_words};

/// Pages of one model, counted. Every open [`Sequence`] has as many pages as its context takes set aside, so that
/// nothing has to be allocated (or can be refused) in the middle of a conversation; untouched pages cost no memory.
pub struct Pool {
    pages: Pages,
    refs: Vec<u32>,
    free: Vec<u32>,
    prefixes: Prefixes,
}

/// The pages of a conversation. Not `Clone`: [`Pool::fork`] counts.
#[derive(Debug)]
pub struct Sequence {
    /// Their numbers, in the order of positions.
    pub(crate) pages: Vec<u32>,
    /// Tokens held.
    pub len: usize,
    /// Positions before the first token's, which an adapter filled.
    pub lead: usize,
    /// Positions it may hold.
    pub limit: usize,
    /// Stands for the page before the first one: sequences with one root compute the same from the same tokens.
    pub root: u32,
}

/// Pages that `tokens` positions take.
pub fn pages_for(tokens: usize) -> usize {
    tokens.div_ceil(PAGE)
}

impl Pool {
    /// No pages yet; of `layers` layers that hold `kv_heads` heads of `head_dim` each for every stack, kept as `cache`.
    pub fn new(layers: usize, stacks: &[(usize, usize)], cache: Cache) -> Pool {
        let words = stacks.iter().map(|(kv_heads, head_dim)| kv_heads * head_words(*head_dim, cache));
        Pool {
            pages: Pages::new(layers, words.max().unwrap_or(0)),
            refs: Vec::new(),
            free: Vec::new(),
            prefixes: Prefixes::default(),
        }
    }

    /// Bytes of one page, all layers.
    pub fn page_bytes(&self) -> u64 {
        self.pages.page_bytes() as u64
    }

    /// Pages that exist, held and set aside.
    #[cfg(test)]
    pub fn pages_len(&self) -> usize {
        self.pages.len()
    }

    /// The page memory, for a run.
    pub fn pages_mut(&mut self) -> &mut Pages {
        &mut self.pages
    }

    /// An empty sequence of up to `limit` positions.
    ///
    /// # Errors
    /// `Memory` where the system has not enough; nothing changes then.
    pub fn open(&mut self, limit: usize) -> Result<Sequence> {
        let wanted = pages_for(limit);
        let mut pages = Vec::new();
        let refused = || Error::Memory { what: "a session's context", bytes: u64::MAX };
        pages.try_reserve_exact(wanted).map_err(|_| refused())?;
        self.free.try_reserve(self.pages.len() + wanted).map_err(|_| refused())?;
        for done in 0..wanted {
            let Some(id) = self.pages.alloc() else {
                self.drop_free(done);
                let bytes = self.page_bytes().saturating_mul(wanted as u64);
                return Err(Error::Memory { what: "a session's context", bytes });
            };
            self.free.push(id);
            let slots = self.refs.len().max(id as usize + 1);
            if !self.prefixes.reserve(slots) {
                self.drop_free(done + 1);
                return Err(refused());
            }
            self.refs.resize(slots, 0);
        }
        Ok(Sequence { pages, len: 0, lead: 0, limit, root: ROOT })
    }

    /// Ends a sequence: its pages go back, and as many as were set aside for it leave memory.
    pub fn close(&mut self, seq: &mut Sequence) {
        self.clear(seq);
        self.drop_free(pages_for(seq.limit));
        seq.limit = 0;
    }

    fn drop_free(&mut self, n: usize) {
        for _ in 0..n {
            if let Some(id) = self.free.pop() {
                self.pages.release(id);
            }
        }
    }

    /// A second sequence with the same past: no numbers are copied.
    ///
    /// # Errors
    /// As [`Pool::open`].
    pub fn fork(&mut self, seq: &Sequence) -> Result<Sequence> {
        let mut twin = self.open(seq.limit)?;
        for &page in &seq.pages {
            self.refs[page as usize] += 1;
            twin.pages.push(page);
        }
        (twin.len, twin.lead, twin.root) = (seq.len, seq.lead, seq.root);
        Ok(twin)
    }

    /// Forgets all, what an adapter filled too.
    pub fn clear(&mut self, seq: &mut Sequence) {
        seq.lead = 0;
        self.rewind(seq, 0);
    }

    /// Forgets tokens from number `len` on.
    pub fn rewind(&mut self, seq: &mut Sequence, len: usize) {
        let keep = pages_for(seq.lead + len).min(seq.pages.len());
        for page in seq.pages.drain(keep..) {
            self.refs[page as usize] -= 1;
            if self.refs[page as usize] == 0 {
                self.prefixes.forget(page);
                self.free.push(page);
            }
        }
        seq.len = seq.len.min(len);
    }

    /// Gives the `i`-th sequence the past of the `from[i]`-th; all have one limit. Those beyond `from` become empty.
    pub fn reorder(&mut self, seqs: &mut [Sequence], from: &[usize]) {
        let past = |seq: &Sequence| (seq.pages.clone(), [seq.lead, seq.len]);
        let pasts: Vec<(Vec<u32>, [usize; 2])> = seqs.iter().map(past).collect();
        for &page in from.iter().flat_map(|i| &pasts[*i].0) {
            self.refs[page as usize] += 1;
        }
        for (i, seq) in seqs.iter_mut().enumerate() {
            self.clear(seq);
            if let Some((pages, past)) = from.get(i).map(|i| &pasts[*i]) {
                seq.pages.extend_from_slice(pages);
                [seq.lead, seq.len] = *past;
            }
        }
    }

    /// Pages for `n` more positions; the page being written is made private first.
    ///
    /// # Errors
    /// `ContextFull` beyond the sequence's limit; nothing changes then.
    pub fn grow(&mut self, seq: &mut Sequence, n: usize) -> Result<()> {
        let held = seq.lead + seq.len;
        if n > seq.limit - held {
            return Err(Error::ContextFull { used: held, wanted: n, limit: seq.limit });
        }
        if n > 0 && !held.is_multiple_of(PAGE) {
            let last = held / PAGE;
            let old = seq.pages[last];
            if self.refs[old as usize] > 1 {
                let new = self.take()?;
                self.pages.copy(old, new);
                self.refs[old as usize] -= 1;
                seq.pages[last] = new;
            } else {
                self.prefixes.forget(old);
            }
        }
        while seq.pages.len() * PAGE < held + n {
            let page = self.take()?;
            seq.pages.push(page);
        }
        Ok(())
    }

    /// A free page. There is one: sequences hold at most what was set aside for each.
    fn take(&mut self) -> Result<u32> {
        let page = self.free.pop().ok_or_else(|| Error::Internal("the page pool ran dry".to_owned()))?;
        self.refs[page as usize] = 1;
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool::new(2, &[(1, 4)], Cache::F32)
    }

    #[test]
    fn a_fork_shares_pages_until_it_writes() {
        let mut pool = pool();
        let mut a = pool.open(4 * PAGE).unwrap();
        pool.grow(&mut a, PAGE + 5).unwrap();
        a.len = PAGE + 5;
        pool.pages_mut().words_mut(a.pages[1]).unwrap().fill(7.0);
        let mut b = pool.fork(&a).unwrap();
        assert_eq!(a.pages, b.pages);
        pool.grow(&mut b, 1).unwrap();
        assert_eq!(a.pages[0], b.pages[0], "the full page stays shared");
        assert_ne!(a.pages[1], b.pages[1], "the half-filled one is private now");
        assert!(pool.pages_mut().words(b.pages[1]).unwrap().iter().all(|x| *x == 7.0));
        pool.close(&mut a);
        assert_eq!(pool.pages_len(), 4);
        pool.close(&mut b);
        assert_eq!(pool.pages_len(), 0);
    }

    #[test]
    fn both_of_a_fork_can_fill_their_contexts() {
        let mut pool = pool();
        let mut a = pool.open(3 * PAGE).unwrap();
        pool.grow(&mut a, 2 * PAGE).unwrap();
        a.len = 2 * PAGE;
        let mut b = pool.fork(&a).unwrap();
        for seq in [&mut a, &mut b] {
            pool.rewind(seq, PAGE / 2);
            pool.grow(seq, 3 * PAGE - seq.len).unwrap();
            seq.len = 3 * PAGE;
        }
        assert!(matches!(pool.grow(&mut a, 1), Err(Error::ContextFull { wanted: 1, .. })));
        pool.close(&mut a);
        pool.close(&mut b);
        assert_eq!((pool.pages_len(), pool.free.len()), (0, 0));
    }

    #[test]
    fn beams_change_places() {
        let mut pool = pool();
        let mut seqs: Vec<Sequence> = (0..3).map(|_| pool.open(2 * PAGE).unwrap()).collect();
        for (seq, len) in seqs.iter_mut().zip([5, PAGE + 1, 7]) {
            pool.grow(seq, len).unwrap();
            seq.len = len;
        }
        let (a, b) = (seqs[0].pages.clone(), seqs[1].pages.clone());
        pool.reorder(&mut seqs, &[1, 1, 0]);
        assert_eq!([&seqs[0].pages, &seqs[1].pages, &seqs[2].pages], [&b, &b, &a]);
        assert_eq!([seqs[0].len, seqs[1].len, seqs[2].len], [PAGE + 1, PAGE + 1, 5]);
        pool.grow(&mut seqs[0], 1).unwrap();
        assert_ne!(seqs[0].pages[1], b[1], "who writes first gets a copy");
        seqs.iter_mut().for_each(|seq| pool.close(seq));
        assert_eq!((pool.pages_len(), pool.free.len()), (0, 0));
    }

    #[test]
    fn an_absurd_context_is_refused_and_nothing_is_kept() {
        let mut pool = Pool::new(1 << 12, &[(1 << 12, 256)], Cache::F32);
        assert!(matches!(pool.open(1 << 40), Err(Error::Memory { .. })));
        assert_eq!(pool.pages_len(), 0);
    }
}
