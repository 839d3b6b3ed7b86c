//! Floor 6: `inlaid train`: options, and the loop around a run: bar, log, plot, checkpoints. Knows no losses.

mod options;
mod peft;
mod place;
mod plot;
mod ppo;
mod reward;

use crate::args::files;
use crate::interrupt;
use crate::output::{Failure, json, note, read_text};
use clap::{Args, Subcommand};
use inlaid::Error;
use inlaid::arch;
use inlaid::format::files::Files;
use inlaid::model::Model;
use inlaid::train::data::{Lesson, Reader, lines, whole_texts, windows};
use inlaid::train::mask::{MaskedTokens, Masking};
use inlaid::train::reference::Reference;
use inlaid::train::run::{Report, Run};
use inlaid::train::task::{NextToken, Preferences, Rewards, Task};
use inlaid::train::{Learner, init};
use options::{Options, base};
use place::{Place, Watch};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const AFTER: &str = "\
OUT becomes a directory with `model` (opens like any other; with --peft, --lora-rank or --adapter `adapter`, which peft reads too, or, with --peft bottleneck, adapters), `log.jsonl` (a line for each step), `loss.svg` and, while the run \
lasts, `checkpoints`. Ctrl-C ends the run after a checkpoint; the same command with --resume goes on, with the bits of a run \
that was never interrupted.

Examples:
  inlaid train lm ./model --data book.txt --out ./run --steps 500
  inlaid train lm --config ./new-model --data book.txt --out ./run
  inlaid train sft ./model --data answers.jsonl --out ./run
  inlaid train sft ./model --data answers.jsonl --peft dora --lora-rank 8 --out ./run
  inlaid train reward ./classifier --data preferences.jsonl --out ./run
  inlaid train dpo ./model --data preferences.jsonl --out ./run
  inlaid train ppo demo --prompts prompts.txt --reward builtin:lexicon:words.txt --out ./run --steps 50";

/// Teach a model: from texts, answers, rankings or preferences
#[derive(Args)]
#[command(after_help = AFTER, arg_required_else_help = true)]
pub struct Train {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Lm(Lm),
    Sft(Sft),
    Reward(Reward),
    Dpo(Dpo),
    Ppo(ppo::Ppo),
}

/// Plain text, from scratch or onward: the next token, or of a model like BERT tokens that are hidden
#[derive(Args)]
struct Lm {
    /// Directory, .safetensors file with its config beside it, or `demo`
    #[arg(value_name = "MODEL", required_unless_present = "config", conflicts_with = "config")]
    model: Option<PathBuf>,
    /// A directory with the config.json and the tokenizer of a model that does not exist yet
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// A text file; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// A text of which nothing is learnt and the loss is told at the end
    #[arg(long, value_name = "FILE")]
    held_out: Option<PathBuf>,
    /// Share of the tokens that are hidden, of a model that guesses such ones; anew each time that a text is seen
    #[arg(long, value_name = "X", default_value_t = 0.15)]
    mask_share: f64,
    #[command(flatten)]
    options: Options,
}

/// Answers to prompts: lines of {"prompt", "completion"}, {"messages"} or {"text"}; the loss is on answers alone
#[derive(Args)]
struct Sft {
    #[command(flatten)]
    of: Lines,
}

/// A score for answers: lines of {"prompt", "chosen", "rejected"} or {"prompt", "ranked": [best, ..., worst]}
///
/// The model has one output: a ...ForSequenceClassification with one label.
#[derive(Args)]
struct Reward {
    #[command(flatten)]
    of: Lines,
}

/// Preferences without a reward model: lines as those of `reward`
#[derive(Args)]
struct Dpo {
    /// How much staying near the model that it was counts
    #[arg(long, value_name = "X", default_value_t = 0.1)]
    beta: f64,
    #[command(flatten)]
    of: Lines,
}

/// A model, and lines that it learns from.
#[derive(Args)]
struct Lines {
    /// Directory, .safetensors file with its config beside it, or `demo`
    model: PathBuf,
    /// Lines of JSON
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    options: Options,
}

impl Lines {
    /// Runs the task that `task` makes of the lines.
    fn run(
        &self,
        kind: &str,
        task: impl FnOnce(&Reader, &Arc<Model>) -> Result<Box<dyn Task>, Error>,
    ) -> Result<(), Failure> {
        let (files, model) = open(&self.model, &self.options)?;
        let task = task(&Reader::new(&model, self.options.length(&model))?, &model)?;
        go(&self.options, base(&self.options, kind), &files, &model, task, None)
    }
}

/// Runs the command.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Train) -> Result<(), Failure> {
    match &args.command {
        Command::Lm(args) => lm(args),
        Command::Sft(Sft { of }) => of.run("sft", |reader, _| {
            let lessons = lines(&of.data, |value| reader.lesson(value))?;
            Ok(Box::new(NextToken::new(lessons, of.options.smoothing)?))
        }),
        Command::Reward(Reward { of }) => of.run("reward", |reader, _| {
            Ok(Box::new(Rewards::new(lines(&of.data, |value| reader.ranking(value))?)?))
        }),
        Command::Dpo(Dpo { of, beta }) => of.run("dpo", |reader, model| {
            let rankings = lines(&of.data, |value| reader.ranking(value))?;
            Ok(Box::new(Preferences::new(rankings, Reference::new(model), *beta)?))
        }),
        Command::Ppo(args) => ppo::run(args),
    }
}

fn open(model: &Path, options: &Options) -> Result<(Files, Arc<Model>), Failure> {
    let (files, engine) = (files(model)?, options.run.engine()?);
    let model = options.run.open_to_learn(&engine, &files)?;
    Ok((files, model))
}

fn lm(args: &Lm) -> Result<(), Failure> {
    let options = &args.options;
    let source = match (&args.model, &args.config) {
        (Some(model), _) => model.clone(),
        (None, config) => {
            let new = options.out.join("new");
            if let Some(config) = config.as_ref().filter(|_| !new.is_dir()) {
                fs::create_dir_all(&options.out).map_err(Error::io(&options.out))?;
                init::write(&Files::at(config)?, &new, options.seed)?;
            }
            new
        }
    };
    let (files, model) = open(&source, options)?;
    let texts = |paths: &[PathBuf], smoothing: f32| -> Result<Box<dyn Task>, Failure> {
        match model.arch().head.task {
            arch::Task::MaskedLm => hidden(args, &model, paths, smoothing),
            arch::Task::LanguageModel => {
                let lessons = next(&model, paths, options.length(&model))?;
                Ok(Box::new(NextToken::new(lessons, smoothing)?))
            }
            made => Err(Failure::Cannot(format!("expected a language model, found one for {}", made.name()))),
        }
    };
    let held_out = args.held_out.as_ref().map(|path| texts(std::slice::from_ref(path), 0.0)).transpose()?;
    let mut said = base(options, "lm");
    said["mask_share"] = json!(args.mask_share);
    go(options, said, &files, &model, texts(&args.data, options.smoothing)?, held_out)
}

/// The next tokens of texts, one after the other.
fn next(model: &Model, paths: &[PathBuf], length: usize) -> Result<Vec<Lesson>, Failure> {
    let mut ids = Vec::new();
    for path in paths {
        ids.extend(model.tokenizer()?.encode(&read_text(path)?, true, true)?);
    }
    let whole =
        |ids: &[u32]| Lesson { ids: ids.to_vec(), counts: vec![true; ids.len()], ..Lesson::default() };
    Ok(windows(&ids, length)?.into_iter().map(whole).collect())
}

/// Tokens of texts that are hidden.
fn hidden(args: &Lm, model: &Model, paths: &[PathBuf], smoothing: f32) -> Result<Box<dyn Task>, Failure> {
    let (tokenizer, mut lessons) = (model.tokenizer()?, Vec::new());
    for path in paths {
        let text = tokenizer.encode_pair(&read_text(path)?, None)?;
        lessons.extend(whole_texts(&text, tokenizer, args.options.length(model))?);
    }
    let masking = Masking::new(model, args.mask_share, None, args.options.seed)?;
    Ok(Box::new(MaskedTokens::new(lessons, masking, smoothing)?))
}

/// Runs all steps, and writes what was learnt.
fn go(
    options: &Options,
    said: Value,
    files: &Files,
    model: &Arc<Model>,
    task: Box<dyn Task>,
    held_out: Option<Box<dyn Task>>,
) -> Result<(), Failure> {
    let place = Place::new(options, said)?;
    let learner = Learner::new(model, &options.learns(model)?)?;
    let config = options.config(task.examples());
    let mut run = Run::new(learner, task, config)?;
    let begun = place.resume(options, (&mut run.learner, &mut run.optimizer))?.as_u64().unwrap_or(0);
    interrupt::install(|| {});
    let (mut watch, mut loss) = (Watch::new(&place, run.config().steps, begun)?, f64::NAN);
    while !run.is_done() {
        let report = run.step(&AtomicBool::new(false))?;
        loss = if loss.is_nan() { report.loss } else { 0.95 * loss + 0.05 * report.loss };
        watch.see(report.step, report.tokens, &format!("loss {loss:.4}"), line(&report))?;
        if !run.is_done() {
            let state = (&mut run.learner, &mut run.optimizer);
            place.pause(&watch, ("step", report.step), json!(report.step), state)?;
        }
    }
    watch.end()?;
    place.plot("loss")?;
    let tokens = run.config().tokens;
    let held = held_out.map(|mut task| task.loss(&mut run.learner, tokens, &AtomicBool::new(false)));
    let held = held.transpose()?;
    let out = place.model(&mut run.learner, files)?;
    if options.json {
        return json(&json!({
            "out": out, "steps": run.config().steps, "loss": loss, "held_out_loss": held,
        }));
    }
    let held = held.map_or(String::new(), |loss| format!(", held out {loss:.4} nats a token"));
    note(&format!("{}: {} steps, loss {loss:.4}{held}", out.display(), run.config().steps));
    Ok(())
}

fn line(report: &Report) -> Value {
    let Report { step, loss, rate, norm, tokens, epoch } = *report;
    json!({"step": step, "loss": loss, "rate": rate, "grad_norm": norm, "tokens": tokens, "epoch": epoch})
}
