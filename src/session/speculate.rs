//! Floor 5: tokens guessed ahead, run at once, and kept as far as they are what the sampler chooses. Knows no tensors.
//!
//! A choice depends on the logits, the tokens before, the seed and the position. So the rows of a guess give the choices of
//! plain steps as long as the guess was right so far, and the cache is moved back to where it was not. Tokens chosen this
//! way wait in [`Ahead`] until a step takes them; any other call finds the session as plain steps would have left it.

use super::{Session, SessionConfig, Speculation};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::runner::Pick;
use crate::sample::SamplerConfig;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Most tokens guessed at once: beyond, even a fair chance that each is right leaves none of the whole.
const MOST: usize = 16;
/// Fewer equal tokens than this are no repetition.
const SHORTEST: usize = 2;
/// More equal tokens than this say nothing more.
const LONGEST: usize = 8;

/// Tokens that were chosen before anyone asked for them, and where guesses come from.
pub(super) struct Ahead {
    chosen: VecDeque<u32>,
    /// Most guesses; 0: none are made.
    most: usize,
    /// Guesses next time: twice as many after all were right, else one more than were right.
    width: usize,
    draft: Option<Box<Session>>,
}

impl Ahead {
    /// What a session of `model` takes.
    ///
    /// # Errors
    /// `Argument` for a number of guesses out of range, or a draft model with other tokens; as [`Session::new`].
    pub fn new(model: &Arc<Model>, config: &SessionConfig) -> Result<Ahead> {
        let (most, draft) = match &config.speculation {
            Speculation::None => {
                return Ok(Ahead { chosen: VecDeque::new(), most: 0, width: 0, draft: None });
            }
            Speculation::Lookup { tokens } => (*tokens, None),
            Speculation::Draft { model, tokens } => (*tokens, Some(model)),
        };
        if !(1..=MOST).contains(&most) {
            let what = format!("expected from 1 to {MOST} tokens, found {most}");
            return Err(Error::Argument { name: "speculation", what });
        }
        let draft = draft.map(|draft| {
            check_same_tokens(model, draft)?;
            let own = SessionConfig {
                context: config.context.min(draft.arch().max_positions),
                chunk: config.chunk,
                sampler: config.sampler.clone(),
                ..SessionConfig::default()
            };
            Session::new(draft, own).map(Box::new)
        });
        Ok(Ahead { chosen: VecDeque::with_capacity(MOST + 1), most, width: most, draft: draft.transpose()? })
    }

    /// A cancel of the session also ends the work of the draft model.
    pub fn obey(&mut self, cancel: &Arc<AtomicBool>) {
        if let Some(draft) = &mut self.draft {
            draft.cancel = cancel.clone();
        }
    }

    /// The draft model guesses by other settings from now on.
    pub fn set_sampler(&mut self, config: &SamplerConfig) -> Result<()> {
        self.draft.as_mut().map_or(Ok(()), |draft| draft.set_sampler(config.clone()))
    }

    /// The next token that was chosen ahead.
    pub fn next(&mut self) -> Option<u32> {
        self.chosen.pop_front()
    }

    /// Whether a token waits.
    pub fn waits(&self) -> bool {
        !self.chosen.is_empty()
    }

    /// Forgets what was chosen ahead.
    pub fn clear(&mut self) {
        self.chosen.clear();
    }
}

/// A draft is of use only where both models mean the same by an id.
fn check_same_tokens(model: &Model, draft: &Model) -> Result<()> {
    let (ours, theirs) = (model.arch().vocab(), draft.arch().vocab());
    let refused = |what| Err(Error::Argument { name: "draft", what });
    if ours != theirs {
        return refused(format!("expected a model of {ours} tokens, found {theirs}"));
    }
    #[cfg(feature = "tokenizer")]
    if let (Ok(ours), Ok(theirs)) = (model.tokenizer(), draft.tokenizer()) {
        let ids = 0..model.arch().vocab() as u32;
        let name = |token: Option<String>| token.map_or("no token".to_owned(), |name| format!("`{name}`"));
        for id in ids {
            let (ours, theirs) = (ours.id_to_token(id), theirs.id_to_token(id));
            if ours != theirs {
                let (ours, theirs) = (name(ours), name(theirs));
                return refused(format!("expected a model whose token {id} is {ours}, found {theirs}"));
            }
        }
    }
    Ok(())
}

impl Session {
    /// Makes the session what plain steps would have left: choices that nobody took are forgotten.
    pub(super) fn settle(&mut self) {
        self.ahead.clear();
        if self.seq.len > self.tokens.len() {
            self.forget_from(self.tokens.len());
        }
    }

    /// Chooses tokens ahead where that may pay; true where one waits.
    ///
    /// # Errors
    /// As [`Session::step`].
    pub(super) fn speculate(&mut self) -> Result<bool> {
        if self.ahead.most > 0 {
            self.refresh()?;
        }
        if self.ahead.waits() {
            return Ok(true);
        }
        if self.ahead.most == 0 || !self.config.rules.is_empty() || self.pending()? != 1 {
            return Ok(false);
        }
        // The right guesses and the choice after them must fit.
        let held = self.tokens.len();
        let width = self.ahead.width.min((self.config.context - held).saturating_sub(1));
        let start = Instant::now();
        let guessed = self.guess(width);
        self.timings.draft += start.elapsed();
        let chosen = guessed.and_then(|()| if self.tokens.len() > held { self.verify(held) } else { Ok(()) });
        self.tokens.truncate(held);
        chosen.map(|()| self.ahead.waits())
    }

    /// Adds at most `width` guesses to the tokens.
    fn guess(&mut self, width: usize) -> Result<()> {
        let Some(draft) = &mut self.ahead.draft else {
            if let Some(at) = repetition(&self.tokens) {
                (at..at + width).for_each(|at| self.tokens.push(self.tokens[at]));
            }
            return Ok(());
        };
        if self.tokens.len() + width > draft.context() {
            return Ok(());
        }
        draft.resume(&self.tokens)?;
        for _ in 0..width {
            match draft.step() {
                Ok(id) => self.tokens.push(id),
                // Logits of which none can be chosen: the draft ends, the conversation does not.
                Err(Error::Argument { .. }) => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Runs the last token and the guesses at and after `held`, and chooses a token after each as long as the guesses are
    /// what is chosen.
    fn verify(&mut self, held: usize) -> Result<()> {
        let (start, model, vocab) = (Instant::now(), self.model.clone(), self.model.arch().vocab());
        let guesses = self.tokens.len() - held;
        self.logits.clear();
        let mut runner = model.runner()?;
        let shape = self.run(&mut runner, guesses + 1, Pick::All, &[])?;
        let (ran, mut failed) = (Instant::now(), None);
        for (at, row) in (held..).zip(runner.answer(shape).chunks_exact(vocab)) {
            match self.sampler.choose(row, &mut self.scratch, &self.tokens[..at], at as u64) {
                Ok(id) => self.ahead.chosen.push_back(id),
                Err(e) => failed = Some(e),
            }
            if failed.is_some() || self.tokens.get(at) != self.ahead.chosen.back() {
                break;
            }
        }
        let chosen = self.ahead.chosen.len();
        let right = chosen.saturating_sub(1);
        runner.pool.rewind(&mut self.seq, held + right);
        self.ahead.width = if right == guesses { 2 * guesses } else { right + 1 }.min(self.ahead.most);
        let t = &mut self.timings;
        t.decode += ran - start;
        t.decode_tokens += 1 + right as u64;
        t.sample += ran.elapsed();
        t.sampled_tokens += chosen as u64;
        t.drafted_tokens += guesses as u64;
        t.accepted_tokens += right as u64;
        // A failure beyond the first choice comes again when the step that meets it is taken.
        failed.filter(|_| chosen == 0).map_or(Ok(()), Err)
    }
}

/// Where the longest repetition of the last tokens goes on, the latest among equals (Saxena 2023, "Prompt lookup
/// decoding").
fn repetition(tokens: &[u32]) -> Option<usize> {
    let (n, last) = (tokens.len(), *tokens.last()?);
    let (mut longest, mut found) = (SHORTEST - 1, None);
    for end in (1..n).rev() {
        if tokens[end - 1] != last {
            continue;
        }
        let same =
            (2..=LONGEST.min(end)).take_while(|back| tokens[end - back] == tokens[n - back]).count() + 1;
        if same > longest {
            (longest, found) = (same, Some(end));
        }
        if same == LONGEST {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::repetition;

    #[test]
    fn the_longest_and_latest_repetition_is_found() {
        assert_eq!(repetition(&[]), None);
        assert_eq!(repetition(&[1, 2, 3, 9, 3]), None, "one token is no repetition");
        assert_eq!(repetition(&[1, 2, 5, 1, 2, 6, 1, 2]), Some(5));
        assert_eq!(repetition(&[7, 1, 2, 5, 1, 2, 6, 7, 1, 2]), Some(3));
        assert_eq!(repetition(&[4, 4, 4]), Some(2), "it may overlap with itself");
        assert_eq!(repetition(&[1; 30]), Some(29));
    }
}
