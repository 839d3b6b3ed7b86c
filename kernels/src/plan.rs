//! Floor 0: a list of tasks that declare what they read and write, and the one parallel region that runs it. Knows
//! nothing of what the tasks compute.
//!
//! This is where safety comes from. A task is *data*: spans of shared memory with a cut each.
//! `Plan::new` checks every span and puts a barrier wherever two tasks touch the same words;
//! `Plan::run` hands each worker its own tile of what a task writes. A caller can therefore ask
//! for wrong numbers, but not for a race.

mod pieces;
pub use pieces::Pieces;

use crate::pages::{Pages, StateMut, StateRef};
use crate::team::Team;
pub use crate::tile::{Cell, Cut, TileMut};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};

/// Memories a run can have beside pages and scratch.
pub const MAX_MEMS: usize = 4;

/// Tasks of a stage that can be dealt in pieces, the first ones.
const DEALT: usize = 8;

/// Words between the scratch of two workers are a multiple of this: two cache lines, so that they never share one.
const SCRATCH_UNIT: usize = 32;

/// A dense `[rows, cols]` piece of memory number `mem`, in f32 words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Which memory.
    pub mem: usize,
    /// First word.
    pub at: usize,
    /// Rows.
    pub rows: usize,
    /// Words of a row.
    pub cols: usize,
}

impl Span {
    fn len(&self) -> usize {
        self.rows * self.cols
    }
    fn meets(&self, other: &Span) -> bool {
        let (a, b) = (self.at..self.at + self.len(), other.at..other.at + other.len());
        self.mem == other.mem && a.start < b.end && b.start < a.end
    }
}

/// One thing that a task touches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// All workers read the whole span.
    Read(Span),
    /// Each worker writes its tile.
    Write(Span, Cut),
    /// Workers write a tile of columns or blocks in pieces, the last of which go to whoever comes first.
    Deal(Span, Cut),
    /// All workers read one layer of the pages.
    ReadState(usize),
    /// Each worker writes its heads of one layer of the pages; a head has so many words.
    WriteState(usize, usize),
    /// Each worker has so many words of its own, with garbage in them.
    Scratch(usize),
}

/// What one task touches.
pub type Task = Vec<Access>;

/// Why a plan was refused or a run ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failed {
    /// Task `.0` reaches outside its memory.
    Bounds(usize),
    /// Task `.0` writes what it also reads, or writes it twice, deals out two spans, or has a cut that does not fit.
    Overlap(usize),
    /// Memory `.0` handed to `run` is shorter than the plan was checked for (`MAX_MEMS`: the scratch; one more: the pages).
    Memory(usize),
    /// Somebody set the cancel flag.
    Cancelled,
    /// A worker panicked; the numbers are garbage, the team is fine.
    Panicked,
}

/// A checked list of tasks with barriers between stages.
#[derive(Debug)]
pub struct Plan {
    tasks: Vec<Task>,
    stages: Vec<Range<usize>>,
    lens: Vec<usize>,
    layers: usize,
    layer_words: usize,
    scratch: usize,
}

/// The memory of a run.
pub struct Mems<'a> {
    /// By number, as spans name them.
    pub mems: &'a mut [&'a mut [f32]],
    /// Keys and values.
    pub pages: &'a mut Pages,
    /// At least `Plan::scratch_words(team.size())` words.
    pub scratch: &'a mut [f32],
}

impl Plan {
    /// `lens`: how many words each memory holds at least. Layers named by state accesses need only exist at `run`.
    pub fn new(tasks: Vec<Task>, lens: Vec<usize>) -> Result<Plan, Failed> {
        if lens.len() > MAX_MEMS {
            return Err(Failed::Memory(lens.len()));
        }
        let mut stages: Vec<Range<usize>> = Vec::new();
        let mut start = 0;
        for (i, task) in tasks.iter().enumerate() {
            check(task, &lens).map_err(|failed| failed(i))?;
            if tasks[start..i].iter().any(|earlier| conflict(earlier, task)) {
                stages.push(start..i);
                start = i;
            }
        }
        if start < tasks.len() {
            stages.push(start..tasks.len());
        }
        let (mut layers, mut layer_words, mut scratch) = (0, 0, 0);
        for access in tasks.iter().flatten() {
            match *access {
                Access::ReadState(layer) => layers = layers.max(layer + 1),
                Access::WriteState(layer, head) => {
                    (layers, layer_words) = (layers.max(layer + 1), layer_words.max(head))
                }
                Access::Scratch(words) => scratch = scratch.max(words.next_multiple_of(SCRATCH_UNIT)),
                Access::Read(_) | Access::Write(..) | Access::Deal(..) => {}
            }
        }
        Ok(Plan { tasks, stages, lens, layers, layer_words, scratch })
    }

    /// Runs of tasks between two barriers.
    #[must_use]
    pub fn stages(&self) -> &[Range<usize>] {
        &self.stages
    }

    /// Scratch that a run on `workers` workers needs.
    #[must_use]
    pub fn scratch_words(&self, workers: usize) -> usize {
        self.scratch.saturating_mul(workers)
    }

    /// Runs every task on every worker's tile, in one parallel region. `work` gets the task's
    /// number and the worker's part of it. `cancel` is looked at before every stage and by long kernels.
    pub fn run(
        &self,
        team: &Team,
        mems: Mems,
        cancel: &AtomicBool,
        work: &(dyn Fn(usize, Part) + Sync),
    ) -> Result<(), Failed> {
        let shared = self.share(team, mems)?;
        let (shared, panicked) = (&shared, AtomicBool::new(false));
        team.region(&|worker, barrier| {
            for (s, stage) in self.stages.iter().enumerate() {
                if s > 0 {
                    barrier.wait();
                }
                if cancel.load(Relaxed) || panicked.load(Relaxed) {
                    continue; // still meets the others at every barrier
                }
                // Those of the stage before are not needed any more, and those of the next one not yet.
                if worker == 0 {
                    shared.dealt[(s + 1) % 2].iter().for_each(|dealt| dealt.store(0, Relaxed));
                }
                for i in stage.clone() {
                    let dealt = shared.dealt[s % 2].get(i - stage.start);
                    let part = Part { task: &self.tasks[i], shared, worker, cancel, dealt, taken: 0 };
                    if catch_unwind(AssertUnwindSafe(|| work(i, part))).is_err() {
                        panicked.store(true, Relaxed);
                    }
                }
            }
        });
        match (panicked.load(Relaxed), cancel.load(Relaxed)) {
            (true, _) => Err(Failed::Panicked),
            (_, true) => Err(Failed::Cancelled),
            _ => Ok(()),
        }
    }

    fn share<'a>(&self, team: &Team, mems: Mems<'a>) -> Result<Shared<'a>, Failed> {
        if let Some(short) =
            (0..self.lens.len()).find(|&m| mems.mems.get(m).map_or(0, |x| x.len()) < self.lens[m])
        {
            return Err(Failed::Memory(short));
        }
        if mems.scratch.len() < self.scratch_words(team.size()) {
            return Err(Failed::Memory(MAX_MEMS));
        }
        if self.layers > mems.pages.layers() || self.layer_words > mems.pages.layer_words() {
            return Err(Failed::Memory(MAX_MEMS + 1));
        }
        let mut at = [std::ptr::null_mut(); MAX_MEMS];
        for (at, mem) in at.iter_mut().zip(mems.mems.iter_mut()) {
            *at = mem.as_mut_ptr();
        }
        Ok(Shared {
            mems: at,
            pages: mems.pages,
            scratch: mems.scratch.as_mut_ptr(),
            room: self.scratch,
            of: team.size(),
            dealt: Default::default(),
        })
    }
}

fn check(task: &Task, lens: &[usize]) -> Result<(), fn(usize) -> Failed> {
    for (i, access) in task.iter().enumerate() {
        let others = || task.iter().enumerate().filter(move |(j, _)| *j != i).map(|(_, other)| other);
        match *access {
            Access::Read(s) | Access::Write(s, _) | Access::Deal(s, _) => {
                let end = s.rows.checked_mul(s.cols).and_then(|len| s.at.checked_add(len));
                if s.mem >= lens.len() || end.is_none_or(|end| end > lens[s.mem]) {
                    return Err(Failed::Bounds);
                }
            }
            Access::WriteState(_, 0) => return Err(Failed::Overlap),
            _ => {}
        }
        let fits = match *access {
            Access::Deal(_, Cut::Pieces(_)) => false,
            Access::Write(s, cut) | Access::Deal(s, cut) => cut.fits(s.rows, s.cols),
            _ => true,
        };
        if !fits || (access.writes() && others().any(|other| access.meets(other))) {
            return Err(Failed::Overlap);
        }
        // A worker has one scratch, and what is dealt of a task has one count.
        if matches!(access, Access::Scratch(_)) && others().any(|other| matches!(other, Access::Scratch(_)))
            || matches!(access, Access::Deal(..)) && others().any(|other| matches!(other, Access::Deal(..)))
        {
            return Err(Failed::Overlap);
        }
    }
    Ok(())
}

impl Access {
    fn writes(&self) -> bool {
        matches!(self, Access::Write(..) | Access::Deal(..) | Access::WriteState(..))
    }

    fn meets(&self, other: &Access) -> bool {
        use Access::{Deal, Read, Write};
        match (self, other) {
            (Read(s) | Write(s, _) | Deal(s, _), Read(t) | Write(t, _) | Deal(t, _)) => s.meets(t),
            (
                Access::ReadState(a) | Access::WriteState(a, _),
                Access::ReadState(b) | Access::WriteState(b, _),
            ) => a == b,
            _ => false,
        }
    }
}

fn conflict(a: &Task, b: &Task) -> bool {
    a.iter().any(|x| b.iter().any(|y| (x.writes() || y.writes()) && x.meets(y)))
}

/// The memory of a run as the workers share it.
struct Shared<'a> {
    mems: [*mut f32; MAX_MEMS],
    pages: &'a Pages,
    scratch: *mut f32,
    /// Scratch words of one worker.
    room: usize,
    of: usize,
    /// Pieces that were dealt of each task of a stage, of stages with even and odd numbers.
    dealt: [[AtomicUsize; DEALT]; 2],
}
// SAFETY: only `Part` follows the pointers, within the bounds and under the rules `Plan` checked.
unsafe impl Sync for Shared<'_> {}

/// One worker's part of one task: the words it reads, and its tile of those it writes.
pub struct Part<'a> {
    task: &'a Task,
    shared: &'a Shared<'a>,
    worker: usize,
    cancel: &'a AtomicBool,
    dealt: Option<&'a AtomicUsize>,
    taken: u64,
}

impl<'a> Part<'a> {
    /// The whole of a span that the task declared as read. Panics if it did not.
    #[must_use]
    pub fn read(&self, span: Span) -> &'a [f32] {
        assert!(self.task.contains(&Access::Read(span)), "read of an undeclared span");
        // SAFETY: in bounds (checked by `Plan::new`, memory length by `run`). No task of this
        // stage writes it (a barrier would lie between), and this task does not (checked).
        unsafe { std::slice::from_raw_parts(self.shared.mems[span.mem].add(span.at), span.len()) }
    }

    /// This worker's tile of a span that the task declared as written. Panics if it did not, or if
    /// the tile was already taken.
    pub fn write(&mut self, span: Span) -> TileMut<'a> {
        let Access::Write(_, cut) = self.take(|a| matches!(a, Access::Write(s, _) if *s == span)) else {
            unreachable!("`take` found a write")
        };
        let place = [self.worker, self.shared.of];
        // SAFETY: the span is in bounds and nobody reads it or writes it another way in this stage (checked by
        // `Plan`); each worker takes its tile once.
        unsafe {
            let base = self.shared.mems[span.mem].add(span.at);
            TileMut::new(base, [span.rows, span.cols], cut, place, Some(self.cancel))
        }
    }

    /// This worker's pieces of a span that the task declared as dealt: what takes one worker longer than another is shared as
    /// it goes. Panics as [`Part::write`] does.
    pub fn pieces(&mut self, span: Span) -> Pieces<'a> {
        let Access::Deal(_, cut) = self.take(|a| matches!(a, Access::Deal(s, _) if *s == span)) else {
            unreachable!("`take` found what is dealt")
        };
        let place = [self.worker, self.shared.of];
        // SAFETY: the span is in bounds and nobody reads it or writes it another way in this stage (checked by `Plan`); each
        // worker takes its pieces once, and all are dealt from the task's one count.
        unsafe {
            Pieces::new(self.shared.mems[span.mem].add(span.at), span, cut, place, self.dealt, self.cancel)
        }
    }

    /// One layer of the pages, which the task declared as read. Panics if it did not.
    #[must_use]
    pub fn state(&self, layer: usize) -> StateRef<'a> {
        assert!(self.task.contains(&Access::ReadState(layer)), "read of an undeclared layer");
        // SAFETY: no task of this stage writes the layer: a barrier would lie between.
        unsafe { StateRef::new(self.shared.pages, layer) }
    }

    /// This worker's heads of one layer of the pages, which the task declared as written. Panics if it did not, or
    /// if they were already taken.
    pub fn state_mut(&mut self, layer: usize) -> StateMut<'a> {
        let Access::WriteState(_, head) = self.take(|a| matches!(a, Access::WriteState(l, _) if *l == layer))
        else {
            unreachable!("`take` found a state write")
        };
        let (heads, of) = (self.shared.pages.layer_words() / head, self.shared.of);
        let mine = heads * self.worker / of..heads * (self.worker + 1) / of;
        // SAFETY: no other task of this stage touches the layer, workers have different heads, each takes its once.
        unsafe { StateMut::new(self.shared.pages, layer, head, mine) }
    }

    /// This worker's scratch, with garbage in it. Panics where the task declared none, or if it was already taken.
    pub fn scratch(&mut self) -> &'a mut [f32] {
        let Access::Scratch(words) = self.take(|a| matches!(a, Access::Scratch(_))) else {
            unreachable!("`take` found scratch")
        };
        // SAFETY: `room >= words` words of each worker lie one after the other (length checked by `run`); a worker
        // runs one task at a time and takes its scratch once in each.
        unsafe {
            std::slice::from_raw_parts_mut(self.shared.scratch.add(self.worker * self.shared.room), words)
        }
    }

    fn take(&mut self, wanted: impl Fn(&Access) -> bool) -> Access {
        let i = self.task.iter().position(wanted).expect("use of something undeclared");
        assert!(i < 64 && self.taken & (1 << i) == 0, "a tile can be taken once");
        self.taken |= 1 << i;
        self.task[i]
    }
}

#[cfg(test)]
mod tests;
