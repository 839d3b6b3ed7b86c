//! Floor 4: memory of runs that only grows. Knows no programs.

use crate::engine::{Charge, Engine};
use crate::error::{Error, Result};
use kernels::Words;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Words that an engine's budget counts.
#[derive(Default)]
pub struct Room {
    words: Words,
    charge: Option<Charge>,
}

impl Room {
    /// Makes it `words` words long at least: zeros, where it was shorter.
    ///
    /// # Errors
    /// `Budget`, `Memory`: it is empty then.
    pub fn grow(&mut self, engine: &Arc<Engine>, what: &'static str, words: usize) -> Result<()> {
        if words <= self.words.len() {
            return Ok(());
        }
        let bytes = words as u64 * 4;
        // The old memory goes first: nothing in it is needed, and the peak stays low.
        *self = Room::default();
        let charge = engine.charge(what, bytes)?;
        self.words = Words::zeroed(words).ok_or(Error::Memory { what, bytes })?;
        self.charge = Some(charge);
        Ok(())
    }
}

impl Deref for Room {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.words
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.words
    }
}
