//! Floor 5: an answer as something to run. Knows no rewards.

use crate::train::draw::Answer;
use crate::train::what::Sample;

/// An answer behind its prompt, as a sample.
pub(super) struct View<'a> {
    source: &'a [u32],
    ids: Vec<u32>,
    rows: Vec<u32>,
    /// The answer's tokens.
    pub targets: Vec<u32>,
}

impl<'a> View<'a> {
    pub fn of(answer: &'a Answer) -> View<'a> {
        let (first, n) = (answer.prompt.len() as u32 - 1, answer.ids.len());
        let mut ids = answer.prompt.clone();
        // The last token is a target alone.
        ids.extend_from_slice(&answer.ids[..n - 1]);
        View {
            source: &answer.source,
            ids,
            rows: (first..first + n as u32).collect(),
            targets: answer.ids.clone(),
        }
    }

    pub fn sample(&self) -> Sample<'_> {
        Sample {
            source: self.source,
            ids: &self.ids,
            rows: &self.rows,
            targets: &self.targets,
            ..Sample::default()
        }
    }
}
