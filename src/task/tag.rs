//! Floor 5: classes of tokens, with where each token stands in its text. Knows no tensors.

use super::{Call, Input, encode_all, expect, largest, run, softmax};
use crate::arch::Task;
use crate::encode::Ask;
use crate::error::Result;
use crate::model::Model;

/// A token of a text and its most likely class.
#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    /// The token.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// First character in the text, and the one after the last.
    pub span: (usize, usize),
    /// Which text of a pair, 0 or 1.
    pub second: bool,
    /// The class's number.
    pub class: usize,
    /// Its name.
    pub label: String,
    /// Its probability.
    pub probability: f32,
}

/// The tokens of each of `inputs`, those that the tokenizer adds left out.
///
/// # Errors
/// `Argument` for a model that does not classify tokens; otherwise as [`embed`](super::embed()).
pub fn tag(model: &Model, inputs: &[Input], mut call: Call) -> Result<Vec<Vec<Tag>>> {
    expect(model, Task::Tag)?;
    let encoded = encode_all(model, inputs, call.truncate)?;
    let mut out = Vec::new();
    run(model, &encoded, Ask::Head, &mut call, &mut |i, rows, classes| {
        let (input, encoded) = (&inputs[i], &encoded[i]);
        let mut tags = Vec::new();
        for (at, row) in rows.chunks_exact(classes.max(1)).enumerate() {
            let Some(text) = encoded.texts[at] else { continue };
            let own = if text == 0 { input.text } else { input.second.unwrap_or_default() };
            let (class, probability) = largest(&softmax(row));
            let span = encoded.spans[at];
            let text_of = own.chars().skip(span.0).take(span.1.saturating_sub(span.0)).collect();
            let (id, second) = (encoded.ids[at], text == 1);
            tags.push(Tag { id, text: text_of, span, second, class, label: model.label(class), probability });
        }
        out.push(tags);
    })?;
    Ok(out)
}
