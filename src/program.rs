//! Floor 4: a program: the list of verbs for one shape, checked, laid out and ready to run.

use crate::arch::Arch;
use crate::block;
use crate::error::{Error, Result};
use crate::exec::{Exec, Shape, Watched};
use crate::layout::Layout;
use crate::run::{self, Ctx};
use crate::verb::{Buf, Verb};
use crate::weights::{P, Weights};
use kernels::attention::Cache;
use kernels::{Failed, Mems, Ops, Plan, Span, Task, Team};
use std::sync::atomic::AtomicBool;

/// A straight-line list of verbs for one shape.
pub struct Program {
    /// What it was written for.
    pub shape: Shape,
    verbs: Vec<Verb>,
    layout: Layout,
    plan: Plan,
    answer: Buf,
    logprob: Option<Buf>,
    /// What linears read, where that stays until the next run.
    inputs: Vec<(P, Buf)>,
    /// What attention compares, where that stays until the next run.
    watched: Vec<(Watched, Buf)>,
}

/// What else of a run stays until the next one, beside its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observe {
    /// Nothing.
    Nothing,
    /// What linears read.
    Inputs,
    /// Queries and keys.
    Attention,
}

impl Program {
    /// Writes, checks and lays out the program of a shape. What `observe` says stays until the next run.
    ///
    /// # Errors
    /// `Memory` where sizes overflow; `Internal` where the plan refuses the program (a bug).
    pub fn new(
        a: &Arch,
        m: &Weights,
        ops: &'static Ops,
        cache: Cache,
        shape: Shape,
        observe: Observe,
    ) -> Result<Program> {
        let mut e = Exec::new(a, ops, shape);
        let (stack, answer) = (e.stack(), block::model(&mut e, m));
        let logprob = shape.score.then(|| e.logprob(answer));
        let (verbs, bufs) = (e.verbs, e.bufs);
        let inputs = if observe == Observe::Inputs { e.inputs } else { Vec::new() };
        let watched = if observe == Observe::Attention { e.watched } else { Vec::new() };

        let tasks = |l: &Layout| -> Vec<Task> { verbs.iter().map(|v| v.task(l)).collect() };
        let apart = Layout::apart(a, stack, m, ops, cache, &bufs)?;
        let whole = Plan::new(tasks(&apart), vec![apart.len]).map_err(refused)?;
        let kept = [Some(answer), logprob].into_iter().flatten();
        let kept: Vec<Buf> =
            kept.chain(inputs.iter().map(|(_, x)| *x)).chain(watched.iter().map(|(_, x)| *x)).collect();
        let all = tasks(&apart);
        let layout = apart.share(&all, whole.stages(), &kept);
        let plan = Plan::new(tasks(&layout), vec![layout.len]).map_err(refused)?;
        Ok(Program { shape, verbs, layout, plan, answer, logprob, inputs, watched })
    }

    /// Words of its buffers.
    pub fn words(&self) -> usize {
        self.layout.len
    }

    /// Scratch words on `workers` workers.
    pub fn scratch_words(&self, workers: usize) -> usize {
        self.plan.scratch_words(workers)
    }

    /// Where the logits (or the states) of the picked rows are after a run, `[picks, n]`.
    pub fn answer(&self) -> Span {
        self.layout.buf(self.answer)
    }

    /// Where `[picks, (log-probability, log-sum-exp)]` is after a run of a program that scores.
    pub fn logprob(&self) -> Option<Span> {
        self.logprob.map(|b| self.layout.buf(b))
    }

    /// Where what each linear read is after a run, of a program that observes.
    pub fn inputs(&self) -> impl Iterator<Item = (P, Span)> {
        self.inputs.iter().map(|(w, x)| (*w, self.layout.buf(*x)))
    }

    /// Queries and keys after a run, of a program that observes attention.
    pub fn watched(&self) -> impl Iterator<Item = (Watched, Span)> {
        self.watched.iter().map(|(w, x)| (*w, self.layout.buf(*x)))
    }

    /// Runs all verbs in one parallel region.
    ///
    /// # Errors
    /// `Cancelled`; `Internal` where a worker panicked.
    pub fn run(&self, team: &Team, mems: Mems, cancel: &AtomicBool, c: Ctx) -> Result<()> {
        let work = |i: usize, mut part: kernels::Part| run::verb(&self.verbs[i], &mut part, &c, &self.layout);
        self.plan.run(team, mems, cancel, &work).map_err(|failed| match failed {
            Failed::Cancelled => Error::Cancelled,
            other => refused(other),
        })
    }
}

fn refused(failed: Failed) -> Error {
    Error::Internal(format!("a program failed: {failed:?}"))
}
