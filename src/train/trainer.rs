//! Floor 5: a trainer whose host brings the examples of each step. Knows no files.

use super::data::{Lesson, Ranking};
use super::learner::Learner;
use super::mask::{MaskedTokens, Masking};
use super::optim::{Optimizer, Rule};
use super::reference::Reference;
use super::run::{Report, passes};
use super::task::{NextToken, Preferences, Rewards, Task};
use super::what::LearnConfig;
use crate::error::{Error, Result};
use crate::model::Model;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a trainer minimises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// Cross-entropy of next tokens (supervised fine-tuning), with a share of each target spread over all tokens.
    NextToken {
        /// That share.
        smoothing: f32,
    },
    /// Cross-entropy of tokens that were hidden in whole texts: of a lesson, all that counts may be.
    MaskedTokens {
        /// How they are hidden; anew in each step.
        masking: Masking,
        /// Share of each target that is spread over all tokens.
        smoothing: f32,
    },
    /// The loss of a reward model on ranked answers (Ouyang et al. 2022, eq. 1).
    Rewards,
    /// The loss of preferences without a reward model (Rafailov et al. 2023).
    Preferences {
        /// How much staying near the model that it was counts.
        beta: f64,
    },
}

/// Examples of one step that have random numbers of their own, as a power of two.
const EXAMPLES: u32 = 16;

/// A learner, its optimiser, and what they minimise. Used from one thread at a time.
pub struct Trainer {
    learner: Learner,
    optimizer: Optimizer,
    objective: Objective,
    reference: Option<Reference>,
    /// Most tokens of one pass.
    tokens: usize,
}

impl Trainer {
    /// A trainer of `model`; gradients are clipped to a norm of `clip` (0: not), and a pass runs `tokens` tokens at most,
    /// unless one example has more.
    ///
    /// # Errors
    /// As [`Learner::new`] and [`Optimizer::new`].
    pub fn new(
        model: &Arc<Model>,
        learn: &LearnConfig,
        objective: Objective,
        rule: Rule,
        clip: f32,
        tokens: usize,
    ) -> Result<Trainer> {
        if tokens == 0 {
            return Err(Error::Argument { name: "tokens", what: "expected 1 or more, found 0".to_owned() });
        }
        let learner = Learner::new(model, learn)?;
        let optimizer = Optimizer::new(&learner, rule, clip)?;
        Ok(Trainer { learner, optimizer, objective, reference: None, tokens })
    }

    /// One step over `lessons`: answers to be learnt, or for rankings and preferences the answers of a prompt one after the
    /// other, the best first, with the prompt's number in `groups`. The loss is a mean over all tokens that count, or over all
    /// prompts.
    ///
    /// # Errors
    /// `Argument` for lessons that teach nothing, or a prompt with one answer; as [`Learner::forward`]. Nothing is learnt then.
    pub fn step(
        &mut self,
        lessons: Vec<Lesson>,
        groups: &[u32],
        rate: f32,
        cancel: &AtomicBool,
    ) -> Result<Report> {
        if !(rate >= 0.0 && rate.is_finite()) {
            return Err(Error::Argument { name: "rate", what: format!("expected 0 or more, found {rate}") });
        }
        let ran = match self.objective {
            Objective::NextToken { smoothing } => {
                self.passes(&mut NextToken::new(lessons, smoothing)?, cancel)
            }
            Objective::MaskedTokens { masking, smoothing } => {
                let lessons =
                    lessons.into_iter().map(|lesson| text_of(self.learner.model(), lesson)).collect();
                self.passes(&mut MaskedTokens::new(lessons, masking, smoothing)?, cancel)
            }
            Objective::Rewards => self.passes(&mut Rewards::new(rankings(lessons, groups))?, cancel),
            Objective::Preferences { beta } => {
                let model = self.learner.model().clone();
                let reference = self.reference.take().unwrap_or_else(|| Reference::new(&model));
                let mut task = Preferences::new(rankings(lessons, groups), reference, beta)?;
                let ran = self.passes(&mut task, cancel);
                self.reference = Some(task.into_reference());
                ran
            }
        };
        let (loss, tokens) = ran.inspect_err(|_| self.learner.clear())?;
        let norm = self.optimizer.step(&mut self.learner, rate)?;
        Ok(Report { step: self.optimizer.steps(), loss, rate, norm, tokens, epoch: 0.0 })
    }

    fn passes(&mut self, task: &mut dyn Task, cancel: &AtomicBool) -> Result<(f64, usize)> {
        let all: Vec<usize> = (0..task.examples()).collect();
        task.begin(self.optimizer.steps() << EXAMPLES);
        passes(task, &mut self.learner, &all, 1.0, self.tokens, cancel)
    }

    /// What learns, and its optimiser.
    pub fn state_mut(&mut self) -> (&mut Learner, &mut Optimizer) {
        (&mut self.learner, &mut self.optimizer)
    }
}

/// A lesson of which no special token is hidden.
#[cfg_attr(not(feature = "tokenizer"), expect(unused_variables, unused_mut))]
fn text_of(model: &Model, mut lesson: Lesson) -> Lesson {
    #[cfg(feature = "tokenizer")]
    if let Ok(tokenizer) = model.tokenizer() {
        lesson.spare(|id| tokenizer.is_special(id));
    }
    lesson
}

/// Answers of one prompt after the other.
fn rankings(lessons: Vec<Lesson>, groups: &[u32]) -> Vec<Ranking> {
    let (mut all, mut last): (Vec<Ranking>, Option<u32>) = (Vec::new(), None);
    for (i, lesson) in lessons.into_iter().enumerate() {
        let group = groups.get(i).copied();
        match all.last_mut() {
            Some(ranking) if last == group => ranking.answers.push(lesson),
            _ => all.push(Ranking { answers: vec![lesson] }),
        }
        last = group;
    }
    all
}
