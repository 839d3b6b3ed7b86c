//! Floor 5: what is learnt from examples: texts, answers, rankings and preferences. Each is a list of examples and the loss of
//! some of them. Knows no optimiser.

use super::data::{Lesson, Ranking};
use super::learner::Learner;
use super::loss::{Loss, Preferred, Scored, cross_entropy, dpo, ranked};
use super::reference::Reference;
use super::what::Sample;
use crate::error::{Error, Result};
use crate::fit::that_fit;
use std::sync::atomic::AtomicBool;

/// Something to learn from.
pub trait Task {
    /// How many examples there are, at least one.
    fn examples(&self) -> usize;

    /// Tokens that a pass over an example runs.
    fn tokens(&self, example: usize) -> usize;

    /// How much an example counts in the mean that a step's loss is.
    fn weight(&self, example: usize) -> f64;

    /// Is told how many examples were seen before the next ones. What is drawn anew each time that an example is seen depends
    /// on it.
    fn begin(&mut self, _seen: u64) {}

    /// Runs `examples` forward. Returns their share of the loss, the mean over examples of weight `total` together, and its
    /// derivatives.
    ///
    /// # Errors
    /// As [`Learner::forward`].
    fn forward(
        &mut self,
        learner: &mut Learner,
        examples: &[usize],
        total: f64,
        cancel: &AtomicBool,
    ) -> Result<Loss>;

    /// Runs `examples` forward and backward. Returns their share of the loss. What a value head says of them counts for nothing.
    ///
    /// # Errors
    /// As [`Learner::forward`] and [`Learner::backward`].
    fn pass(
        &mut self,
        learner: &mut Learner,
        examples: &[usize],
        total: f64,
        cancel: &AtomicBool,
    ) -> Result<f64> {
        let loss = self.forward(learner, examples, total, cancel)?;
        let values = vec![0.0; learner.values().len()];
        learner.backward(&loss.seeds, &values, cancel)?;
        Ok(loss.value)
    }

    /// The mean loss over all examples, of which nothing is learnt; about `tokens` run at once.
    ///
    /// # Errors
    /// As [`Learner::forward`].
    fn loss(&mut self, learner: &mut Learner, tokens: usize, cancel: &AtomicBool) -> Result<f64> {
        self.begin(0);
        let total = (0..self.examples()).map(|i| self.weight(i)).sum();
        let (mut loss, mut at) = (0.0, 0);
        while at < self.examples() {
            let fit = that_fit((at..self.examples()).map(|i| self.tokens(i)), tokens);
            let examples: Vec<usize> = (at..at + fit).collect();
            loss += self.forward(learner, &examples, total, cancel)?.value;
            at += fit;
        }
        Ok(loss)
    }
}

/// Next tokens of texts: of windows, or of answers behind their prompts (supervised fine-tuning). The loss is a mean over the
/// tokens that count.
pub struct NextToken {
    lessons: Vec<Lesson>,
    /// Share of each target that is spread over all tokens.
    smoothing: f32,
    rows: Vec<Vec<u32>>,
}

impl NextToken {
    /// Of `lessons`.
    ///
    /// # Errors
    /// `Argument` for none at all, for one of which nothing is learnt, or a smoothing that is not from 0 to below 1.
    pub fn new(lessons: Vec<Lesson>, smoothing: f32) -> Result<NextToken> {
        check_smoothing(smoothing)?;
        let rows: Vec<Vec<u32>> = lessons.iter().map(rows).collect();
        if rows.is_empty() || rows.iter().any(Vec::is_empty) {
            let what = "expected lessons of which something is learnt".to_owned();
            return Err(Error::Argument { name: "data", what });
        }
        Ok(NextToken { lessons, smoothing, rows })
    }
}

/// Whether a share of each target can be spread.
pub(super) fn check_smoothing(smoothing: f32) -> Result<()> {
    if (0.0..1.0).contains(&smoothing) {
        return Ok(());
    }
    let what = format!("expected 0 or more and less than 1, found {smoothing}");
    Err(Error::Argument { name: "smoothing", what })
}

/// Cross-entropy of the targets of a batch.
pub(super) fn likelihood(
    learner: &mut Learner,
    batch: &[Sample],
    smoothing: f32,
    total: f64,
    cancel: &AtomicBool,
) -> Result<Loss> {
    learner.forward(batch, cancel)?;
    let logits = if smoothing > 0.0 { learner.answer() } else { &[] };
    let scored = Scored { logprobs: learner.logprobs(), logits };
    Ok(cross_entropy(scored, smoothing, total))
}

/// Tokens that a pass over a lesson runs.
fn tokens(lesson: &Lesson) -> usize {
    lesson.source.len() + lesson.ids.len() - 1
}

/// Positions whose next token counts.
fn rows(lesson: &Lesson) -> Vec<u32> {
    let next = lesson.counts.iter().skip(1).enumerate();
    next.filter(|(_, counts)| **counts).map(|(row, _)| row as u32).collect()
}

fn sample<'a>(lesson: &'a Lesson, rows: &'a [u32], targets: &'a [u32]) -> Sample<'a> {
    let ids = &lesson.ids[..lesson.ids.len() - 1];
    Sample { ids, source: &lesson.source, rows, targets, ..Sample::default() }
}

fn targets(ids: &[u32], rows: &[u32]) -> Vec<u32> {
    rows.iter().map(|row| ids[*row as usize + 1]).collect()
}

impl Task for NextToken {
    fn examples(&self) -> usize {
        self.lessons.len()
    }

    fn tokens(&self, example: usize) -> usize {
        tokens(&self.lessons[example])
    }

    fn weight(&self, example: usize) -> f64 {
        self.rows[example].len() as f64
    }

    fn forward(
        &mut self,
        learner: &mut Learner,
        examples: &[usize],
        total: f64,
        cancel: &AtomicBool,
    ) -> Result<Loss> {
        let targets: Vec<Vec<u32>> =
            examples.iter().map(|i| targets(&self.lessons[*i].ids, &self.rows[*i])).collect();
        let samples = examples
            .iter()
            .zip(&targets)
            .map(|(i, targets)| sample(&self.lessons[*i], &self.rows[*i], targets));
        likelihood(learner, &samples.collect::<Vec<_>>(), self.smoothing, total, cancel)
    }
}

/// Scores of answers by a model with one output, from rankings (Ouyang et al. 2022, eq. 1): all pairs of a prompt are one
/// example.
pub struct Rewards {
    rankings: Vec<Ranking>,
    last: Vec<Vec<[u32; 1]>>,
}

impl Rewards {
    /// Of `rankings`, each of two answers or more.
    ///
    /// # Errors
    /// `Argument` for none at all, or one with fewer.
    pub fn new(rankings: Vec<Ranking>) -> Result<Rewards> {
        check(&rankings)?;
        let last = |ranking: &Ranking| ranking.answers.iter().map(|one| [one.ids.len() as u32 - 1]).collect();
        let last = rankings.iter().map(last).collect();
        Ok(Rewards { rankings, last })
    }
}

/// Whether there is something to compare.
fn check(rankings: &[Ranking]) -> Result<()> {
    if rankings.is_empty() || rankings.iter().any(|ranking| ranking.answers.len() < 2) {
        let what = "expected rankings of two answers or more".to_owned();
        return Err(Error::Argument { name: "data", what });
    }
    Ok(())
}

impl Task for Rewards {
    fn examples(&self) -> usize {
        self.rankings.len()
    }

    fn tokens(&self, example: usize) -> usize {
        self.rankings[example].answers.iter().map(|one| one.ids.len()).sum()
    }

    fn weight(&self, _: usize) -> f64 {
        1.0
    }

    fn forward(
        &mut self,
        learner: &mut Learner,
        examples: &[usize],
        total: f64,
        cancel: &AtomicBool,
    ) -> Result<Loss> {
        let outputs = learner.model().arch().head.n;
        if outputs != 1 {
            let what = format!("expected a model with one output (a reward), found {outputs}");
            return Err(Error::Argument { name: "model", what });
        }
        let answers = examples.iter().flat_map(|i| self.rankings[*i].answers.iter().zip(&self.last[*i]));
        let batch: Vec<Sample> =
            answers.map(|(one, rows)| Sample { ids: &one.ids, rows, ..Sample::default() }).collect();
        learner.forward(&batch, cancel)?;
        let (mut value, mut seeds, mut scores) = (0.0, Vec::new(), learner.answer());
        for i in examples {
            let (own, rest) = scores.split_at(self.rankings[*i].answers.len());
            let loss = ranked(own, 1.0 / total);
            value += loss.value;
            seeds.extend(loss.seeds);
            scores = rest;
        }
        Ok(Loss { value, seeds, values: Vec::new() })
    }
}

/// Preferences without a reward model (Rafailov et al. 2023): every ranking's best answer against its second.
pub struct Preferences {
    rankings: Vec<Ranking>,
    rows: Vec<[Vec<u32>; 2]>,
    /// What the reference says of both answers, once it was asked.
    said: Vec<Option<[f64; 2]>>,
    reference: Reference,
    beta: f64,
}

impl Preferences {
    /// Of `rankings`, against `reference`, with a weight of `beta` on staying near it.
    ///
    /// # Errors
    /// `Argument` as [`Rewards::new`], and for a beta that is not above 0.
    pub fn new(rankings: Vec<Ranking>, reference: Reference, beta: f64) -> Result<Preferences> {
        if !(beta > 0.0 && beta.is_finite()) {
            return Err(Error::Argument {
                name: "beta",
                what: format!("expected more than 0, found {beta}"),
            });
        }
        check(&rankings)?;
        let rows = rankings.iter().map(|ranking| [0, 1].map(|i| rows(&ranking.answers[i]))).collect();
        let said = vec![None; rankings.len()];
        Ok(Preferences { rankings, rows, said, reference, beta })
    }

    /// The reference, for the next ones.
    #[must_use]
    pub fn into_reference(self) -> Reference {
        self.reference
    }
}

impl Task for Preferences {
    fn examples(&self) -> usize {
        self.rankings.len()
    }

    fn tokens(&self, example: usize) -> usize {
        self.rankings[example].answers[..2].iter().map(tokens).sum()
    }

    fn weight(&self, _: usize) -> f64 {
        1.0
    }

    fn forward(
        &mut self,
        learner: &mut Learner,
        examples: &[usize],
        total: f64,
        cancel: &AtomicBool,
    ) -> Result<Loss> {
        let pairs =
            examples.iter().flat_map(|i| [0, 1].map(|k| (&self.rankings[*i].answers[k], &self.rows[*i][k])));
        let all: Vec<Vec<u32>> = pairs.clone().map(|(one, rows)| targets(&one.ids, rows)).collect();
        let batch: Vec<Sample> =
            pairs.zip(&all).map(|((one, rows), targets)| sample(one, rows, targets)).collect();
        if examples.iter().any(|i| self.said[*i].is_none()) {
            let sums = sums(&self.reference.logprobs(&batch, cancel)?, &batch);
            for (i, said) in examples.iter().zip(sums.chunks_exact(2)) {
                self.said[*i] = Some([said[0], said[1]]);
            }
        }
        learner.forward(&batch, cancel)?;
        let logprobs: Vec<f32> = learner.logprobs().chunks_exact(2).map(|pair| pair[0]).collect();
        let (mut value, mut seeds) = (0.0, Vec::new());
        for ((i, own), pair) in
            examples.iter().zip(sums(&logprobs, &batch).chunks_exact(2)).zip(batch.chunks_exact(2))
        {
            let said = self.said[*i].unwrap_or_default();
            let of = Preferred { chosen: [own[0], said[0]], rejected: [own[1], said[1]] };
            let (loss, by, _) = dpo(of, self.beta);
            value += loss / total;
            for (sample, by) in pair.iter().zip([by, -by]) {
                seeds.extend(sample.rows.iter().flat_map(|_| [(by / total) as f32, 0.0, 0.0]));
            }
        }
        Ok(Loss { value, seeds, values: Vec::new() })
    }
}

/// The sum of each sample's log-probabilities.
fn sums(logprobs: &[f32], batch: &[Sample]) -> Vec<f64> {
    let mut rest = logprobs;
    let sum = |sample: &Sample| {
        let (own, others) = rest.split_at(sample.rows.len());
        rest = others;
        own.iter().map(|x| f64::from(*x)).sum()
    };
    batch.iter().map(sum).collect()
}
