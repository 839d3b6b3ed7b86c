//! Floor 5: how likely a text is, token by token. Knows no tensors.

use crate::error::Result;
use crate::model::Model;
use crate::session::{Session, SessionConfig};
use std::sync::Arc;

/// A text's tokens and how likely each is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// The tokens that were scored.
    pub ids: Vec<u32>,
    /// The log-probability of each, natural, given all before. The first token of a text that begins with nothing has none
    /// and is left out.
    pub logprobs: Vec<f32>,
    /// Their sum.
    pub total: f64,
}

/// How likely `ids` are after `before`: of a decoder what comes before them, of an encoder-decoder the source text.
///
/// # Errors
/// As [`Session::score`] and [`Session::set_source`].
pub fn score(model: &Arc<Model>, before: &[u32], ids: &[u32]) -> Result<Score> {
    let seq2seq = model.arch().reads_source();
    let own = if seq2seq { 1 } else { before.len() };
    let config = SessionConfig { context: (own + ids.len()).max(1), ..SessionConfig::default() };
    let mut session = Session::new(model, config)?;
    if seq2seq {
        session.set_source(before)?;
        session.accept(model.first_token()?)?;
    } else if !before.is_empty() {
        session.prefill(before)?;
    }
    let logprobs = session.score(ids)?;
    let ids = ids[ids.len() - logprobs.len()..].to_vec();
    let total = logprobs.iter().map(|x| f64::from(*x)).sum();
    Ok(Score { ids, logprobs, total })
}
