//! Floor 5: how a session is made, cancelled and timed. Knows no model.

use crate::sample::SamplerConfig;
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
}

/// Time spent and tokens done, since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// In runs of two tokens or more.
    pub prefill: Duration,
    /// Tokens of those.
    pub prefill_tokens: u64,
    /// In runs of one token.
    pub decode: Duration,
    /// Tokens of those.
    pub decode_tokens: u64,
    /// Choosing tokens.
    pub sample: Duration,
    /// Tokens chosen.
    pub sampled_tokens: u64,
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
