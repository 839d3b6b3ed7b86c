//! Floor 6: what answers are worth: by a rule, a reward model, or another program. Knows no training.

use crate::args::{Run, files};
use crate::output::{Failure, read_text};
use inlaid::encode::{Ask, Text, run};
use inlaid::model::Model;
use serde_json::json;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// An answer, as text and as long as it is.
pub struct Said {
    /// The prompt.
    pub prompt: String,
    /// The answer, without special tokens.
    pub answer: String,
    /// Its tokens, over the most that it may have.
    pub length: f32,
}

/// Who says what answers are worth.
pub enum Reward {
    /// The share of the most tokens that an answer has.
    Length,
    /// The share of its words that are in a list.
    Lexicon(HashSet<String>),
    /// A model with one output, over prompt and answer.
    Model(Arc<Model>),
    /// A program that reads a line of JSON for each answer, `{"prompt", "answer"}`, and writes a line with a number.
    Program(Box<Program>),
}

/// A program that is asked.
pub struct Program {
    name: String,
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Drop for Program {
    fn drop(&mut self) {
        // Its input ends with it; one that does not end by itself is not waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Reward {
    /// What `text` means: `builtin:length`, `builtin:lexicon:FILE`, `model:DIR` or `cmd:PROGRAM`.
    ///
    /// # Errors
    /// `Usage` for anything else; where the file, model or program cannot be opened.
    pub fn parse(text: &str, runs: &Run, model: &Model) -> Result<Reward, Failure> {
        if text == "builtin:length" {
            return Ok(Reward::Length);
        }
        if let Some(path) = text.strip_prefix("builtin:lexicon:") {
            let words: HashSet<String> = words(&read_text(Path::new(path))?).collect();
            if words.is_empty() {
                return Err(Failure::Cannot(format!("{path}: expected words, found none")));
            }
            return Ok(Reward::Lexicon(words));
        }
        if let Some(path) = text.strip_prefix("model:") {
            let reward = runs.open_plain(model.engine(), &files(Path::new(path))?, true)?;
            if reward.arch().head.n != 1 || !reward.has_head() {
                let n = reward.arch().head.n;
                return Err(Failure::Cannot(format!("{path}: expected a model with one output, found {n}")));
            }
            return Ok(Reward::Model(reward));
        }
        if let Some(name) = text.strip_prefix("cmd:") {
            return Ok(Reward::Program(Box::new(Program::start(name)?)));
        }
        let what = "expected builtin:length, builtin:lexicon:FILE, model:DIR or cmd:PROGRAM";
        Err(Failure::Usage(format!("--reward: {what}, found {text}")))
    }

    /// What each answer is worth.
    ///
    /// # Errors
    /// Where the model or the program says no.
    pub fn of(&mut self, answers: &[Said]) -> Result<Vec<f32>, Failure> {
        match self {
            Reward::Length => Ok(answers.iter().map(|said| said.length).collect()),
            Reward::Lexicon(list) => {
                let share = |said: &Said| {
                    let all: Vec<String> = words(&said.answer).collect();
                    let known = all.iter().filter(|word| list.contains(*word)).count();
                    known as f32 / all.len().max(1) as f32
                };
                Ok(answers.iter().map(share).collect())
            }
            Reward::Model(model) => scores(model, answers),
            Reward::Program(program) => answers.iter().map(|said| program.ask(said)).collect(),
        }
    }
}

/// The words of a text, in small letters.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|w| !w.is_empty()).map(str::to_lowercase)
}

fn scores(model: &Model, answers: &[Said]) -> Result<Vec<f32>, Failure> {
    let tokenizer = model.tokenizer()?;
    let mut ids = Vec::new();
    for said in answers {
        let mut own = tokenizer.encode(&format!("{}{}", said.prompt, said.answer), true, true)?;
        own.truncate(model.arch().max_positions);
        ids.push(own);
    }
    let texts: Vec<Text> = ids.iter().map(|ids| Text { ids, types: &[] }).collect();
    let mut out = vec![0.0; texts.len()];
    run(model, &texts, Ask::Head, &AtomicBool::new(false), &mut None, &mut |i, row, _| out[i] = row[0])?;
    Ok(out)
}

impl Program {
    fn start(name: &str) -> Result<Program, Failure> {
        let cannot = |e: std::io::Error| Failure::Cannot(format!("--reward: {name}: {e}"));
        let mut child =
            Command::new(name).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(cannot)?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::Cannot(format!("--reward: {name} has no input and output")));
        };
        Ok(Program { name: name.to_owned(), child, to, from: BufReader::new(from) })
    }

    fn ask(&mut self, said: &Said) -> Result<f32, Failure> {
        let cannot = |e: std::io::Error| Failure::Cannot(format!("--reward: {}: {e}", self.name));
        let line = json!({"prompt": said.prompt, "answer": said.answer});
        writeln!(self.to, "{line}").and_then(|()| self.to.flush()).map_err(cannot)?;
        let mut text = String::new();
        self.from.read_line(&mut text).map_err(cannot)?;
        let value = text.trim().parse().ok().filter(|value: &f32| value.is_finite());
        let name = &self.name;
        value.ok_or_else(|| {
            Failure::Cannot(format!(
                "--reward: {name}: expected a line with a number, found {:?}",
                text.trim_end()
            ))
        })
    }
}
