//! Floor 4: blocks that are computed again for their gradients (Chen et al. 2016): the forward half leaves of a block what it
//! read and what it returned, and the backward half begins with a copy of its verbs over other buffers. A copy has the bits of
//! what it was made of. Computes nothing.

use super::{Past, Tape};
use crate::block::Block;
use crate::verb::{Buf, Of, Verb};
use std::collections::HashSet;

impl Tape<'_, '_, '_> {
    /// The gradients of a block, behind a copy of those of its verbs that they look back at.
    pub(super) fn again(&mut self, all: Past, block: &Block) {
        let copies = self.copies(all, block);
        let verbs: Vec<Verb> = all.verbs[..block.verbs.start].iter().chain(&copies).copied().collect();
        let begin = self.e.verbs.len();
        self.walk(Past { verbs: &verbs, ..all }, block.verbs.clone());
        let back = self.e.verbs.split_off(begin);
        self.e.verbs.extend(needed(&copies, block.out, &back));
        self.e.verbs.extend(back);
    }

    /// The verbs of a block over buffers of their own, but for what others wrote and what it returned.
    fn copies(&mut self, all: Past, block: &Block) -> Vec<Verb> {
        let first = self.e.bufs.len() as u32;
        self.e.bufs.extend_from_within(block.bufs.start as usize..block.bufs.end as usize);
        self.grad.resize(self.e.bufs.len(), None);
        self.wanted.resize(first as usize, false);
        self.wanted.extend_from_within(block.bufs.start as usize..block.bufs.end as usize);
        let stays = |b: Buf| !block.bufs.contains(&b.0) || b == block.out || all.place(b).is_some();
        let copy = |verb: &Verb| {
            let mut verb = *verb;
            for b in verb.bufs_mut().filter(|b| !stays(**b)) {
                *b = Buf(first + b.0 - block.bufs.start);
            }
            verb
        };
        all.verbs[block.verbs.clone()].iter().map(copy).collect()
    }
}

/// Those of a block's verbs that fill what `back` reads, and what they read themselves; but `out`, which is still there.
fn needed(copies: &[Verb], out: Buf, back: &[Verb]) -> Vec<Verb> {
    let mut read: HashSet<Buf> = back.iter().flat_map(reads).collect();
    read.remove(&out);
    let (mut verbs, mut pages) = (Vec::new(), false);
    for verb in copies.iter().rev() {
        let wanted = match *verb {
            Verb::Append { .. } => pages,
            Verb::Attend { out, stat, .. } => {
                read.contains(&out) || stat.is_some_and(|stat| read.contains(&stat))
            }
            _ => verb.writes().is_some_and(|out| read.contains(&out)),
        };
        if wanted {
            pages |= matches!(verb, Verb::Attend { of: Of::Own { .. }, .. });
            read.extend(verb.reads());
            verbs.push(*verb);
        }
    }
    verbs.reverse();
    verbs
}

/// Buffers that a verb of either half reads.
fn reads(verb: &Verb) -> Vec<Buf> {
    match verb {
        Verb::Back(back) => back.reads(),
        verb => verb.reads().collect(),
    }
}
