//! Floor 5: pretraining mixed into what a policy learns, so that it forgets less of the language (Ouyang et al. 2022, the last
//! term of eq. 2). Knows no rewards.

use crate::arch::{Arch, check_ids};
use crate::error::{Error, Result};
use crate::train::data::Lesson;
use crate::train::learner::Learner;
use crate::train::order::Order;
use crate::train::run::passes;
use crate::train::task::{NextToken, Task};
use std::sync::atomic::AtomicBool;

/// Whether a model can run lessons.
pub(super) fn check(arch: &Arch, lessons: &[Lesson]) -> Result<()> {
    for Lesson { source, ids, .. } in lessons {
        if arch.reads_source() == source.is_empty() {
            let what = "expected sources where the encoder reads them, and only there".to_owned();
            return Err(Error::Argument { name: "mix", what });
        }
        arch.check_len(source.len().max(ids.len().saturating_sub(1)))?;
        arch.check_ids(ids)?;
        check_ids(arch.first().embed.vocab, source)?;
    }
    Ok(())
}

/// Lessons of which some are learnt beside every minibatch.
pub struct Mix {
    task: NextToken,
    order: Order,
    coef: f64,
    batch: usize,
}

impl Mix {
    /// Of `lessons`, `batch` of them in each minibatch, in an order that `seed` decides; the mean loss of their tokens counts
    /// `coef` times.
    ///
    /// # Errors
    /// `Argument` as [`NextToken::new`], and for a weight or a number that is not above 0.
    pub fn new(lessons: Vec<Lesson>, coef: f64, batch: usize, seed: u64) -> Result<Mix> {
        if !(coef > 0.0 && coef.is_finite()) || batch == 0 {
            let what = format!("expected a weight and a number above 0, found {coef} and {batch}");
            return Err(Error::Argument { name: "mix", what });
        }
        let task = NextToken::new(lessons, 0.0)?;
        let order = Order::new(task.examples(), seed);
        Ok(Mix { task, order, coef, batch })
    }

    /// Adds the gradients of the lessons of the minibatch after `done` others, in passes of up to `most` tokens. Returns the mean
    /// loss of their tokens, in nats, without its weight.
    ///
    /// # Errors
    /// As [`Learner::forward`] and [`Learner::backward`].
    pub fn pass(
        &mut self,
        learner: &mut Learner,
        done: u64,
        most: usize,
        cancel: &AtomicBool,
    ) -> Result<f64> {
        let first = done * self.batch as u64;
        let lessons: Vec<usize> = (0..self.batch as u64).map(|i| self.order.at(first + i)).collect();
        let (loss, _) = passes(&mut self.task, learner, &lessons, self.coef, most, cancel)?;
        Ok(loss / self.coef)
    }
}
