//! Floor 4: which parameters learn, and where their gradients lie. Knows no maths.
#![cfg_attr(not(feature = "train"), allow(dead_code))] // nothing learns then

use crate::weights::{P, Param, Weights};
use kernels::Span;

/// The memory that holds the gradients of parameters.
pub const GRADS: usize = 1;

/// Words between two gradients are a multiple of this: two cache lines.
const UNIT: usize = 32;

/// Which parameters learn, and where their gradients lie.
#[derive(Clone, Debug, Default)]
pub struct Learns {
    spans: Vec<Option<Span>>,
    /// Words of all gradients.
    pub words: usize,
    /// Whether blocks are computed again for their gradients, so that only what they read stays.
    pub recompute: bool,
    /// Whether anything learns that an encoder before a decoder reads.
    pub encoder: bool,
}

impl Learns {
    /// None.
    pub const NONE: Learns = Learns { spans: Vec::new(), words: 0, recompute: false, encoder: false };

    /// The parameters that `which` says.
    pub fn new(weights: &Weights, which: impl Fn(P) -> bool) -> Learns {
        let mut words = 0;
        let span = |(i, param): (usize, &Param)| {
            let [rows, cols] = param.shape();
            which(P(i as u32)).then(|| {
                let at = words;
                words += (rows * cols).next_multiple_of(UNIT);
                Span { mem: GRADS, at, rows, cols }
            })
        };
        let spans = weights.params.iter().enumerate().map(span).collect();
        Learns { spans, words, ..Learns::NONE }
    }

    /// Whether a parameter learns.
    pub fn has(&self, p: P) -> bool {
        self.span(p).is_some()
    }

    /// Where its gradient lies.
    pub fn span(&self, p: P) -> Option<Span> {
        self.spans.get(p.0 as usize).copied().flatten()
    }
}
