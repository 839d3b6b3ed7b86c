//! Floor 4: empty sequences that one run after another takes, each with its charge to the budget. Knows no model.

use crate::engine::{Charge, Engine};
use crate::error::Result;
use crate::state::{Pool, Sequence, pages_for};
use std::sync::Arc;

/// Sequences of one pool, and what the budget says of each. Who drops a row that has some closes it first, unless the pool
/// goes too.
#[derive(Default)]
pub struct Row {
    pub open: Vec<Sequence>,
    charges: Vec<Charge>,
}

impl Row {
    /// Makes the `i`-th sequence, which is there or is the next one, an empty one for `wanted` positions. One that is too
    /// short makes way for one of `room` positions, which the budget calls `what`.
    ///
    /// # Errors
    /// `Budget`; `Memory`. One that was too short is gone then.
    pub fn seat(
        &mut self,
        (engine, pool): (&Arc<Engine>, &mut Pool),
        what: &'static str,
        i: usize,
        [wanted, room]: [usize; 2],
    ) -> Result<()> {
        if let Some(seq) = self.open.get_mut(i) {
            if seq.limit >= wanted {
                pool.clear(seq);
                return Ok(());
            }
            pool.close(&mut self.open.swap_remove(i));
            self.charges.swap_remove(i);
        }
        let bytes = (pages_for(room) as u64).saturating_mul(pool.page_bytes());
        let charge = engine.charge(what, bytes)?;
        let last = self.open.len();
        self.open.push(pool.open(room)?);
        self.charges.push(charge);
        self.open.swap(i, last);
        self.charges.swap(i, last);
        Ok(())
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Makes all of them empty.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.open.iter_mut().for_each(|seq| pool.clear(seq));
    }

    /// Ends all of them.
    pub fn close(&mut self, pool: &mut Pool) {
        self.open.drain(..).for_each(|mut seq| pool.close(&mut seq));
        self.charges.clear();
    }
}
