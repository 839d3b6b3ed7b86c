//! Floor 5: one step of several sessions in one pass over the weights. Knows no tensors and no text.
//!
//! Decoding reads every weight for a handful of multiplications; sessions that step together share that reading. Prompts
//! that wait run in the same pass, ragged. Rows do not touch each other, so each session gets the bits it gets alone.

use super::Session;
use super::score::LOGITS;
use crate::error::{Error, Result};
use crate::model::{CHUNK, Model};
use crate::runner::{Feed, Mode, Pick};
use kernels::attention::PAGE;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// At least so many sessions get logits in one pass, whatever the vocabulary.
const PICKS: usize = 64;

/// A place in a batch.
pub trait Seat {
    /// Who sits there; an empty place is passed over.
    fn session(&mut self) -> Option<&mut Session>;
}

impl Seat for &mut Session {
    fn session(&mut self) -> Option<&mut Session> {
        Some(self)
    }
}

/// What became of each session.
pub type Stepped = Result<Option<u32>>;

/// Chooses the next token of every session, adds it, and writes it to the session's place in `out`. Tokens that have not
/// run yet, of prompts too, run before, all sessions in one pass.
///
/// With `rows` 0 as many passes are made as the longest prompt takes. Otherwise about so many tokens run (at least one of
/// each session), and a session whose prompt is not through yet gets `None`: call again. Where prompts that wait begin
/// alike, whole pages of 64 tokens are computed for one of them and shared.
///
/// A session that cannot step (its context is full, it was cancelled, it holds no token, none can be chosen) gets its
/// error, is left as [`Session::step`] would leave it, and does not disturb the others. A cancel is seen between passes.
/// Speculation pauses: what was chosen ahead is taken, nothing new is guessed. Allocates nothing once the number of
/// sessions has been seen.
///
/// # Errors
/// `Argument` where sessions have different models, or `out` another length; `Memory`, `Budget`, `Poisoned`, `Internal`: then
/// no token was chosen.
pub fn step<S: Seat>(seats: &mut [S], rows: usize, out: &mut [Stepped]) -> Result<()> {
    let Some(model) = common_model(seats, out.len())? else { return Ok(()) };
    for (seat, out) in seats.iter_mut().zip(out.iter_mut()) {
        if let Some(session) = seat.session() {
            *out = session.enter();
        }
    }
    let each = if rows == 0 { CHUNK } else { rows }.max(seats.len());
    let mut left = each;
    loop {
        let planned = plan(seats, &mut left, out)?;
        if planned == 0 {
            break;
        }
        run(&model, seats, planned, out)?;
        if rows == 0 {
            left = each;
        }
    }
    for (seat, out) in seats.iter_mut().zip(out.iter_mut()) {
        if let (Some(session), Ok(None)) = (seat.session(), &out)
            && session.is_ready()
        {
            *out = session.choose().map(Some);
        }
    }
    Ok(())
}

/// The model of all sessions; `None` where there is no session.
fn common_model<S: Seat>(seats: &mut [S], places: usize) -> Result<Option<Arc<Model>>> {
    let refused = |what| Err(Error::Argument { name: "sessions", what });
    if seats.len() != places {
        return refused(format!("expected as many places for results, found {places} for {}", seats.len()));
    }
    let mut common: Option<Arc<Model>> = None;
    for (i, seat) in seats.iter_mut().enumerate() {
        let Some(session) = seat.session() else { continue };
        let model = common.get_or_insert_with(|| session.model.clone());
        if !Arc::ptr_eq(model, &session.model) {
            return refused(format!("expected sessions of one model, found another one's at {i}"));
        }
    }
    Ok(common)
}

/// Decides how many tokens of each session run in the next pass; returns how many sessions take part.
fn plan<S: Seat>(seats: &mut [S], left: &mut usize, out: &mut [Stepped]) -> Result<usize> {
    let (mut planned, mut picks) = (0, 0);
    seats.iter_mut().filter_map(Seat::session).for_each(|session| session.planned = 0);
    // Those that wait for one token only go first: a long prompt must not hold them up.
    for prompts in [false, true] {
        for i in 0..seats.len() {
            let Some(session) = seats[i].session().filter(|session| !session.is_ready()) else { continue };
            let full = *left == 0 || picks == PICKS.max(LOGITS / session.model.arch().vocab());
            if full || out[i].is_err() || (session.waiting() > 1) != prompts {
                continue;
            }
            if session.cancel.swap(false, Relaxed) {
                out[i] = Err(Error::Cancelled);
                continue;
            }
            if prompts {
                session.adopt()?;
            }
            if prompts && computed_by_another(seats, i) {
                continue;
            }
            let Some(session) = seats[i].session() else { continue };
            session.planned = session.waiting().min(*left).min(session.config.chunk);
            *left -= session.planned;
            planned += 1;
            picks += usize::from(session.planned == session.waiting());
        }
    }
    Ok(planned)
}

/// Whether a session before the `i`-th computes, in this pass, the page that the `i`-th needs next: then it waits for it.
fn computed_by_another<S: Seat>(seats: &mut [S], i: usize) -> bool {
    let (before, rest) = seats.split_at_mut(i);
    let Some(session) = rest.first_mut().and_then(Seat::session) else { return false };
    let end = (session.seq.len / PAGE + 1) * PAGE;
    // The last token runs in any case, for its logits.
    session.source.is_none()
        && end < session.tokens.len()
        && before.iter_mut().filter_map(Seat::session).any(|other| {
            let run = other.seq.len..other.seq.len + other.planned;
            let same = other.seq.root == session.seq.root;
            same && run.start < end && end <= run.end && other.tokens[..end] == session.tokens[..end]
        })
}

/// Runs what was planned for `planned` sessions.
fn run<S: Seat>(model: &Arc<Model>, seats: &mut [S], mut planned: usize, out: &mut [Stepped]) -> Result<()> {
    let start = Instant::now();
    let mut runner = model.runner()?;
    let nobody = AtomicBool::new(false);
    for (seat, out) in seats.iter_mut().zip(out.iter_mut()) {
        let Some(session) = seat.session().filter(|session| session.planned > 0) else { continue };
        if let Err(e) = runner.fill_lead(model.parts(), &mut session.seq, session.grafts.as_ref(), &nobody) {
            (*out, session.planned) = (Err(e), 0);
            planned -= 1;
        }
    }
    runner.begin(Mode::DECODE);
    for (seat, out) in seats.iter_mut().zip(out.iter_mut()) {
        let Some(session) = seat.session().filter(|session| session.planned > 0) else { continue };
        let (from, n) = (session.seq.len, session.planned);
        if session.epoch != runner.epoch() {
            // The weights changed between two passes.
            (*out, session.planned) = (Err(session.changed()), 0);
            planned -= 1;
            continue;
        }
        let pick = if n == session.waiting() { Pick::Last } else { Pick::None };
        session.logits.clear();
        let ids = &session.tokens[from..from + n];
        let source = session.source.as_ref().map(|source| &source.seq);
        let grafts = session.grafts.as_ref();
        let mut feed = Feed { source, pick, grafts, ..Feed::new(&mut session.seq, ids) };
        if let Err(e) = runner.add(model.parts(), &mut feed) {
            (*out, session.planned) = (Err(e), 0);
            planned -= 1;
        }
    }
    if planned == 0 {
        return Ok(());
    }
    let shape = runner.go(model.parts(), &nobody)?;
    let mut rows = runner.answer(shape).chunks_exact(model.arch().vocab());
    for session in taking_part(seats) {
        let last = session.planned == session.waiting();
        if let Some(row) = last.then(|| rows.next()).flatten() {
            session.logits.extend_from_slice(row);
        }
    }
    for session in taking_part(seats) {
        let from = session.seq.len;
        session.seq.len += session.planned;
        session.publish(&mut runner, from);
        session.timings.ran(session.planned, start.elapsed());
    }
    Ok(())
}

/// The sessions of the pass.
fn taking_part<S: Seat>(seats: &mut [S]) -> impl Iterator<Item = &mut Session> {
    seats.iter_mut().filter_map(Seat::session).filter(|session| session.planned > 0)
}

impl Session {
    /// Prepares for a batch.
    fn enter(&mut self) -> Stepped {
        self.refresh()?;
        if !self.ahead.waits() {
            self.pending()?;
        }
        Ok(None)
    }

    /// Whether the next token can be chosen.
    fn is_ready(&self) -> bool {
        self.ahead.waits() || (self.waiting() == 0 && !self.logits.is_empty())
    }

    /// Tokens that have not run yet.
    fn waiting(&self) -> usize {
        self.tokens.len().saturating_sub(self.seq.len)
    }
}
