//! Floor 5: text out of a session: tokens until one of the reasons to stop, streamed as whole characters. Knows no
//! tensors.

use crate::error::{Error, Result};
use crate::session::Session;
use crate::tokenizer::Decoder;
use std::ops::ControlFlow;

/// When to stop.
#[derive(Clone, Debug)]
pub struct GenerateConfig {
    /// Most tokens to choose.
    pub max_tokens: usize,
    /// Text that ends the answer; it is not part of it. Empty strings are refused.
    pub stop: Vec<String>,
    /// Tokens that end the answer beside those the model names.
    pub stop_ids: Vec<u32>,
    /// Go on after the model's own end tokens.
    pub ignore_end: bool,
}

impl Default for GenerateConfig {
    fn default() -> GenerateConfig {
        GenerateConfig { max_tokens: 256, stop: Vec::new(), stop_ids: Vec::new(), ignore_end: false }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// `max_tokens` were chosen.
    Length,
    /// An end token of the model or of the host.
    End,
    /// A stop string.
    Stop,
    /// The callback said so.
    Callback,
    /// Somebody called cancel; what was written stays.
    Cancelled,
    /// The context is full and the session's policy is to stop.
    Context,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Tokens chosen, a closing end token included.
    pub ids: Vec<u32>,
    /// Their text, special tokens left out, up to a stop string.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
}

/// Chooses tokens after what the session holds, and hands `each` every token with the text that became certain with it
/// (whole characters; empty while one is unfinished or a stop string may have begun).
///
/// # Errors
/// As [`Session::step`], but for a cancel or a full context, which end the answer; `Argument` for an empty stop string.
pub fn generate(
    session: &mut Session,
    config: &GenerateConfig,
    mut each: impl FnMut(u32, &str) -> ControlFlow<()>,
) -> Result<Generated> {
    if config.stop.iter().any(String::is_empty) {
        return Err(Error::Argument {
            name: "stop",
            what: "expected text, found an empty string".to_owned(),
        });
    }
    let model = session.model().clone();
    let mut decoder = Decoder::new(model.tokenizer()?, true);
    let mut out = Generated { ids: Vec::new(), text: String::new(), finish: Finish::Length };
    let mut held = Held::new(&config.stop);
    while out.ids.len() < config.max_tokens {
        let id = match session.step() {
            Ok(id) => id,
            Err(Error::Cancelled) => {
                return Ok(end(out, Finish::Cancelled, &mut held, &mut decoder, &mut each));
            }
            Err(Error::ContextFull { .. }) => {
                return Ok(end(out, Finish::Context, &mut held, &mut decoder, &mut each));
            }
            Err(e) => return Err(e),
        };
        out.ids.push(id);
        if config.stop_ids.contains(&id) || (!config.ignore_end && model.is_end(id)) {
            return Ok(end(out, Finish::End, &mut held, &mut decoder, &mut each));
        }
        let stopped = held.push(decoder.push(id));
        let text = held.take(stopped);
        out.text.push_str(text);
        let flow = each(id, text);
        if stopped || flow.is_break() {
            out.finish = if stopped { Finish::Stop } else { Finish::Callback };
            return Ok(out);
        }
    }
    Ok(end(out, Finish::Length, &mut held, &mut decoder, &mut each))
}

/// Ends an answer: what was held back turned out to be text.
fn end(
    mut out: Generated,
    finish: Finish,
    held: &mut Held,
    decoder: &mut Decoder,
    each: &mut impl FnMut(u32, &str) -> ControlFlow<()>,
) -> Generated {
    let stopped = held.push(decoder.flush());
    let text = held.take(true);
    if let (Some(&id), false) = (out.ids.last(), text.is_empty()) {
        let _ = each(id, text); // the answer is over, whatever the callback says
    }
    out.text.push_str(text);
    out.finish = if stopped { Finish::Stop } else { finish };
    out
}

/// Text that is not certain yet: its end may be the beginning of a stop string.
struct Held<'a> {
    stop: &'a [String],
    text: String,
    /// Bytes of `text` that were taken.
    taken: usize,
    /// Bytes of `text` that are certain.
    certain: usize,
}

impl<'a> Held<'a> {
    fn new(stop: &'a [String]) -> Held<'a> {
        Held { stop, text: String::new(), taken: 0, certain: 0 }
    }

    /// Adds text; true where it completes a stop string, which is then cut off.
    fn push(&mut self, more: &str) -> bool {
        self.text.drain(..self.taken);
        self.taken = 0;
        self.text.push_str(more);
        if let Some(at) = self.stop.iter().filter_map(|stop| self.text.find(stop.as_str())).min() {
            self.text.truncate(at);
            self.certain = at;
            return true;
        }
        // The longest end of the text that begins a stop string is held back.
        let begins = |at: &usize| self.stop.iter().any(|stop| stop.starts_with(&self.text[*at..]));
        let longest = self.stop.iter().map(String::len).max().unwrap_or(0);
        let first = self.text.len().saturating_sub(longest);
        let mut ends = (first..self.text.len()).filter(|at| self.text.is_char_boundary(*at));
        self.certain = ends.find(begins).unwrap_or(self.text.len());
        false
    }

    /// The text that became certain; all of it where nothing can follow.
    fn take(&mut self, all: bool) -> &str {
        self.taken = if all { self.text.len() } else { self.certain };
        &self.text[..self.taken]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(stop: &[&str], pieces: &[&str]) -> (String, bool) {
        let stop: Vec<String> = stop.iter().map(|s| (*s).to_owned()).collect();
        let (mut held, mut out) = (Held::new(&stop), String::new());
        for piece in pieces {
            let stopped = held.push(piece);
            out.push_str(held.take(stopped));
            if stopped {
                return (out, true);
            }
        }
        held.push("");
        out.push_str(held.take(true));
        (out, false)
    }

    #[test]
    fn a_stop_string_is_found_across_pieces_and_never_shown() {
        assert_eq!(stream(&["END"], &["one E", "N", "D two"]), ("one ".to_owned(), true));
        assert_eq!(stream(&["END"], &["one E", "N", "O"]), ("one ENO".to_owned(), false));
        assert_eq!(stream(&["bc", "abcd"], &["xa", "b", "c"]), ("xa".to_owned(), true));
        assert_eq!(stream(&["é!"], &["caf", "é", "?"]), ("café?".to_owned(), false));
        assert_eq!(stream(&["\n\n"], &["a\n", "\n", "b"]), ("a".to_owned(), true));
        assert_eq!(stream(&[], &["a", "b"]), ("ab".to_owned(), false));
    }
}
