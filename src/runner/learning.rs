//! Floor 4: runs of what learns: gradients after answers. Knows no losses.
//!
//! An encoder and the decoder that attends to it are two programs, run one after the other. What the encoder's backward half
//! reads stays until the decoder's has run: each stack has buffers and tables of its own, and only keys and values of sources,
//! with their gradients, lie where both programs find them.

use super::{Mode, Parts, Runner};
use crate::arch::{Arch, Side};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::exec::{Shape, Want};
use crate::learns::Learns;
use crate::program::Program;
use kernels::attention::Cache;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

impl Runner {
    /// One whose programs have a backward half, for the gradients of what `learns` says: see [`Runner::run_back`].
    ///
    /// # Errors
    /// `Budget`; `Memory`.
    pub fn learning(a: &Arch, cache: Cache, learns: Learns, engine: &Arc<Engine>) -> Result<Runner> {
        let mut runner = Runner::new(a, cache);
        runner.grads.grow(engine, "gradients", learns.words)?;
        runner.learns = Some(learns);
        Ok(runner)
    }

    /// Adds the gradients of what the last run computed, which had `shape`, to those that are held: of the loss whose
    /// derivatives are `seeds`, three for each picked row: by the log-probability of its target, by the mean
    /// log-probability of the vocabulary, by the entropy; where nothing was scored, one for each element of the answer. And
    /// `values`: by what the value head said, one for each picked row. Of a decoder that attended to sources, those of the
    /// encoder's last run as well: it had these sources, all of each, one after the other.
    ///
    /// # Errors
    /// `Argument` for another number of seeds; `Cancelled`: then the gradients are garbage.
    pub fn run_back(
        &mut self,
        parts: Parts,
        shape: Shape,
        seeds: &[f32],
        values: &[f32],
        cancel: &AtomicBool,
    ) -> Result<()> {
        let at = self.learned(Some(shape))?;
        let program = &self.programs[at];
        let answer = program.answer();
        let wanted = if shape.score { answer.rows * 3 } else { answer.rows * answer.cols };
        let of_values = program.values().map_or(0, |span| span.rows);
        if (seeds.len(), values.len()) != (wanted, of_values) {
            let found = (seeds.len(), values.len());
            let what = format!("expected {wanted} and {of_values} of values, found {found:?}");
            return Err(Error::Argument { name: "seeds", what });
        }
        let t = &mut self.desk.tables;
        t.seeds.clear();
        t.value_seeds.clear();
        t.seeds.extend_from_slice(seeds);
        t.value_seeds.extend_from_slice(values);
        self.pass(parts, at, cancel, Program::run_back)?;
        if shape.sources == 0 || !self.learns.as_ref().is_some_and(|learns| learns.encoder) {
            return Ok(());
        }
        let (at, mode) = (self.learned(self.encoded)?, self.mode);
        self.face(Mode { side: Side::Encoder, want: Want::Hidden });
        let ran = self.pass(parts, at, cancel, Program::run_back);
        self.face(mode);
        ran
    }

    /// Number of a program that ran and learns.
    fn learned(&self, shape: Option<Shape>) -> Result<usize> {
        let at = self.programs.iter().position(|p| Some(p.shape) == shape && p.shape.learn);
        at.ok_or(Error::Argument { name: "shape", what: "nothing ran that learns".to_owned() })
    }

    /// What the value head said of the picked rows in the last run, which had `shape`.
    pub fn values(&self, shape: Shape) -> &[f32] {
        self.held(self.programs.iter().find(|p| p.shape == shape).and_then(Program::values))
    }

    /// Bytes of the buffers that runs have taken so far: of both stacks, and of what crosses between them.
    pub fn buffer_bytes(&self) -> u64 {
        let words = self.desk.bufs.len() + self.aside.bufs.len() + self.crossing.len();
        words as u64 * 4
    }

    /// The gradients that are held, as [`Learns`] says where; and what learns.
    pub fn grads_mut(&mut self) -> (&mut [f32], &Learns) {
        static NONE: Learns = Learns::NONE;
        (&mut self.grads, self.learns.as_ref().unwrap_or(&NONE))
    }
}
