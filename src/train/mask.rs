//! Floor 5: masked language modelling (Devlin et al. 2019, section 3.1): some tokens of a text are hidden, and the model guesses
//! them from both sides. What is hidden is drawn anew each time that a text is seen. Knows no optimiser.

use super::data::Lesson;
use super::learner::Learner;
use super::loss::Loss;
use super::task::{Task, likelihood};
use super::what::Sample;
use crate::arch::Task as Made;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::rng::{Stream, uniform};
use std::sync::atomic::AtomicBool;

/// Of the tokens that are to be guessed, the share in whose place the mask stands.
const MASKED: f64 = 0.8;
/// The same and those in whose place a random token stands; the others stay, so that the model learns about what it sees, too.
const CHANGED: f64 = 0.9;
/// Random numbers of one look at one text, as a power of two: three for each token of any text that a model can hold.
const DRAWS: u32 = 24;

/// How tokens are hidden.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Masking {
    /// Share of a text's tokens that are to be guessed, at least one of each text; in the paper 0.15.
    pub share: f64,
    /// The token that stands for one that is hidden.
    pub mask: u32,
    /// Random tokens are below this one.
    pub vocab: u32,
    /// Decides what is drawn.
    pub seed: u64,
}

impl Masking {
    /// For `model`, with `mask` or the mask of its tokenizer.
    ///
    /// # Errors
    /// `Argument` for a model that was not made to guess masked tokens, a share that is not above 0 and up to 1, or a mask
    /// beyond the vocabulary; `Tokenizer` where nothing says what the mask is.
    pub fn new(model: &Model, share: f64, mask: Option<u32>, seed: u64) -> Result<Masking> {
        let made = model.arch().head.task;
        if made != Made::MaskedLm || !model.has_head() {
            let what = format!("expected a {}, found {}", Made::MaskedLm.name(), made.name());
            return Err(Error::Argument { name: "model", what });
        }
        if !(share > 0.0 && share <= 1.0) {
            let what = format!("expected more than 0 and at most 1, found {share}");
            return Err(Error::Argument { name: "mask_share", what });
        }
        let mask = mask.map_or_else(|| usual(model), Ok)?;
        model.arch().check_ids(&[mask])?;
        Ok(Masking { share, mask, vocab: model.arch().vocab() as u32, seed })
    }

    /// How many of `n` tokens are to be guessed.
    fn count(&self, n: usize) -> usize {
        ((self.share * n as f64).round() as usize).clamp(1, n)
    }

    /// Hides some of `ids`, of those at `places`, as the `seen`-th look at a text does.
    fn hide(&self, ids: &[u32], places: &[u32], seen: u64) -> Hidden {
        let draw = |i: usize| uniform(self.seed, Stream::Mask, seen << DRAWS | i as u64);
        let (mut ids, mut rows) = (ids.to_vec(), places.to_vec());
        let n = self.count(rows.len());
        for i in 0..n {
            // One of those that were not chosen yet.
            let at = i + (draw(3 * i) * (rows.len() - i) as f64) as usize;
            rows.swap(i, at);
        }
        rows.truncate(n);
        rows.sort_unstable();
        let targets = rows.iter().map(|row| ids[*row as usize]).collect();
        for (i, row) in rows.iter().enumerate() {
            let how = draw(3 * i + 1);
            if how < MASKED {
                ids[*row as usize] = self.mask;
            } else if how < CHANGED {
                ids[*row as usize] = (draw(3 * i + 2) * f64::from(self.vocab)) as u32;
            }
        }
        Hidden { ids, rows, targets }
    }
}

/// The mask of a model's tokenizer.
#[cfg(feature = "tokenizer")]
fn usual(model: &Model) -> Result<u32> {
    let none = || Error::Tokenizer("the tokenizer has no token for what is hidden".to_owned());
    model.tokenizer()?.mask().ok_or_else(none)
}

#[cfg(not(feature = "tokenizer"))]
fn usual(_: &Model) -> Result<u32> {
    Err(Error::Tokenizer("this build has no tokenizers: name the token for what is hidden".to_owned()))
}

/// A text of which some tokens are hidden.
struct Hidden {
    ids: Vec<u32>,
    /// Where they are, rising.
    rows: Vec<u32>,
    /// What they were.
    targets: Vec<u32>,
}

impl Hidden {
    fn sample(&self) -> Sample<'_> {
        Sample { ids: &self.ids, rows: &self.rows, targets: &self.targets, ..Sample::default() }
    }
}

/// Masked tokens of texts. The loss is a mean over the tokens that are to be guessed.
pub struct MaskedTokens {
    lessons: Vec<Lesson>,
    /// Of each, what may be hidden.
    places: Vec<Vec<u32>>,
    masking: Masking,
    smoothing: f32,
    /// Examples seen before the next one.
    seen: u64,
}

impl MaskedTokens {
    /// Of whole texts: of `lessons`, all that counts may be hidden. `smoothing` is the share of each target that is spread over
    /// all tokens.
    ///
    /// # Errors
    /// `Argument` for none at all, for one of which nothing counts, or a smoothing that is not from 0 to below 1.
    pub fn new(lessons: Vec<Lesson>, masking: Masking, smoothing: f32) -> Result<MaskedTokens> {
        super::task::check_smoothing(smoothing)?;
        let counted = |lesson: &Lesson| -> Vec<u32> {
            (0..).zip(&lesson.counts).filter(|(_, counts)| **counts).map(|(at, _)| at).collect()
        };
        let places: Vec<Vec<u32>> = lessons.iter().map(counted).collect();
        if places.is_empty() || places.iter().any(Vec::is_empty) {
            let what = "expected texts of which something may be hidden".to_owned();
            return Err(Error::Argument { name: "data", what });
        }
        Ok(MaskedTokens { lessons, places, masking, smoothing, seen: 0 })
    }
}

impl Task for MaskedTokens {
    fn examples(&self) -> usize {
        self.lessons.len()
    }

    fn tokens(&self, example: usize) -> usize {
        self.lessons[example].ids.len()
    }

    fn weight(&self, example: usize) -> f64 {
        self.masking.count(self.places[example].len()) as f64
    }

    fn begin(&mut self, seen: u64) {
        self.seen = seen;
    }

    fn forward(
        &mut self,
        learner: &mut Learner,
        examples: &[usize],
        total: f64,
        cancel: &AtomicBool,
    ) -> Result<Loss> {
        let hide =
            |(seen, i): (u64, &usize)| self.masking.hide(&self.lessons[*i].ids, &self.places[*i], seen);
        let all: Vec<Hidden> = (self.seen..).zip(examples).map(hide).collect();
        self.seen += examples.len() as u64;
        let batch: Vec<Sample> = all.iter().map(Hidden::sample).collect();
        likelihood(learner, &batch, self.smoothing, total, cancel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASKING: Masking = Masking { share: 0.15, mask: 4, vocab: 5000, seed: 9 };

    #[test]
    fn shares_are_those_of_the_paper() {
        let ids: Vec<u32> = (0..200).map(|i| 10_000 + i).collect();
        let places: Vec<u32> = (1..199).collect();
        let (mut masked, mut changed, mut kept, mut often) = (0, 0, 0, vec![0; ids.len()]);
        for seen in 0..2000 {
            let hidden = MASKING.hide(&ids, &places, seen);
            assert_eq!(hidden.rows.len(), 30); // of 198
            assert!(hidden.rows.is_sorted_by(|a, b| a < b));
            for (row, target) in hidden.rows.iter().zip(&hidden.targets) {
                let (now, was) = (hidden.ids[*row as usize], ids[*row as usize]);
                assert_eq!(*target, was);
                often[*row as usize] += 1;
                match now {
                    4 => masked += 1,
                    _ if now == was => kept += 1,
                    _ => {
                        assert!(now < 5000);
                        changed += 1;
                    }
                }
            }
            let others = (0..200).filter(|row| !hidden.rows.contains(row));
            assert!(others.into_iter().all(|row| hidden.ids[row as usize] == ids[row as usize]));
        }
        let share = |n: i32| f64::from(n) / 60_000.0;
        assert!((share(masked) - 0.8).abs() < 0.01 && (share(changed) - 0.1).abs() < 0.01);
        assert!((share(kept) - 0.1).abs() < 0.01);
        assert_eq!((often[0], often[199]), (0, 0), "what does not count was hidden");
        assert!(often[1..199].iter().all(|n| (200..420).contains(n)), "{often:?}");
    }

    #[test]
    fn every_look_hides_other_tokens_and_the_same_one_the_same() {
        let ids: Vec<u32> = (0..100).collect();
        let look = |seed, seen| Masking { seed, ..MASKING }.hide(&ids, &ids, seen).rows;
        assert_eq!(look(1, 7), look(1, 7));
        assert!(look(1, 7) != look(1, 8) && look(1, 7) != look(2, 7));
    }

    #[test]
    fn one_token_at_least_is_hidden() {
        assert_eq!((MASKING.count(1), MASKING.count(3), MASKING.count(10)), (1, 1, 2));
        assert_eq!(Masking { share: 1.0, ..MASKING }.count(7), 7);
        assert_eq!(MASKING.hide(&[9], &[0], 0).rows, [0]);
    }
}
