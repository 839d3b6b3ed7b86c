//! Floor 5: how a session is made, cancelled and timed. Knows of a model only that it may draft.

use crate::model::Model;
use crate::rules::Rules;
use crate::sample::SamplerConfig;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// What happens when a token finds the context full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// `ContextFull`, and nothing changes.
    #[default]
    Stop,
    /// The first `keep` tokens stay, the older half of the others goes, and the rest is computed anew at its new
    /// positions (so the result has the bits of a fresh session with those tokens).
    DropOldest {
        /// Tokens at the start that stay: a system prompt, say.
        keep: usize,
    },
}

/// Whether [`Session::step`](super::Session::step) runs several guessed tokens at once, which a machine does in little more
/// than the time of one, and keeps those that it would have chosen anyway. Tokens and logits have the bits of plain
/// steps, with any sampler; only the time differs. (Leviathan et al. 2023, "Fast inference from transformers via
/// speculative decoding"; choices here depend on seed and position alone, so equal tokens take the place of its
/// acceptance by chance.)
#[derive(Clone, Default)]
pub enum Speculation {
    /// One token at a time.
    #[default]
    None,
    /// Guesses are what followed when the last tokens stood in the conversation before: for answers that repeat much of
    /// their prompt. Costs nothing where nothing repeats.
    Lookup {
        /// Most tokens guessed at once, from 1 to 16.
        tokens: usize,
    },
    /// Guesses come from a smaller model with the same tokens. It keeps a session of its own, as long as this one, which
    /// the budget of its engine is charged with.
    Draft {
        /// Which model.
        model: Arc<Model>,
        /// Most tokens guessed at once, from 1 to 16.
        tokens: usize,
    },
}

impl fmt::Debug for Speculation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Speculation::None => write!(f, "None"),
            Speculation::Lookup { tokens } => write!(f, "Lookup({tokens})"),
            Speculation::Draft { model, tokens } => write!(f, "Draft({}, {tokens})", model.tensors().file()),
        }
    }
}

/// How a session is made.
#[derive(Clone, Debug, Default)]
pub struct SessionConfig {
    /// Tokens it can hold; 0: what the model was made for, but at most 4,096.
    pub context: usize,
    /// What happens beyond.
    pub overflow: Overflow,
    /// Tokens of a prompt that run at once; 0: 512. The bits do not depend on it.
    pub chunk: usize,
    /// How tokens are chosen.
    pub sampler: SamplerConfig,
    /// How tokens are guessed ahead.
    pub speculation: Speculation,
    /// What may not and what must be chosen. Guessing ahead pauses where there are rules.
    pub rules: Rules,
}

/// Time spent and tokens done, since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// In runs of two tokens or more.
    pub prefill: Duration,
    /// Tokens of those.
    pub prefill_tokens: u64,
    /// In runs of one token, or of one token and guesses. The time of a pass that several sessions share counts whole
    /// for each of them.
    pub decode: Duration,
    /// Tokens of those; of guesses, the right ones.
    pub decode_tokens: u64,
    /// Choosing tokens.
    pub sample: Duration,
    /// Tokens chosen.
    pub sampled_tokens: u64,
    /// Guessing tokens.
    pub draft: Duration,
    /// Tokens guessed.
    pub drafted_tokens: u64,
    /// Guesses that were right.
    pub accepted_tokens: u64,
    /// Tokens whose keys and values were there already, because another session of the model began with the same ones.
    pub shared_tokens: u64,
}

impl Timings {
    /// A run of `tokens` tokens took `time`.
    pub(super) fn ran(&mut self, tokens: usize, time: Duration) {
        let (sum, count) = if tokens == 1 {
            (&mut self.decode, &mut self.decode_tokens)
        } else {
            (&mut self.prefill, &mut self.prefill_tokens)
        };
        *sum += time;
        *count += tokens as u64;
    }
}

/// Cancels a session's running call from any thread.
#[derive(Clone, Debug)]
pub struct Cancel(pub(super) Arc<AtomicBool>);

impl Cancel {
    /// The running call, or else the next one, ends with `Cancelled`; the session stays as it was before that call.
    pub fn cancel(&self) {
        self.0.store(true, Relaxed);
    }
}
