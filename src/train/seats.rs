//! Floor 5: where the samples of a batch sit while they run. Knows no gradients.

use super::before;
use super::what::Sample;
use crate::arch::{Arch, Side};
use crate::error::{Error, Result};
use crate::exec::{Shape, Want};
use crate::model::Model;
use crate::runner::{Feed, Mode, Parts, Pick, Runner};
use crate::seats::Row;
use std::sync::atomic::AtomicBool;

/// The sequences of a batch, empty between batches.
#[derive(Default)]
pub(super) struct Seats {
    own: Row,
    /// Of what the encoder reads before a decoder.
    sources: Row,
}

impl Seats {
    /// Runs a batch through whatever `parts` says: its sources through the encoder, where there are any, then what attends to
    /// them.
    pub(super) fn run(
        &mut self,
        model: &Model,
        parts: Parts,
        runner: &mut Runner,
        batch: &[Sample],
        cancel: &AtomicBool,
    ) -> Result<Shape> {
        let lead = before::lead(parts.weights);
        check(model.arch(), batch, lead)?;
        if parts.arch.reads_source() {
            seat(&mut self.sources, model, runner, batch.iter().map(|sample| sample.source.len()))?;
        }
        seat(&mut self.own, model, runner, batch.iter().map(|sample| lead + sample.ids.len()))?;
        let ran = self.go(parts, runner, batch, cancel);
        self.own.clear(&mut runner.pool);
        self.sources.clear(&mut runner.pool);
        ran
    }

    fn go(
        &mut self,
        parts: Parts,
        runner: &mut Runner,
        batch: &[Sample],
        cancel: &AtomicBool,
    ) -> Result<Shape> {
        if parts.arch.reads_source() {
            let texts = batch.iter().map(|sample| sample.source);
            runner.read(parts, &mut self.sources.open, texts, None, cancel)?;
        }
        let side = if parts.arch.decoder.is_some() { Side::Decoder } else { Side::Encoder };
        runner.begin(Mode { side, want: Want::Head });
        let (lead, mut led) = (before::lead(parts.weights), Led::default());
        for (i, (seq, sample)) in self.own.open.iter_mut().zip(batch).enumerate() {
            let Sample { ids, types, rows, targets, .. } = led.sample(lead, *sample);
            let source = self.sources.open.get(i);
            let pick = Pick::Rows;
            runner.add(
                parts,
                &mut Feed { source, types, pick, chosen: rows, targets, ..Feed::new(seq, ids) },
            )?;
        }
        runner.go(parts, cancel)
    }
}

/// A sample behind rows whose tokens nobody reads.
#[derive(Default)]
struct Led {
    ids: Vec<u32>,
    types: Vec<u32>,
    rows: Vec<u32>,
}

impl Led {
    /// `sample` behind `lead` rows.
    fn sample<'a>(&'a mut self, lead: usize, sample: Sample<'a>) -> Sample<'a> {
        if lead == 0 {
            return sample;
        }
        for (all, own) in [(&mut self.ids, sample.ids), (&mut self.types, sample.types)] {
            all.clear();
            all.resize(lead, 0);
            all.extend_from_slice(own);
        }
        self.rows.clear();
        self.rows.extend(sample.rows.iter().map(|row| lead as u32 + row));
        Sample { ids: &self.ids, types: &self.types, rows: &self.rows, ..sample }
    }
}

/// A sequence of `row` for every sample, long enough.
pub(super) fn seat(
    row: &mut Row,
    model: &Model,
    runner: &mut Runner,
    lens: impl Iterator<Item = usize>,
) -> Result<()> {
    for (i, wanted) in lens.enumerate() {
        // Powers of two: batches of other lengths find room in them.
        let room = wanted.next_power_of_two().min(model.arch().max_positions).max(wanted);
        let what = "keys and values of a sample";
        row.seat((model.engine(), &mut runner.pool), what, i, [wanted, room])?;
    }
    Ok(())
}

/// Whether a model can run a batch, each sample behind `lead` rows.
fn check(arch: &Arch, batch: &[Sample], lead: usize) -> Result<()> {
    let refuse = |what: String| Err(Error::Argument { name: "batch", what });
    let Some(first) = batch.first() else { return refuse("expected at least one sample".to_owned()) };
    for (i, sample) in batch.iter().enumerate() {
        let n = sample.ids.len();
        if n == 0 || sample.rows.is_empty() {
            return refuse(format!("sample {i} has no tokens, or none whose answer counts"));
        }
        arch.check_len(lead + n)?;
        if let Some(row) = sample.rows.iter().find(|row| **row as usize >= n) {
            return refuse(format!("sample {i} has {n} tokens, and position {row} is beyond"));
        }
        match (arch.reads_source(), sample.source.len()) {
            (true, 0) => return refuse(format!("sample {i} has no source for the encoder to read")),
            (false, 1..) => {
                let family = arch.family;
                return refuse(format!(
                    "sample {i} has a source, which a model of family {family} cannot read"
                ));
            }
            (_, n) => arch.check_len(n)?,
        }
        let targets = if first.targets.is_empty() { 0 } else { sample.rows.len() };
        if sample.targets.len() != targets {
            let found = sample.targets.len();
            return refuse(format!("expected {targets} targets of sample {i}, found {found}"));
        }
    }
    Ok(())
}
