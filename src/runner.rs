//! Floor 4: runs batches through a model: programs by shape, the buffers they share, and the page pool. Knows no text.

mod adapters;

use crate::adapter::{Grafts, Need};
use crate::arch::{Arch, Position, Side, Stack, check_ids};
use crate::engine::{Charge, Engine};
use crate::error::{Error, Result};
use crate::exec::{Lead, Shape, Want, Watched};
use crate::graft::Grafted;
use crate::learns::Learns;
pub use crate::program::Observe;
use crate::program::Program;
use crate::run::Ctx;
use crate::state::{Pool, ROOT, Sequence};
use crate::tables::Tables;
use crate::weights::{P, StackW, Weights};
use kernels::attention::Cache;
use kernels::{Mems, Span, Team, Words};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

/// Programs kept: the few shapes of a host's prompts, and its decode steps: one for each number of sessions that step
/// together, and for each length of a draft.
const PROGRAMS: usize = 32;

/// Rows whose logits are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pick {
    /// None: the tokens only fill the cache.
    None,
    /// The first one.
    First,
    /// The last one.
    Last,
    /// All.
    All,
    /// Those that the feed has chosen.
    Rows,
    /// The mean of all; of every feed of the batch.
    Mean,
}

impl<'a> Feed<'a> {
    /// Tokens of a sequence of which nothing is wanted.
    pub fn new(seq: &'a mut Sequence, ids: &'a [u32]) -> Feed<'a> {
        Feed { seq, ids, source: None, types: &[], pick: Pick::None, chosen: &[], targets: &[], grafts: None }
    }
}

/// What a batch runs, and what it returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mode {
    /// Which stack.
    pub side: Side,
    /// What of it.
    pub want: Want,
}

impl Mode {
    /// Logits of a decoder.
    pub const DECODE: Mode = Mode { side: Side::Decoder, want: Want::Head };
}

/// New tokens of one sequence.
pub struct Feed<'a> {
    /// Whose they are.
    pub seq: &'a mut Sequence,
    /// At least one token, each below the vocabulary.
    pub ids: &'a [u32],
    /// What its decoder attends to, where the model has an encoder.
    pub source: Option<&'a Sequence>,
    /// Types of the tokens, where the model knows any; those that are missing are 0.
    pub types: &'a [u32],
    /// Rows whose logits are wanted.
    pub pick: Pick,
    /// With `Pick::Rows`: which, by their place among `ids`.
    pub chosen: &'a [u32],
    /// With `Pick::All` or `Pick::Rows`: for each picked row, the token whose log-probability is wanted; else empty.
    pub targets: &'a [u32],
    /// The adapters of these rows.
    pub grafts: Option<&'a Arc<Grafts>>,
}

/// What a run needs of its model.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    pub(crate) engine: &'a Arc<Engine>,
    pub(crate) arch: &'a Arch,
    pub(crate) weights: &'a Weights,
    /// Of rope, of all blocks and of those with a window; empty without.
    pub(crate) inv_freq: &'a [Vec<f32>; 2],
}

/// Weights with adapters in them.
pub struct Merged {
    pub(crate) weights: Weights,
    pub(crate) _charge: Charge,
}

/// The memory of a model's runs; one run at a time.
pub struct Runner {
    /// Keys and values of all sequences.
    pub pool: Pool,
    cache: Cache,
    bufs: Words,
    scratch: Words,
    charge: Option<Charge>,
    /// Empty sequences that nobody uses, for the next texts of an encoder.
    pub(crate) spare: Vec<(Sequence, Charge)>,
    programs: Vec<Program>,
    tables: Tables,
    /// What adapters of a batch's rows needed, by place; `Shape::graft` counts from 1.
    needs: Vec<Vec<Need>>,
    /// The same of the batch that is put together.
    now: Vec<Need>,
    /// Adapters that somebody uses, and the number that names the next ones.
    sets: Vec<Weak<Grafts>>,
    next_root: u32,
    /// Weights that adapters were merged into, in place of the model's own.
    merged: Option<Arc<Merged>>,
    /// Times that weights were merged or taken back.
    epoch: u64,
    mode: Mode,
    /// What the rows of the batch are.
    lead: Lead,
    mean: bool,
    /// Whether what linears read stays until the next run.
    observe: Observe,
    /// What learns, where its programs have a backward half.
    learns: Option<Learns>,
    grads: Words,
    _grads_charge: Option<Charge>,
}

impl Runner {
    /// Nothing is allocated yet; keys and values will be kept as `cache`.
    pub fn new(a: &Arch, cache: Cache) -> Runner {
        Runner {
            pool: Pool::new(a.kept_layers(), &a.heads(), cache),
            cache,
            bufs: Words::default(),
            scratch: Words::default(),
            charge: None,
            spare: Vec::new(),
            programs: Vec::new(),
            tables: Tables::default(),
            needs: Vec::new(),
            now: Vec::new(),
            sets: Vec::new(),
            next_root: ROOT - 1,
            merged: None,
            epoch: 0,
            mode: Mode::DECODE,
            lead: Lead::None,
            mean: false,
            observe: Observe::Nothing,
            learns: None,
            grads: Words::default(),
            _grads_charge: None,
        }
    }

    /// One that keeps more than answers: see [`Runner::inputs`] and [`Runner::watched`].
    pub fn observing(a: &Arch, cache: Cache, observe: Observe) -> Runner {
        Runner { observe, ..Runner::new(a, cache) }
    }

    /// One whose programs have a backward half, for the gradients of what `learns` says: see [`Runner::run_back`].
    ///
    /// # Errors
    /// `Budget`; `Memory`.
    #[cfg(feature = "train")]
    pub fn learning(a: &Arch, cache: Cache, learns: Learns, engine: &Arc<Engine>) -> Result<Runner> {
        let (what, bytes) = ("gradients", learns.words as u64 * 4);
        let _grads_charge = Some(engine.charge(what, bytes)?);
        let grads = Words::zeroed(learns.words).ok_or(Error::Memory { what, bytes })?;
        Ok(Runner { learns: Some(learns), grads, _grads_charge, ..Runner::new(a, cache) })
    }

    /// Bytes that a run of `shape` takes beside weights and pages.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn run_bytes(&mut self, parts: Parts, shape: Shape) -> Result<u64> {
        let threads = parts.engine.threads();
        let at = self.program(parts, shape)?;
        let program = &self.programs[at];
        Ok((program.words() + program.scratch_words(threads)) as u64 * 4)
    }

    /// Runs one feed of a decoder. Logits `[picks, vocab]` stay until the next run; see [`Runner::answer`]. On an error
    /// the sequence is as long as before.
    ///
    /// # Errors
    /// `ContextFull`, `Memory`, `Budget`, `Cancelled`; `Argument` for a token beyond the vocabulary.
    pub fn run(&mut self, parts: Parts, mut feed: Feed, cancel: &AtomicBool) -> Result<Shape> {
        self.begin(Mode::DECODE);
        self.add(parts, &mut feed)?;
        let shape = self.go(parts, cancel)?;
        feed.seq.len += feed.ids.len();
        Ok(shape)
    }

    /// Begins a batch: feeds are added one by one, then [`Runner::go`] runs them. Nothing is allocated for it, which a list
    /// of feeds would need.
    pub fn begin(&mut self, mode: Mode) {
        self.tables.clear();
        (self.mode, self.mean, self.lead) = (mode, false, Lead::None);
    }

    /// Adds a feed to the batch and grows its pages; its sequence is as long as before until the caller adds the tokens
    /// to its length, after `go`. After an error the batch is as it was before.
    ///
    /// # Errors
    /// `ContextFull`; `Argument` for a token beyond the vocabulary.
    pub fn add(&mut self, parts: Parts, feed: &mut Feed) -> Result<()> {
        check_ids(self.stack(parts.arch).embed.vocab, feed.ids.iter().chain(feed.targets))?;
        self.pool.grow(feed.seq, feed.ids.len())?;
        let t = &mut self.tables;
        let (first, picked) = (t.ids.len() as u32, t.picks.len());
        t.feed(feed.seq, feed.ids, feed.types);
        if let Some(source) = feed.source {
            t.source(source);
        }
        let end = t.ids.len() as u32;
        match feed.pick {
            Pick::None => {}
            Pick::Mean => self.mean = true,
            Pick::First => t.picks.push(first),
            Pick::Rows => t.picks.extend(feed.chosen.iter().map(|row| first + row)),
            Pick::Last => t.picks.push(end - 1),
            Pick::All => t.picks.extend(first..end),
        }
        t.targets.extend_from_slice(feed.targets);
        if let Some(by) = feed.grafts {
            let seq = t.seqs.len();
            let picks = if feed.pick == Pick::Mean { seq - 1..seq } else { picked..t.picks.len() };
            t.grafted.push(Grafted { rows: first as usize..end as usize, picks, by: by.clone() });
        }
        Ok(())
    }

    /// Runs the batch. Logits (or states) `[picks, n]` of all feeds, one after the other, stay until the next run.
    ///
    /// # Errors
    /// `Memory`, `Budget`, `Cancelled`.
    pub fn go(&mut self, parts: Parts, cancel: &AtomicBool) -> Result<Shape> {
        let merged = self.merged.clone();
        let parts = merged.as_ref().map_or(parts, |merged| Parts { weights: &merged.weights, ..parts });
        let graft = self.graft();
        let shape = Shape { graft, ..self.turn(parts) };
        let at = self.program(parts, shape)?;
        self.reserve(parts, at)?;
        self.pass(parts, at, cancel, Program::run)?;
        Ok(shape)
    }

    fn pass(
        &mut self,
        parts: Parts,
        at: usize,
        cancel: &AtomicBool,
        run: fn(&Program, &Team, Mems, &AtomicBool, Ctx) -> Result<()>,
    ) -> Result<()> {
        let ctx = Ctx {
            arch: parts.arch,
            stack: self.stack(parts.arch),
            weights: parts.weights,
            own: self.own(parts.weights),
            ops: parts.engine.ops(),
            cache: self.cache,
            tables: &self.tables,
        };
        let mems = &mut [&mut self.bufs[..], &mut self.grads[..]];
        let mems = Mems { mems, pages: self.pool.pages_mut(), scratch: &mut self.scratch };
        run(&self.programs[at], parts.engine.team(), mems, cancel, ctx)
    }

    /// Adds the gradients of what the last run computed, which had `shape`, to those that are held: of the loss whose
    /// derivatives are `seeds`, three for each picked row: by the log-probability of its target, by the mean
    /// log-probability of the vocabulary, by the entropy; where nothing was scored, one for each element of the answer. And
    /// `values`: by what the value head said, one for each picked row.
    ///
    /// # Errors
    /// `Argument` for another number of seeds; `Cancelled`: then the gradients are garbage.
    #[cfg(feature = "train")]
    pub fn run_back(
        &mut self,
        parts: Parts,
        shape: Shape,
        seeds: &[f32],
        values: &[f32],
        cancel: &AtomicBool,
    ) -> Result<()> {
        let at = self.programs.iter().position(|p| p.shape == shape && shape.learn);
        let at = at.ok_or(Error::Argument { name: "shape", what: "nothing ran that learns".to_owned() })?;
        let program = &self.programs[at];
        let answer = program.answer();
        let wanted = if shape.score { answer.rows * 3 } else { answer.rows * answer.cols };
        let of_values = program.values().map_or(0, |span| span.rows);
        if (seeds.len(), values.len()) != (wanted, of_values) {
            let found = (seeds.len(), values.len());
            let what = format!("expected {wanted} and {of_values} of values, found {found:?}");
            return Err(Error::Argument { name: "seeds", what });
        }
        let t = &mut self.tables;
        t.seeds.clear();
        t.value_seeds.clear();
        t.seeds.extend_from_slice(seeds);
        t.value_seeds.extend_from_slice(values);
        self.pass(parts, at, cancel, Program::run_back)
    }

    /// What the value head said of the picked rows in the last run, which had `shape`.
    #[cfg(feature = "train")]
    pub fn values(&self, shape: Shape) -> &[f32] {
        let span = self.programs.iter().find(|p| p.shape == shape).and_then(Program::values);
        span.map_or(&[], |span| &self.bufs[span.at..span.at + span.rows * span.cols])
    }

    /// The gradients that are held, as [`Learns`] says where; and what learns.
    #[cfg(feature = "train")]
    pub fn grads_mut(&mut self) -> (&mut [f32], &Learns) {
        static NONE: Learns = Learns::NONE;
        (&mut self.grads, self.learns.as_ref().unwrap_or(&NONE))
    }

    /// Logits (or states) `[picks, n]` of the last run, which had `shape`.
    pub fn answer(&self, shape: Shape) -> &[f32] {
        self.programs.iter().find(|p| p.shape == shape).map_or(&[], |p| {
            let span = p.answer();
            &self.bufs[span.at..span.at + span.rows * span.cols]
        })
    }

    /// `[picks, (log-probability of the target, log-sum-exp)]` of the last run, which had `shape`.
    pub fn logprobs(&self, shape: Shape) -> &[f32] {
        let span = self.programs.iter().find(|p| p.shape == shape).and_then(Program::logprob);
        span.map_or(&[], |span| &self.bufs[span.at..span.at + span.rows * span.cols])
    }

    /// What each linear read in the last run, which had `shape`: rows `[rows, k]`, with k. Nothing unless observed.
    pub fn inputs(&self, shape: Shape) -> Vec<(P, &[f32], usize)> {
        let program = self.programs.iter().find(|p| p.shape == shape);
        let rows = |(w, x): (P, Span)| (w, &self.bufs[x.at..x.at + x.rows * x.cols], x.cols);
        program.map_or(Vec::new(), |p| p.inputs().map(rows).collect())
    }

    /// The stack that the batch runs. Panics where the model has none of that side.
    fn stack<'a>(&self, a: &'a Arch) -> &'a Stack {
        a.side(self.mode.side).expect("a stack that the model has")
    }

    fn own<'a>(&self, m: &'a Weights) -> &'a StackW {
        m.side(self.mode.side).expect("parameters of each stack")
    }

    /// Queries and keys of every block in the last run, which had `shape`. Nothing unless observed.
    pub fn watched(&self, shape: Shape) -> Vec<(Watched, &[f32])> {
        let program = self.programs.iter().find(|p| p.shape == shape);
        let rows = |(w, x): (Watched, Span)| (w, &self.bufs[x.at..x.at + x.rows * x.cols]);
        program.map_or(Vec::new(), |p| p.watched().map(rows).collect())
    }

    /// Completes the tables with what the stack needs to know of the rows' positions.
    fn turn(&mut self, parts: Parts) -> Shape {
        let stack = self.stack(parts.arch);
        let t = &mut self.tables;
        if let Position::Rope { all, local } = &stack.position {
            for (i, rope) in [Some(all), local.as_ref()].into_iter().enumerate() {
                let Some(rope) = rope else { continue };
                let turns = &mut t.turns[i];
                turns.resize(t.ids.len() * rope.rot_dim, 0.0);
                for (out, pos) in turns.chunks_exact_mut(rope.rot_dim).zip(&t.positions) {
                    kernels::rope::turns(&parts.inv_freq[i], *pos, rope.scale, out);
                }
            }
        }
        if let Some((_, offset, pad)) = stack.table() {
            t.place(offset as u32, pad);
        }
        Shape {
            rows: t.ids.len(),
            picks: if self.mean { t.seqs.len() } else { t.picks.len() },
            score: !t.targets.is_empty(),
            side: self.mode.side,
            want: self.mode.want,
            mean: self.mean,
            learn: self.learns.is_some(),
            graft: 0,
            lead: self.lead,
        }
    }

    /// Number of the program of a shape; the least recently used one makes room for a new one.
    fn program(&mut self, parts: Parts, shape: Shape) -> Result<usize> {
        if let Some(at) = self.programs.iter().position(|p| p.shape == shape) {
            let last = self.programs.len() - 1;
            self.programs[at..].rotate_left(1);
            return Ok(last);
        }
        static NONE: Learns = Learns::NONE;
        let learns = self.learns.as_ref().unwrap_or(&NONE);
        let needs = (shape.graft as usize).checked_sub(1).and_then(|at| self.needs.get(at));
        let needs = needs.map(|needs| &needs[..]);
        let (arch, weights, ops) = (parts.arch, parts.weights, parts.engine.ops());
        let program = Program::new(arch, weights, ops, self.cache, shape, self.observe, learns, needs)?;
        if self.programs.len() == PROGRAMS {
            self.programs.remove(0);
        }
        self.programs.push(program);
        Ok(self.programs.len() - 1)
    }

    /// Memory for a program; it only grows, so that alternating shapes share it.
    fn reserve(&mut self, parts: Parts, at: usize) -> Result<()> {
        let (words, scratch) =
            (self.programs[at].words(), self.programs[at].scratch_words(parts.engine.threads()));
        if words <= self.bufs.len() && scratch <= self.scratch.len() {
            return Ok(());
        }
        let (words, scratch) = (words.max(self.bufs.len()), scratch.max(self.scratch.len()));
        let bytes = (words as u64 + scratch as u64) * 4;
        let what = "the buffers of one call";
        // The old memory goes first: nothing in it is needed, and the peak stays low.
        (self.bufs, self.scratch, self.charge) = (Words::default(), Words::default(), None);
        let charge = parts.engine.charge(what, bytes)?;
        let refused = || Error::Memory { what, bytes };
        self.bufs = Words::zeroed(words).ok_or_else(refused)?;
        self.scratch = Words::zeroed(scratch).ok_or_else(refused)?;
        self.charge = Some(charge);
        Ok(())
    }
}
