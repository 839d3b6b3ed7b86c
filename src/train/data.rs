//! Floor 5: what is learnt from: texts and lines of JSON into tokens. Knows no losses.

use crate::error::{Error, Result};
#[cfg(feature = "tokenizer")]
use crate::{
    model::Model,
    tokenizer::{Encoded, Tokenizer},
};
use serde_json::Value;
use std::path::Path;

/// Tokens of which some are to be learnt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lesson {
    /// Of an encoder-decoder, what its encoder reads; else nothing.
    pub source: Vec<u32>,
    /// The tokens; of an encoder-decoder its decoder's, the one that it begins with among them.
    pub ids: Vec<u32>,
    /// Whether each is to be learnt, given those before. The first never is.
    pub counts: Vec<bool>,
}

impl Lesson {
    /// Adds tokens that are to be learnt, or not.
    pub fn push(&mut self, ids: &[u32], counts: bool) {
        self.ids.extend_from_slice(ids);
        self.counts.resize(self.ids.len(), counts);
    }

    /// Takes tokens that `which` says from what is to be learnt: those that no text says, of what is hidden and guessed.
    pub fn spare(&mut self, which: impl Fn(u32) -> bool) {
        self.ids.iter().zip(&mut self.counts).for_each(|(id, counts)| *counts &= !which(*id));
    }

    /// Cuts what is beyond `most` tokens, of a source but its last; whether anything to learn is left.
    #[cfg_attr(not(feature = "tokenizer"), expect(dead_code))]
    fn fit(&mut self, most: usize) -> bool {
        let ends = self.source.last().copied();
        if let (true, Some(end)) = (self.source.len() > most, ends) {
            self.source.truncate(most.saturating_sub(1));
            self.source.push(end); // what the encoder was trained to end with
        }
        self.ids.truncate(most);
        self.counts.truncate(most);
        self.counts.iter().skip(1).any(|counts| *counts)
    }
}

/// Answers to one prompt, the best first, each behind the prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranking {
    /// Their tokens, and which belong to the answer.
    pub answers: Vec<Lesson>,
}

/// Reads lines of JSON, each an object: what `each` makes of them, in order. Empty lines are passed over.
///
/// # Errors
/// `Io`; `Format` naming the line; where there is none at all.
pub fn lines<T>(path: &Path, mut each: impl FnMut(&Value) -> Result<T, String>) -> Result<Vec<T>> {
    let name = path.to_string_lossy();
    let wrong = |what: String| Error::Format { file: name.clone().into_owned(), what };
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        wrong(format!("expected UTF-8, found another byte at {}", e.utf8_error().valid_up_to()))
    })?;
    let mut all = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let value: Value =
            serde_json::from_str(line).map_err(|e| wrong(format!("line {}: expected JSON: {e}", i + 1)))?;
        all.push(each(&value).map_err(|what| wrong(format!("line {}: {what}", i + 1)))?);
    }
    if all.is_empty() {
        return Err(wrong("expected lines of JSON, found none".to_owned()));
    }
    Ok(all)
}

#[cfg(feature = "tokenizer")]
fn text<'v>(value: &'v Value, key: &str) -> Result<&'v str, String> {
    value.get(key).and_then(Value::as_str).ok_or_else(|| format!("expected a text called `{key}`"))
}

/// The text that has one of two names.
#[cfg(feature = "tokenizer")]
fn either<'v>(value: &'v Value, keys: [&str; 2]) -> Result<&'v str, String> {
    if value.get(keys[1]).is_some() { text(value, keys[1]) } else { text(value, keys[0]) }
}

/// How lines become lessons for one model.
#[cfg(feature = "tokenizer")]
pub struct Reader<'m> {
    model: &'m Model,
    tokenizer: &'m Tokenizer,
    /// Most tokens of a lesson; what is longer is cut at the end.
    most: usize,
}

#[cfg(feature = "tokenizer")]
impl<'m> Reader<'m> {
    /// One for `model`, whose lessons have `most` tokens at most.
    ///
    /// # Errors
    /// `Tokenizer` where the model has none; `Argument` where it cannot hold so many tokens.
    pub fn new(model: &'m Model, most: usize) -> Result<Reader<'m>> {
        model.arch().check_len(most)?;
        Ok(Reader { model, tokenizer: model.tokenizer()?, most })
    }

    fn encode(&self, text: &str, begins: bool) -> Result<Vec<u32>, String> {
        self.tokenizer.encode(text, begins, true).map_err(|e| e.to_string())
    }

    /// The token after a whole answer.
    fn end(&self) -> Option<u32> {
        self.tokenizer.eos().or_else(|| self.model.generation().eos_token_ids.first().copied())
    }

    /// `{"prompt", "completion"}`, of which the completion and an end token are learnt; or `{"messages": [{"role",
    /// "content"}, ...]}`, a chat through the model's template, of which all that the assistant says is learnt; or `{"text"}`,
    /// all of which is. A prompt may be called `source` and a completion `target`; encoder-decoders learn nothing else: the
    /// encoder reads the source, and the decoder's answer is learnt.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn lesson(&self, value: &Value) -> Result<Lesson, String> {
        let pairs = self.model.arch().reads_source();
        if pairs && ["messages", "text"].iter().any(|key| value.get(key).is_some()) {
            return Err(
                "expected `source` and `target`: this model reads one text and writes another".to_owned()
            );
        }
        let mut lesson = if let Some(messages) = value.get("messages") {
            self.chat(messages)?
        } else if value.get("text").is_some() {
            let mut lesson = Lesson::default();
            lesson.push(&self.encode(text(value, "text")?, true)?, true);
            lesson.push(self.end().as_slice(), true);
            lesson
        } else {
            self.answered(either(value, ["prompt", "source"])?, either(value, ["completion", "target"])?)?
        };
        if lesson.fit(self.most) {
            return Ok(lesson);
        }
        Err(format!("nothing is left to learn within {} tokens", self.most))
    }

    fn answered(&self, prompt: &str, answer: &str) -> Result<Lesson, String> {
        let (mut lesson, prompt) = (Lesson::default(), self.encode(prompt, true)?);
        if self.model.arch().reads_source() {
            lesson.source = prompt;
            lesson.push(&[self.model.first_token().map_err(|e| e.to_string())?], false);
            // What every answer begins with by the rules of the model.
            lesson.push(self.model.generation().rules.forced_first.as_slice(), true);
        } else {
            lesson.push(&prompt, false);
        }
        lesson.push(&self.encode(answer, false)?, true);
        lesson.push(self.end().as_slice(), true);
        Ok(lesson)
    }

    #[cfg(feature = "chat-template")]
    fn chat(&self, messages: &Value) -> Result<Lesson, String> {
        use crate::chat::RenderOptions;
        let template = self.model.template().map_err(|e| e.to_string())?;
        let list = messages.as_array().ok_or("expected `messages` to be a list")?;
        let render = |messages: &[Value], add_generation_prompt: bool| {
            let options = RenderOptions { add_generation_prompt, ..RenderOptions::default() };
            template.render(&Value::Array(messages.to_vec()), &options).map_err(|e| e.to_string())
        };
        let (mut lesson, mut done) = (Lesson::default(), String::new());
        for (i, message) in list.iter().enumerate() {
            if message.get("role").and_then(Value::as_str) != Some("assistant") {
                continue;
            }
            for (whole, counts) in [(render(&list[..i], true)?, false), (render(&list[..=i], false)?, true)] {
                let more = whole.strip_prefix(&done).ok_or(
                    "the chat template changes earlier messages when later ones come: write prompts and completions",
                )?;
                lesson.push(&self.encode(more, false)?, counts);
                done = whole;
            }
        }
        Ok(lesson)
    }

    #[cfg(not(feature = "chat-template"))]
    fn chat(&self, _: &Value) -> Result<Lesson, String> {
        Err("this build has no chat templates: write prompts and completions".to_owned())
    }

    /// `{"prompt", "chosen", "rejected"}`, or `{"prompt", "ranked": [...]}` with the best answer first.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn ranking(&self, value: &Value) -> Result<Ranking, String> {
        let prompt = text(value, "prompt")?;
        let answers: Vec<&str> = match value.get("ranked") {
            Some(ranked) => {
                let list = ranked.as_array().ok_or("expected `ranked` to be a list of texts")?;
                let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                texts.ok_or("expected `ranked` to be a list of texts")?
            }
            None => vec![text(value, "chosen")?, text(value, "rejected")?],
        };
        if answers.len() < 2 {
            return Err(format!("expected at least two answers, found {}", answers.len()));
        }
        let answers = answers.into_iter().map(|answer| {
            let mut lesson = self.answered(prompt, answer)?;
            let fits = lesson.fit(self.most);
            fits.then_some(lesson).ok_or_else(|| format!("no answer is left within {} tokens", self.most))
        });
        Ok(Ranking { answers: answers.collect::<Result<_, _>>()? })
    }
}

/// A text cut into windows of `len` tokens and one, each of which begins with the last token of the one before. What is left
/// at the end is no window.
///
/// # Errors
/// `Argument` where the text is too short for one.
pub fn windows(ids: &[u32], len: usize) -> Result<Vec<&[u32]>> {
    let count = ids.len().saturating_sub(1) / len.max(1);
    if len == 0 || count == 0 {
        let what = format!("expected more than {len} tokens, found {}", ids.len());
        return Err(Error::Argument { name: "data", what });
    }
    Ok((0..count).map(|i| &ids[i * len..=(i + 1) * len]).collect())
}

/// A text cut into whole texts of `len` tokens at most, each with what the tokenizer put around the long one. All tokens count
/// that are not special.
///
/// # Errors
/// `Argument` where `len` leaves no room for tokens of the text; `Tokenizer` where the text has none.
#[cfg(feature = "tokenizer")]
pub fn whole_texts(text: &Encoded, tokenizer: &Tokenizer, len: usize) -> Result<Vec<Lesson>> {
    let is_added = |of: &&Option<usize>| of.is_none();
    let before = text.texts.iter().take_while(is_added).count();
    let after = text.texts[before..].iter().rev().take_while(is_added).count();
    let (first, rest) = text.ids.split_at(before);
    let (own, last) = rest.split_at(rest.len() - after);
    if len <= before + after {
        let what = format!("expected more than {} tokens, found {len}", before + after);
        return Err(Error::Argument { name: "length", what });
    }
    let whole = |own: &[u32]| {
        let mut lesson = Lesson::default();
        lesson.push(first, false);
        lesson.push(own, true);
        lesson.push(last, false);
        lesson.spare(|id| tokenizer.is_special(id));
        lesson
    };
    let all = own.chunks(len - before - after).map(whole);
    let lessons: Vec<Lesson> = all.filter(|lesson| lesson.counts.contains(&true)).collect();
    if lessons.is_empty() {
        return Err(Error::Tokenizer("expected a text that has tokens, found none".to_owned()));
    }
    Ok(lessons)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_share_one_token_and_none_is_lost() {
        let ids: Vec<u32> = (0..10).collect();
        let all = windows(&ids, 3).expect("windows");
        assert_eq!(all, [&ids[0..4], &ids[3..7], &ids[6..10]]);
        assert!(windows(&ids, 10).is_err() && windows(&ids, 0).is_err() && windows(&[], 1).is_err());
    }

    #[test]
    fn a_lesson_without_anything_to_learn_is_none() {
        let mut lesson = Lesson::default();
        lesson.push(&[1, 2, 3], false);
        lesson.push(&[4], true);
        assert!(lesson.clone().fit(4));
        assert!(!lesson.fit(3));
        let mut lesson = Lesson { source: vec![5, 6, 7, 2], ids: vec![0, 8], counts: vec![false, true] };
        assert!(lesson.fit(3));
        assert_eq!(lesson.source, [5, 6, 2]);
    }

    #[test]
    fn what_is_spared_is_not_learnt() {
        let mut lesson = Lesson::default();
        lesson.push(&[2], false);
        lesson.push(&[5, 3, 6], true);
        lesson.spare(|id| id < 5);
        assert_eq!(lesson.counts, [false, true, false, true]);
    }
}
