//! Floor 5: whole texts through a model, many at once: their states, and what the head says of them. Knows ids and no text.
//!
//! Texts of any length share a run, and no padding is computed. Rows of different texts do not touch each other, so a text
//! has the same bits alone and in any batch.

use crate::adapter::{Grafts, lead_of};
use crate::arch::{Rows, Side, Task};
use crate::error::{Error, Result};
use crate::exec::Want;
use crate::fit::that_fit;
use crate::format::files::Load;
use crate::format::source::{Progress, Reading};
use crate::model::Model;
use crate::runner::{Feed, Mode, Pick, Runner};
use crate::seats::Row;
use kernels::attention::PAGE;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Tokens of a run, unless one text has more: enough to be bound by arithmetic, few enough that states stay in a cache
/// and a cancel is answered soon.
const ROWS: usize = 1024;

/// Texts of a run.
const TEXTS: usize = 64;

/// One text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text<'a> {
    /// Its tokens, at least one.
    pub ids: &'a [u32],
    /// Their types, where the model knows any (0 for a first sentence, 1 for a second one); those that are missing are 0.
    pub types: &'a [u32],
}

/// What is wanted of every text.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// The states that the first stack returns (an encoder's, where there is one), `[tokens, cols]`: as many
    /// columns as [`crate::arch::Stack::state_cols`] says.
    Hidden,
    /// One state for the whole text, `[1, cols]`: the first, the last, or the mean.
    Pooled(Rows),
    /// What the head says, `[rows, n]`: of all tokens, or of the one that it was trained on. Of a model with an encoder and a
    /// decoder (BART), the decoder reads the text after the encoder, one place later.
    Head,
    /// What the head says of some tokens, by their positions: a list for each text.
    HeadAt(&'a [Vec<u32>]),
}

impl Ask<'_> {
    /// Whether it is about what the head says.
    fn is_of_head(&self) -> bool {
        matches!(self, Ask::Head | Ask::HeadAt(_))
    }
}

/// Runs `texts` and hands `each` the number of a text, its rows, one after the other, and how long a row is; in the order of
/// the texts. `progress` is told texts done and texts in all.
///
/// # Errors
/// `Argument` for a text without tokens, ids beyond the vocabulary, positions beyond a text, a text without the token whose
/// state the head reads, or a model that lacks the head or answers a source; `Unsupported` for an encoder-decoder whose
/// config names no first token; `ContextFull` for one that is longer than the model can hold; `Budget`; `Memory`; `Cancelled`.
pub fn run(
    model: &Model,
    texts: &[Text],
    ask: Ask,
    cancel: &AtomicBool,
    progress: &mut Option<Progress>,
    each: &mut dyn FnMut(usize, &[f32], usize),
) -> Result<()> {
    check(model, texts, ask)?;
    let mut reading = Reading::new(Load::Map, progress);
    reading.expect(texts.len() as u64)?;
    let mut seats = Seats::of(model)?;
    let mut done = 0;
    while done < texts.len() {
        let now = that_fit(texts[done..].iter().take(TEXTS).map(|text| text.ids.len()), ROWS);
        seats.run(texts, done..done + now, ask, cancel, each)?;
        done += now;
        reading.advance(now as u64)?;
    }
    Ok(())
}

fn check(model: &Model, texts: &[Text], ask: Ask) -> Result<()> {
    let (arch, lead) = (model.arch(), model.lead());
    if ask.is_of_head() && (arch.head.task == Task::Hidden || !model.has_head()) {
        let what = format!("{} was saved without a head: it has hidden states alone", model.tensors().file());
        return Err(Error::Argument { name: "model", what });
    }
    if pairs(model, ask) && arch.head.task == Task::LanguageModel {
        let what = "it answers a source text: give a session the source, then the answer's tokens".to_owned();
        return Err(Error::Argument { name: "model", what });
    }
    if let Ask::HeadAt(rows) = ask {
        let beyond =
            |(text, rows): (&Text, &Vec<u32>)| rows.iter().any(|row| *row as usize >= text.ids.len());
        if rows.len() != texts.len() || texts.iter().zip(rows).any(beyond) {
            let what = "expected positions within each text".to_owned();
            return Err(Error::Argument { name: "rows", what });
        }
    }
    for (i, text) in texts.iter().enumerate() {
        if text.ids.is_empty() {
            return Err(Error::Argument { name: "texts", what: format!("text {i} has no tokens") });
        }
        arch.check_len(lead + text.ids.len())?;
        let types = arch.first().embed.types;
        if let Some(found) = text.types.iter().find(|kind| **kind as usize >= types.max(1)) {
            let what = format!("expected token types below {}, found {found}", types.max(1));
            return Err(Error::Argument { name: "types", what });
        }
        if let (Ask::Head, Rows::End(end)) = (ask, arch.head.rows)
            && !text.ids.contains(&end)
        {
            let what = format!("text {i} lacks token {end}, the end, whose state the head reads");
            return Err(Error::Argument { name: "texts", what });
        }
    }
    Ok(())
}

/// Whether the decoder reads the texts too, after the encoder.
fn pairs(model: &Model, ask: Ask) -> bool {
    model.arch().reads_source() && ask.is_of_head()
}

/// What the decoder reads of a text that the encoder has read: the same, one place later.
fn later(model: &Model, ids: &[u32]) -> Result<Vec<u32>> {
    let Some((last, before)) = ids.split_last() else { return Ok(Vec::new()) };
    let first = if model.arch().wraps { *last } else { model.first_token()? };
    Ok([&[first], before].concat())
}

/// Sequences that the texts of a run take; the next run takes them again. An encoder's stay with its model, as the buffers of
/// its runs do: to fetch memory from the system anew for every call costs as much as a short text.
struct Seats<'m> {
    model: &'m Model,
    row: Row,
    /// Of what the encoder reads before a decoder.
    sources: Row,
}

impl<'m> Seats<'m> {
    fn of(model: &'m Model) -> Result<Seats<'m>> {
        let row = std::mem::take(&mut model.runner()?.spare);
        Ok(Seats { model, row, sources: Row::default() })
    }

    fn run(
        &mut self,
        texts: &[Text],
        range: std::ops::Range<usize>,
        ask: Ask,
        cancel: &AtomicBool,
        each: &mut dyn FnMut(usize, &[f32], usize),
    ) -> Result<()> {
        let (model, arch) = (self.model, self.model.arch());
        let grafts = model.attached();
        let (lead, pairs) = (lead_of(grafts.as_ref()), pairs(model, ask));
        let mut runner = model.runner()?;
        if pairs {
            self.read(&mut runner, &texts[range.clone()], grafts.as_ref(), cancel)?;
        }
        let mut seen = Vec::with_capacity(range.len());
        for (i, text) in texts[range.clone()].iter().enumerate() {
            let len = lead + text.ids.len();
            let room = [len, len.next_multiple_of(PAGE)];
            self.row.seat((model.engine(), &mut runner.pool), "a text", i, room)?;
            runner.fill_lead(model.parts(), &mut self.row.open[i], grafts.as_ref(), cancel)?;
            seen.push(if pairs { later(model, text.ids)?.into() } else { Cow::Borrowed(text.ids) });
        }
        let side = if arch.encoder.is_some() && !pairs { Side::Encoder } else { Side::Decoder };
        let want = if ask.is_of_head() { Want::Head } else { Want::Hidden };
        runner.begin(Mode { side, want });
        for (at, (seq, i)) in self.row.open.iter_mut().zip(range.clone()).enumerate() {
            let (text, none) = (&texts[i], &[][..]);
            let end = [end(arch.head.rows, text.ids)];
            let (pick, chosen) = match ask {
                Ask::Hidden => (Pick::All, none),
                Ask::Pooled(rows) => (pick(rows), none),
                Ask::Head => (pick(arch.head.rows), &end[..]),
                Ask::HeadAt(lists) => (Pick::Rows, &lists[i][..]),
            };
            let (grafts, source) = (grafts.as_ref(), self.sources.open.get(at).filter(|_| pairs));
            let mut feed =
                Feed { types: text.types, pick, chosen, grafts, source, ..Feed::new(seq, &seen[at]) };
            runner.add(model.parts(), &mut feed)?;
        }
        let shape = runner.go(model.parts(), cancel)?;
        let answer = runner.answer(shape);
        let cols = answer.len().checked_div(shape.picks).unwrap_or(0);
        let mut at = 0;
        for i in range {
            let rows = rows(model, ask, i, &texts[i]);
            each(i, &answer[at..at + rows * cols], cols);
            at += rows * cols;
        }
        Ok(())
    }

    /// Runs the encoder over `texts`, for a decoder that attends to them.
    fn read(
        &mut self,
        runner: &mut Runner,
        texts: &[Text],
        grafts: Option<&Arc<Grafts>>,
        cancel: &AtomicBool,
    ) -> Result<()> {
        let model = self.model;
        for (i, text) in texts.iter().enumerate() {
            let room = [text.ids.len(), text.ids.len().next_multiple_of(PAGE)];
            self.sources.seat((model.engine(), &mut runner.pool), "a source text", i, room)?;
        }
        let ids = texts.iter().map(|text| text.ids);
        runner.read(model.parts(), &mut self.sources.open, ids, grafts, cancel)
    }
}

impl Drop for Seats<'_> {
    fn drop(&mut self) {
        let mut runner = self.model.runner_anyhow();
        // Another thread's may be there by now. A decoder's pages hold all of its layers: they go back to the system.
        if self.model.arch().decoder.is_none() && runner.spare.is_empty() {
            self.row.clear(&mut runner.pool);
            runner.spare = std::mem::take(&mut self.row);
        } else {
            self.row.close(&mut runner.pool);
            self.sources.close(&mut runner.pool);
        }
    }
}

/// How many rows the answer about the `i`-th text has.
fn rows(model: &Model, ask: Ask, i: usize, text: &Text) -> usize {
    match ask {
        Ask::Hidden => text.ids.len(),
        Ask::Head if model.arch().head.rows == Rows::All => text.ids.len(),
        Ask::HeadAt(lists) => lists[i].len(),
        Ask::Head | Ask::Pooled(_) => 1,
    }
}

/// Rows of the answer about all `texts`, and how long each is.
pub fn shape(model: &Model, texts: &[Text], ask: Ask) -> [usize; 2] {
    let arch = model.arch();
    let cols = match ask {
        Ask::Hidden | Ask::Pooled(_) => arch.first().state_cols(),
        Ask::Head | Ask::HeadAt(_) => arch.head.n,
    };
    [texts.iter().enumerate().map(|(i, text)| rows(model, ask, i, text)).sum(), cols]
}

fn pick(rows: Rows) -> Pick {
    match rows {
        Rows::All => Pick::All,
        Rows::First => Pick::First,
        Rows::Last => Pick::Last,
        Rows::Mean => Pick::Mean,
        Rows::End(_) => Pick::Rows,
    }
}

/// Which row of a text `Rows::End` means.
fn end(rows: Rows, ids: &[u32]) -> u32 {
    let Rows::End(end) = rows else { return 0 };
    ids.iter().rposition(|id| *id == end).unwrap_or_default() as u32
}
