//! Floor 3: which head a decoder's files have, by the class that wrote them. Knows no family.

use super::head::{class, labels, unknown};
use super::{Head, Linear, Rows, Task, only};
use crate::error::Result;
use crate::format::config::Config;

/// The head that the first of `architectures` has: a class of the last token (`score`), of each token (a linear called
/// `tag`), a span, none, or, where nothing is said, `lm`.
///
/// # Errors
/// `Unsupported` for a class with another head, `Format` for a number of labels that is none.
pub fn head_of(c: &Config, lm: Head, tag: &'static str) -> Result<Head> {
    Ok(match Task::of(c, Task::LanguageModel)? {
        Task::LanguageModel => lm,
        Task::Classify => Head::classes(Task::Classify, Rows::Last, Linear::new("score"), labels(c)?),
        Task::Tag => Head::classes(Task::Tag, Rows::All, Linear::new(tag).bias(true), labels(c)?),
        Task::Span => Head::classes(Task::Span, Rows::All, Linear::new("qa_outputs").bias(true), 2),
        Task::Hidden => Head::NONE,
        Task::MaskedLm => return Err(unknown(c, class(c).unwrap_or_default())),
    })
}

/// Marks as read what GPT's files say about a head for multiple choice, which no model here has.
pub fn unread_summary(c: &Config) -> Result<()> {
    for key in ["activation", "first_dropout", "proj_to_labels", "type", "use_proj"] {
        only(c, &format!("summary_{key}"), |_| true)?;
    }
    only(c, "n_ctx", |_| true)
}
