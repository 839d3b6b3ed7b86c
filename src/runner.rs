//! Floor 4: runs batches through a model: programs by shape, the buffers they share, and the page pool. Knows no text.

mod adapters;
#[cfg(feature = "train")]
mod learning;
mod room;

use crate::adapter::{Grafts, Need};
use crate::arch::{Arch, Position, Side, Stack, check_ids};
use crate::engine::{Charge, Engine};
use crate::error::Result;
use crate::exec::{Lead, Shape, Want, Watched};
use crate::graft::Grafted;
use crate::learns::Learns;
pub use crate::program::Observe;
use crate::program::Program;
use crate::run::Ctx;
use crate::seats::Row;
use crate::state::{Pool, ROOT, Sequence};
use crate::tables::Tables;
use crate::weights::{P, StackW, Weights};
use kernels::attention::Cache;
use kernels::{Mems, Span, Team};
use room::Room;
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
    desk: Desk,
    /// That of the other stack, where what one computed is read after the other has run.
    aside: Desk,
    scratch: Room,
    /// What crosses between an encoder and its decoder, where both learn.
    crossing: Room,
    /// Empty sequences that nobody uses, for the next texts of an encoder.
    pub(crate) spare: Row,
    programs: Vec<Program>,
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
    grads: Room,
    /// Of what learns, the encoder's last run before a decoder.
    encoded: Option<Shape>,
}

/// What a stack's runs read and write that is theirs alone.
#[derive(Default)]
struct Desk {
    tables: Tables,
    bufs: Room,
}

impl Runner {
    /// Nothing is allocated yet; keys and values will be kept as `cache`.
    pub fn new(a: &Arch, cache: Cache) -> Runner {
        Runner {
            pool: Pool::new(a.kept_layers(), &a.heads(), cache),
            cache,
            desk: Desk::default(),
            aside: Desk::default(),
            scratch: Room::default(),
            crossing: Room::default(),
            spare: Row::default(),
            programs: Vec::new(),
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
            grads: Room::default(),
            encoded: None,
        }
    }

    /// One that keeps more than answers: see [`Runner::inputs`] and [`Runner::watched`].
    pub fn observing(a: &Arch, cache: Cache, observe: Observe) -> Runner {
        Runner { observe, ..Runner::new(a, cache) }
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
        self.face(mode);
        self.desk.tables.clear();
        (self.mean, self.lead) = (false, Lead::None);
    }

    /// Turns to another stack, or to another of its answers.
    fn face(&mut self, mode: Mode) {
        if self.learns.is_some() && mode.side != self.mode.side {
            std::mem::swap(&mut self.desk, &mut self.aside);
        }
        self.mode = mode;
    }

    /// Adds a feed to the batch and grows its pages; its sequence is as long as before until the caller adds the tokens
    /// to its length, after `go`. After an error the batch is as it was before.
    ///
    /// # Errors
    /// `ContextFull`; `Argument` for a token beyond the vocabulary.
    pub fn add(&mut self, parts: Parts, feed: &mut Feed) -> Result<()> {
        check_ids(self.stack(parts.arch).embed.vocab, feed.ids.iter().chain(feed.targets))?;
        self.pool.grow(feed.seq, feed.ids.len())?;
        let t = &mut self.desk.tables;
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
        if shape.learn && shape.side == Side::Encoder {
            self.encoded = Some(shape);
        }
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
            tables: &self.desk.tables,
        };
        let mems = &mut [&mut self.desk.bufs[..], &mut self.grads[..], &mut self.crossing[..]];
        let mems = Mems { mems, pages: self.pool.pages_mut(), scratch: &mut self.scratch };
        run(&self.programs[at], parts.engine.team(), mems, cancel, ctx)
    }

    /// Runs the encoder over `texts`, each into one of `seqs`, for a decoder that attends to them. On an error the sequences are
    /// as long as before.
    ///
    /// # Errors
    /// As [`Runner::add`] and [`Runner::go`].
    pub fn read<'a>(
        &mut self,
        parts: Parts,
        seqs: &mut [Sequence],
        texts: impl Iterator<Item = &'a [u32]> + Clone,
        grafts: Option<&Arc<Grafts>>,
        cancel: &AtomicBool,
    ) -> Result<()> {
        self.begin(Mode { side: Side::Encoder, want: Want::Hidden });
        for (seq, ids) in seqs.iter_mut().zip(texts.clone()) {
            self.add(parts, &mut Feed { grafts, ..Feed::new(seq, ids) })?;
        }
        self.go(parts, cancel)?;
        seqs.iter_mut().zip(texts).for_each(|(seq, ids)| seq.len = ids.len());
        Ok(())
    }

    /// Logits (or states) `[picks, n]` of the last run, which had `shape`.
    pub fn answer(&self, shape: Shape) -> &[f32] {
        self.held(self.programs.iter().find(|p| p.shape == shape).map(Program::answer))
    }

    /// `[picks, (log-probability of the target, log-sum-exp)]` of the last run, which had `shape`.
    pub fn logprobs(&self, shape: Shape) -> &[f32] {
        self.held(self.programs.iter().find(|p| p.shape == shape).and_then(Program::logprob))
    }

    /// What each linear read in the last run, which had `shape`: rows `[rows, k]`, with k. Nothing unless observed.
    pub fn inputs(&self, shape: Shape) -> Vec<(P, &[f32], usize)> {
        let program = self.programs.iter().find(|p| p.shape == shape);
        let rows = |(w, x): (P, Span)| (w, self.held(Some(x)), x.cols);
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
        let rows = |(w, x): (Watched, Span)| (w, self.held(Some(x)));
        program.map_or(Vec::new(), |p| p.watched().map(rows).collect())
    }

    /// Completes the tables with what the stack needs to know of the rows' positions.
    fn turn(&mut self, parts: Parts) -> Shape {
        let stack = self.stack(parts.arch);
        let t = &mut self.desk.tables;
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
        let learn = self.learns.is_some();
        if learn && !t.source_lens.is_empty() {
            t.place_sources();
        }
        Shape {
            rows: t.ids.len(),
            picks: if self.mean { t.seqs.len() } else { t.picks.len() },
            score: !t.targets.is_empty(),
            side: self.mode.side,
            want: self.mode.want,
            mean: self.mean,
            learn,
            sources: t.source_starts.last().map_or(0, |end| *end as usize),
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
        let (program, engine, what) = (&self.programs[at], parts.engine, "the buffers of one call");
        self.desk.bufs.grow(engine, what, program.words())?;
        self.scratch.grow(engine, what, program.scratch_words(engine.threads()))?;
        self.crossing.grow(engine, what, program.crossing_words())
    }

    /// What lies at a place of the buffers; nothing at none.
    fn held(&self, span: Option<Span>) -> &[f32] {
        span.map_or(&[], |span| &self.desk.bufs[span.at..span.at + span.rows * span.cols])
    }
}
