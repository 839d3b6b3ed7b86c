//! Floor 6: `inlaid chat`. Knows a conversation as messages, and how a terminal talks.

use crate::args::{Guessing, Run, Sampling, guesses, suggested};
use crate::generate::{finish, rate};
use crate::interrupt::{self, Cancels};
use crate::output::{Failure, note, print};
use clap::Args;
use inlaid::chat::{RenderOptions, message};
use inlaid::generate::{Finish, GenerateConfig, Generated, generate};
use inlaid::model::Model;
use inlaid::sample::SamplerConfig;
use inlaid::session::{Session, SessionConfig, Timings};
use serde_json::Value;
use std::io::{self, BufRead, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

const AFTER: &str = "\
Within a chat: /help, /reset (forget the conversation), /stats (times and memory), /quit. Ctrl-C stops an answer and
not the program; at the prompt, twice ends it. Standard input may be a file or a pipe: a line is a message.
Where the model's authors suggest nothing in generation_config.json, tokens are drawn with temperature 0.7 and top-p 0.9.

Examples:
  inlaid chat model.gguf
  inlaid chat ./model --system \"Answer in one sentence.\" --temperature 0.7";

const HELP: &str =
    "/reset forgets the conversation, /stats says how long things took, /quit ends; Ctrl-C stops an answer";

/// Talk with a model
///
/// Needs a model with a chat template; the model that ships has none.
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct Chat {
    /// Directory, .safetensors file with its config beside it, or .gguf file
    model: PathBuf,
    /// What the system says before the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Most tokens of an answer
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1024)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    guessing: Guessing,
    #[command(flatten)]
    run: Run,
}

/// Runs the command.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Chat) -> Result<(), Failure> {
    let model = args.run.open(&args.model)?;
    if model.template().is_err() {
        let hint = "it has no chat template; `inlaid generate` continues a text";
        return Err(Failure::Cannot(format!("{}: {hint}", args.model.display())));
    }
    interrupt::install(|| note("\n(Ctrl-C again or /quit to end)"));
    let mut talk = Talk::new(args, &model)?;
    let terminal = io::stdin().is_terminal();
    if terminal {
        note(HELP);
    }
    let mut lines = io::stdin().lock();
    loop {
        if terminal {
            let _ = write!(io::stderr(), "> ").and_then(|()| io::stderr().flush()); // only decoration
        }
        let mut line = String::new();
        let read = lines.read_line(&mut line);
        interrupt::clear();
        if read.map_err(|e| Failure::Cannot(format!("standard input: {e}")))? == 0 {
            return Ok(());
        }
        match line.trim() {
            "" => {}
            "/quit" | "/exit" => return Ok(()),
            "/help" => note(HELP),
            "/reset" => talk.reset(),
            "/stats" => talk.stats(),
            command if command.starts_with('/') => note(&format!("unknown command {command}; {HELP}")),
            text => talk.turn(text, terminal)?,
        }
    }
}

/// A conversation.
struct Talk<'a> {
    args: &'a Chat,
    session: Session,
    /// What was said, the system's part first where there is one.
    messages: Vec<Value>,
    before: usize,
}

impl<'a> Talk<'a> {
    fn new(args: &'a Chat, model: &std::sync::Arc<Model>) -> Result<Talk<'a>, Failure> {
        let sampler = args.sampling.over(settings(model));
        let speculation = args.guessing.speculation(&args.run, model)?;
        let session = args.run.session(
            model,
            4096,
            SessionConfig { sampler, speculation, ..SessionConfig::default() },
        )?;
        let messages: Vec<Value> = args.system.iter().map(|text| message("system", text)).collect();
        let before = messages.len();
        Ok(Talk { args, session, messages, before })
    }

    fn reset(&mut self) {
        self.messages.truncate(self.before);
        self.session.rewind(0);
        note("forgotten");
    }

    /// One message of the user's and the answer to it. What goes wrong with one turn does not end the chat.
    fn turn(&mut self, text: &str, terminal: bool) -> Result<(), Failure> {
        let (start, before) = (Instant::now(), self.session.timings());
        self.messages.push(message("user", text));
        let answered = self.prepare().and_then(|()| self.answer());
        interrupt::clear();
        match answered {
            Ok(answer) => {
                print(if answer.text.ends_with('\n') { "" } else { "\n" })?;
                if terminal || answer.finish != Finish::End {
                    note(&format!("[{}; {}]", summary(&answer, before, self.session.timings()), took(start)));
                }
                self.messages.push(message("assistant", &answer.text));
                Ok(())
            }
            Err(Failure::Engine(e)) => {
                self.messages.pop();
                note(&format!("inlaid: {e}"));
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Makes the messages what the session holds, without the oldest turns where there are too many.
    fn prepare(&mut self) -> Result<(), Failure> {
        let model = self.session.model().clone();
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        // Room for an answer: an eighth of the context, if not more was asked for.
        let room = self.args.max_tokens.min(self.session.context() / 8);
        loop {
            let text = model.template()?.render(&Value::Array(self.messages.clone()), &options)?;
            let ids = model.tokenizer()?.encode(&text, false, true)?;
            let oldest = self.before..(self.before + 2).min(self.messages.len().saturating_sub(1));
            if ids.len() + room <= self.session.context() || oldest.is_empty() {
                self.session.resume(&ids)?;
                return Ok(());
            }
            self.messages.drain(oldest);
            note("(the context is full: the oldest turn is forgotten)");
        }
    }

    fn answer(&mut self) -> Result<Generated, Failure> {
        let _cancels = Cancels::new(self.session.cancel());
        let config = GenerateConfig { max_tokens: self.args.max_tokens, ..GenerateConfig::default() };
        let mut printed = Ok(());
        let answer = generate(&mut self.session, &config, |_, text| {
            printed = print(text);
            if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        printed.map(|()| answer)
    }

    fn stats(&self) {
        let (model, t) = (self.session.model(), self.session.timings());
        let shown = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.1}"));
        note(&format!(
            "{} of {} tokens held; prefill {} tokens at {} tokens/s; decode {} at {}; loaded in {:?}; {} threads, {}",
            self.session.tokens().len(),
            self.session.context(),
            t.prefill_tokens,
            shown(rate(t.prefill_tokens, t.prefill)),
            t.decode_tokens,
            shown(rate(t.decode_tokens, t.decode)),
            model.load_times().weights + model.load_times().tokenizer,
            model.engine().threads(),
            model.engine().isa(),
        ));
    }
}

/// What the model's authors suggest; where they suggest nothing, a little variety: small models repeat themselves without.
fn settings(model: &Model) -> SamplerConfig {
    let usual = || SamplerConfig { temperature: 0.7, top_p: 0.9, ..SamplerConfig::default() };
    suggested(model).unwrap_or_else(usual)
}

fn summary(answer: &Generated, before: Timings, now: Timings) -> String {
    let shown = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.1} tokens/s"));
    let (prompt, decoded) =
        (now.prefill_tokens - before.prefill_tokens, now.decode_tokens - before.decode_tokens);
    format!(
        "{}: read {prompt} tokens at {}, wrote {} at {}{}",
        finish(answer.finish),
        shown(rate(prompt, now.prefill.saturating_sub(before.prefill))),
        answer.ids.len(),
        shown(rate(decoded, (now.decode + now.draft).saturating_sub(before.decode + before.draft))),
        guesses(before, now),
    )
}

fn took(start: Instant) -> String {
    format!("{:.1} s", start.elapsed().as_secs_f64())
}
