//! Floor 5: one vector for each text (Reimers and Gurevych 2019). Knows no tokens.

use super::{Call, Input, encode_all, run};
use crate::arch::Rows;
use crate::encode::Ask;
use crate::error::{Error, Result};
use crate::format::task::Pooling;
use crate::model::Model;

/// How a text becomes a vector; what is not set is as the model's files say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmbedConfig {
    /// Which states: of the first token, of the last, or the mean of all. Without a word in the files: the mean, of a
    /// decoder the last.
    pub rows: Option<Rows>,
    /// Whether vectors are divided by their length. Without a word in the files: no.
    pub normalize: Option<bool>,
}

/// Vectors of texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    /// `[texts, dim]`
    pub values: Vec<f32>,
    /// Length of a vector.
    pub dim: usize,
}

/// The vectors of `inputs`. A text has the same bits alone and among others.
///
/// # Errors
/// `Tokenizer`; `Argument` for a text without tokens or, unless it may be cut, with more than the model takes; `Memory`,
/// `Budget`, `Cancelled`.
pub fn embed(model: &Model, inputs: &[Input], config: &EmbedConfig, mut call: Call) -> Result<Embeddings> {
    let pooling = pooling(model, config)?;
    let (dim, what) = (model.arch().first().state_cols(), "vectors of texts");
    let len = inputs.len().saturating_mul(dim);
    let mut values: Vec<f32> = Vec::new();
    values.try_reserve_exact(len).map_err(|_| Error::Memory { what, bytes: len as u64 * 4 })?;
    let encoded = encode_all(model, inputs, call.truncate)?;
    run(model, &encoded, Ask::Pooled(pooling.rows), &mut call, &mut |_, row, _| {
        let from = values.len();
        values.extend_from_slice(row);
        if pooling.normalize {
            normalize(&mut values[from..]);
        }
    })?;
    Ok(Embeddings { values, dim })
}

fn pooling(model: &Model, config: &EmbedConfig) -> Result<Pooling> {
    let own = model.pooling();
    let rows = config.rows.unwrap_or(own.rows);
    if rows == Rows::All {
        let what = "expected the first token, the last, or the mean, found all".to_owned();
        return Err(Error::Argument { name: "pooling", what });
    }
    Ok(Pooling { rows, normalize: config.normalize.unwrap_or(own.normalize) })
}

/// Divides a vector by its length; one of zeros stays.
fn normalize(x: &mut [f32]) {
    let squares: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let length = libm::sqrt(squares).max(1e-12);
    x.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
}
