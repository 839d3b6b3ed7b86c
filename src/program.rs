//! Floor 4: a program: the list of verbs for one shape, checked, laid out and ready to run.

use crate::adapter::Need;
use crate::arch::Arch;
#[cfg(feature = "train")]
use crate::backward;
use crate::block;
use crate::error::{Error, Result};
use crate::exec::{Exec, Lead, Shape, Watched};
use crate::fuse::fuse;
use crate::layout::Layout;
use crate::learns::Learns;
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
    /// The half that computes gradients, and its first verb.
    #[cfg(feature = "train")]
    back: (Plan, usize),
    answer: Buf,
    logprob: Option<Buf>,
    #[cfg_attr(not(feature = "train"), expect(dead_code))]
    values: Option<Buf>,
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
    /// Writes, checks and lays out the program of a shape, for rows whose adapters need `needs`. What `observe` says stays
    /// until the next run; of a shape that learns, what `learns` says gets gradients.
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
        learns: &Learns,
        needs: Option<&[Need]>,
    ) -> Result<Program> {
        let mut e = Exec::new(a, ops, shape, needs.map(|needs| (&m.sites, needs)));
        let (stack, answer) =
            (e.stack(), if shape.lead == Lead::Prefix { e.prefix() } else { block::model(&mut e, m) });
        let logprob = shape.score.then(|| e.logprob(answer));
        let forward = e.verbs.len();
        #[cfg(feature = "train")]
        if shape.learn {
            let distances = e.stack_of(m).distances;
            let ends = backward::Ends { answer, scored: shape.score, values: e.values, distances };
            backward::backward(&mut e, learns, ends);
        }
        let Exec { verbs, bufs, values, crossing, .. } = e;
        let inputs = if observe == Observe::Inputs { e.inputs } else { Vec::new() };
        let watched = if observe == Observe::Attention { e.watched } else { Vec::new() };

        let kept = [Some(answer), logprob, values].into_iter().flatten();
        let kept: Vec<Buf> =
            kept.chain(inputs.iter().map(|(_, x)| *x)).chain(watched.iter().map(|(_, x)| *x)).collect();
        // What learns looks back at everything.
        let (cols, kind) = (|b: Buf| bufs[b.0 as usize].1, |p: P| m.params[p.0 as usize].k_dtype());
        let verbs = if shape.learn { verbs } else { fuse(verbs, &cols, &|a, b| kind(a) == kind(b), &kept) };
        let forward = forward.min(verbs.len());
        let tasks = |l: &Layout| -> Vec<Task> { verbs.iter().map(|v| v.task(l)).collect() };
        let apart = Layout::apart(a, stack, m, ops, cache, &bufs, &crossing, learns)?;
        let all = tasks(&apart);
        let whole = Plan::new(all.clone(), vec![apart.len, learns.words, apart.crossing]).map_err(refused)?;
        let layout = apart.share(&all, whole.stages(), &kept);
        let mut all = tasks(&layout);
        let lens = [layout.len, learns.words, layout.crossing];
        let plan = |tasks| Plan::new(tasks, lens.to_vec()).map_err(refused);
        let _back = plan(all.split_off(forward))?;
        let plan = plan(all)?;
        Ok(Program {
            shape,
            verbs,
            layout,
            plan,
            #[cfg(feature = "train")]
            back: (_back, forward),
            answer,
            logprob,
            values,
            inputs,
            watched,
        })
    }

    /// Words of its buffers.
    pub fn words(&self) -> usize {
        self.layout.len
    }

    /// Words of what crosses to the program of the other stack.
    pub fn crossing_words(&self) -> usize {
        self.layout.crossing
    }

    /// Scratch words on `workers` workers.
    pub fn scratch_words(&self, workers: usize) -> usize {
        #[cfg(feature = "train")]
        return self.plan.scratch_words(workers).max(self.back.0.scratch_words(workers));
        #[cfg(not(feature = "train"))]
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

    /// Where what the value head said `[picks, 1]` is after a run of a model that has one.
    #[cfg(feature = "train")]
    pub fn values(&self) -> Option<Span> {
        self.values.map(|b| self.layout.buf(b))
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
        self.go(&self.plan, 0, team, mems, cancel, c)
    }

    /// Runs the backward half over what the last run left, in one parallel region.
    ///
    /// # Errors
    /// As [`Program::run`].
    #[cfg(feature = "train")]
    pub fn run_back(&self, team: &Team, mems: Mems, cancel: &AtomicBool, c: Ctx) -> Result<()> {
        self.go(&self.back.0, self.back.1, team, mems, cancel, c)
    }

    fn go(
        &self,
        plan: &Plan,
        first: usize,
        team: &Team,
        mems: Mems,
        cancel: &AtomicBool,
        c: Ctx,
    ) -> Result<()> {
        let work = |i: usize, mut part: kernels::Part| {
            run::verb(&self.verbs[first + i], &mut part, &c, &self.layout)
        };
        plan.run(team, mems, cancel, &work).map_err(|failed| match failed {
            Failed::Cancelled => Error::Cancelled,
            other => refused(other),
        })
    }
}

fn refused(failed: Failed) -> Error {
    Error::Internal(format!("a program failed: {failed:?}"))
}
