//! Floor 3: which head a decoder's files have, by the class that wrote them. Knows no family.

use super::{Head, Linear, Rows, Task, only};
use crate::error::{Error, Result};
use crate::format::config::Config;

/// The head that the first of `architectures` has: a class of the last token (`score`), of each token (a linear called
/// `tag`), a span, none, or, where nothing is said, `lm`. What `lm` has before its last linear comes before the others too.
///
/// # Errors
/// `Unsupported` for a class with another head, `Format` for a list of anything but names.
pub fn head_of(c: &Config, lm: Head, tag: &'static str) -> Result<Head> {
    let Some(class) = class(c)? else { return Ok(lm) };
    let ends = |ends: &[&str]| ends.iter().any(|end| class.ends_with(end));
    let before = |head: Head| Head { dense: lm.dense, ..head };
    if ends(&["ForCausalLM", "LMHeadModel"]) {
        return Ok(lm);
    }
    if ends(&["ForSequenceClassification"]) {
        return Ok(before(Head::classes(Task::Classify, Rows::Last, Linear::new("score"), labels(c)?)));
    }
    if ends(&["ForTokenClassification"]) {
        return Ok(before(Head::classes(Task::Tag, Rows::All, Linear::new(tag).bias(true), labels(c)?)));
    }
    if ends(&["ForQuestionAnswering"]) {
        let ends = Linear::new("qa_outputs").bias(true);
        return Ok(before(Head::classes(Task::Span, Rows::All, ends, 2)));
    }
    if ends(&["Model"]) && !ends(&["DoubleHeadsModel"]) {
        return Ok(before(Head::NONE));
    }
    let what = format!("architectures = [\"{class}\"], whose head is not known");
    Err(Error::Unsupported { file: c.file().to_owned(), what })
}

/// The first of `architectures`.
fn class(c: &Config) -> Result<Option<&str>> {
    let Some(listed) = c.raw("architectures").filter(|listed| !listed.is_null()) else { return Ok(None) };
    let refuse = || c.bad("architectures: expected a list of names of at most 256 bytes");
    let listed = listed.as_array().ok_or_else(refuse)?;
    let name = |value: &'_ serde_json::Value| value.as_str().is_some_and(|name| name.len() <= 256);
    match listed.first() {
        None => Ok(None),
        Some(first) if name(first) => Ok(first.as_str()),
        Some(_) => Err(refuse()),
    }
}

/// How many labels a classifier has: `num_labels`, or as many as `id2label` names, or two.
///
/// # Errors
/// `Format` where either is of the wrong type.
pub fn labels(c: &Config) -> Result<usize> {
    let named = c.object("id2label")?.map(|labels| labels.object_itself().len());
    Ok(c.maybe_usize("num_labels")?.or(named).unwrap_or(2))
}

/// Marks as read what GPT's files say about a head for multiple choice, which no model here has.
pub fn unread_summary(c: &Config) -> Result<()> {
    for key in ["activation", "first_dropout", "proj_to_labels", "type", "use_proj"] {
        only(c, &format!("summary_{key}"), |_| true)?;
    }
    only(c, "n_ctx", |_| true)
}
