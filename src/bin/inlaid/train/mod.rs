//! Floor 6: `inlaid train`: options, and the loop around a run: bar, log, plot, checkpoints. Knows no losses.

mod options;
mod plot;

use crate::args::files;
use crate::interrupt;
use crate::output::{Failure, json, note};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use inlaid::Error;
use inlaid::format::files::Files;
use inlaid::model::Model;
use inlaid::train::data::{Lesson, Reader, lines, windows};
use inlaid::train::reference::Reference;
use inlaid::train::run::{Report, Run};
use inlaid::train::task::{NextToken, Preferences, Rewards, Task};
use inlaid::train::{Learner, init, save};
use options::{Options, base};
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const AFTER: &str = "\
OUT becomes a directory with `model` (opens like any other), `log.jsonl` (a line for each step), `loss.svg` and, while the run \
lasts, `checkpoints`. Ctrl-C ends the run after a checkpoint; the same command with --resume goes on, with the bits of a run \
that was never interrupted.

Examples:
  inlaid train lm ./model --data book.txt --out ./run --steps 500
  inlaid train lm --config ./new-model --data book.txt --out ./run
  inlaid train sft ./model --data answers.jsonl --out ./run
  inlaid train reward ./classifier --data preferences.jsonl --out ./run
  inlaid train dpo ./model --data preferences.jsonl --out ./run";

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
}

/// The next token of plain text, from scratch or onward
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
    #[command(flatten)]
    options: Options,
}

/// Answers to prompts: lines of {"prompt", "completion"}, {"messages"} or {"text"}; the loss is on answers alone
#[derive(Args)]
struct Sft {
    /// Directory, .safetensors file with its config beside it, or `demo`
    model: PathBuf,
    /// Lines of JSON
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    options: Options,
}

/// A score for answers: lines of {"prompt", "chosen", "rejected"} or {"prompt", "ranked": [best, ..., worst]}
#[derive(Args)]
struct Reward {
    /// A model with one output: a ...ForSequenceClassification with one label
    model: PathBuf,
    /// Lines of JSON
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    options: Options,
}

/// Preferences without a reward model: lines as those of `reward`
#[derive(Args)]
struct Dpo {
    /// Directory, .safetensors file with its config beside it, or `demo`
    model: PathBuf,
    /// Lines of JSON
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// How much staying near the model that it was counts
    #[arg(long, value_name = "X", default_value_t = 0.1)]
    beta: f64,
    #[command(flatten)]
    options: Options,
}

/// Runs the command.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Train) -> Result<(), Failure> {
    match &args.command {
        Command::Lm(args) => lm(args),
        Command::Sft(args) => {
            let (files, model) = open(&args.model, &args.options)?;
            let reader = Reader::new(&model, args.options.length(&model))?;
            let lessons = lines(&args.data, |value| reader.lesson(value))?;
            let task = Box::new(NextToken::new(lessons, args.options.smoothing)?);
            go(&args.options, "sft", &files, &model, task, None)
        }
        Command::Reward(args) => {
            let (files, model) = open(&args.model, &args.options)?;
            let reader = Reader::new(&model, args.options.length(&model))?;
            let task = Box::new(Rewards::new(lines(&args.data, |value| reader.ranking(value))?)?);
            go(&args.options, "reward", &files, &model, task, None)
        }
        Command::Dpo(args) => {
            let (files, model) = open(&args.model, &args.options)?;
            let reader = Reader::new(&model, args.options.length(&model))?;
            let rankings = lines(&args.data, |value| reader.ranking(value))?;
            let task = Box::new(Preferences::new(rankings, Reference::new(&model), args.beta)?);
            go(&args.options, "dpo", &files, &model, task, None)
        }
    }
}

fn open(model: &Path, options: &Options) -> Result<(Files, Arc<Model>), Failure> {
    let (files, engine) = (files(model)?, options.run.engine()?);
    let model = options.run.open_on(&engine, &files, true)?;
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
    let length = options.length(&model);
    let lessons = |paths: &[PathBuf]| -> Result<Vec<Lesson>, Failure> {
        let mut ids = Vec::new();
        for path in paths {
            ids.extend(model.tokenizer()?.encode(&crate::output::read_text(path)?, true, true)?);
        }
        let whole = |ids: &[u32]| Lesson { ids: ids.to_vec(), counts: vec![true; ids.len()] };
        Ok(windows(&ids, length)?.into_iter().map(whole).collect())
    };
    let held_out = args.held_out.as_ref().map(|path| lessons(std::slice::from_ref(path))).transpose()?;
    let task = Box::new(NextToken::new(lessons(&args.data)?, options.smoothing)?);
    go(options, "lm", &files, &model, task, held_out)
}

/// Runs all steps, and writes what was learnt.
fn go(
    options: &Options,
    kind: &str,
    files: &Files,
    model: &Arc<Model>,
    task: Box<dyn Task>,
    held_out: Option<Vec<Lesson>>,
) -> Result<(), Failure> {
    let place = Place::new(options, kind)?;
    let learner = Learner::new(model, &options.learns())?;
    let config = options.config(task.len());
    let mut run = Run::new(learner, task, config)?;
    let begun = place.resume(options, &mut run)?;
    interrupt::install(|| {});
    let mut watch = Watch::new(&place, run.config().steps, begun)?;
    while !run.is_done() {
        let report = run.step(&AtomicBool::new(false))?;
        watch.see(&report)?;
        let asked = interrupt::flow().is_break();
        let due = report.step.is_multiple_of(options.checkpoint_every) && !run.is_done();
        if asked || due {
            place.checkpoint(&mut run)?;
        }
        if asked && !run.is_done() {
            drop(watch);
            note(&format!("stopped after step {}: go on with --resume", report.step));
            return Err(Error::Cancelled.into());
        }
    }
    let loss = watch.loss;
    watch.end()?;
    place.plot()?;
    let held = held_out.map(|lessons| loss_of(&mut run, lessons)).transpose()?;
    let out = place.model(&mut run, files)?;
    if options.json {
        return json(&json!({
            "out": out, "steps": run.config().steps, "loss": loss, "held_out_loss": held,
        }));
    }
    let held = held.map_or(String::new(), |loss| format!(", held out {loss:.4} nats a token"));
    note(&format!("{}: {} steps, loss {loss:.4}{held}", out.display(), run.config().steps));
    Ok(())
}

/// The mean loss of lessons of which nothing is learnt.
fn loss_of(run: &mut Run, lessons: Vec<Lesson>) -> Result<f64, Failure> {
    let mut task = NextToken::new(lessons, 0.0)?;
    let tokens = run.config().tokens;
    Ok(task.loss(&mut run.learner, tokens, &AtomicBool::new(false))?)
}

/// Where a run writes.
struct Place {
    out: PathBuf,
    /// What the run is, for the one that goes on.
    said: Value,
}

impl Place {
    fn new(options: &Options, kind: &str) -> Result<Place, Failure> {
        let place = Place { out: options.out.clone(), said: base(options, kind) };
        let (model, found) = (place.out.join("model"), save::newest(&place.checkpoints())?);
        if model.exists() {
            return Err(Failure::Cannot(format!("{} is there already: the run is done", model.display())));
        }
        if found.is_some() && !options.resume {
            let at = place.checkpoints();
            let what = "holds a checkpoint of another run: go on with --resume, or remove it";
            return Err(Failure::Cannot(format!("{} {what}", at.display())));
        }
        fs::create_dir_all(&place.out).map_err(Error::io(&place.out))?;
        Ok(place)
    }

    fn checkpoints(&self) -> PathBuf {
        self.out.join("checkpoints")
    }

    fn log(&self) -> PathBuf {
        self.out.join("log.jsonl")
    }

    /// Goes on from the newest checkpoint, where that is asked for and there is one. Returns the steps done.
    fn resume(&self, options: &Options, run: &mut Run) -> Result<u64, Failure> {
        if !options.resume {
            return Ok(0);
        }
        let Some((said, at)) = save::newest(&self.checkpoints())? else { return Ok(0) };
        let done = said.get("step").and_then(Value::as_u64).unwrap_or(0);
        if said.get("run") != Some(&self.said) {
            return Err(Failure::Cannot(format!(
                "{} is of a run with other settings: {} (this one: {})",
                at.display(),
                said.get("run").unwrap_or(&Value::Null),
                self.said
            )));
        }
        save::restore(&mut run.learner, &mut run.optimizer, &at, done)?;
        Ok(done)
    }

    fn checkpoint(&self, run: &mut Run) -> Result<(), Failure> {
        let said = json!({"step": run.optimizer.steps(), "run": self.said});
        Ok(save::checkpoint(&mut run.learner, &run.optimizer, &self.checkpoints(), &said)?)
    }

    /// Writes the model; checkpoints, and the model that a run from scratch began with, go.
    fn model(&self, run: &mut Run, files: &Files) -> Result<PathBuf, Failure> {
        let out = self.out.join("model");
        save::model(&mut run.learner, files, &out)?;
        for done in [self.checkpoints(), self.out.join("new")] {
            // What cannot be removed does no harm.
            let _ = fs::remove_dir_all(done);
        }
        Ok(out)
    }

    fn plot(&self) -> Result<(), Failure> {
        plot::loss(&self.log(), &self.out.join("loss.svg"))
    }
}

/// The bar and the log.
struct Watch {
    bar: ProgressBar,
    log: fs::File,
    path: PathBuf,
    start: Instant,
    tokens: usize,
    /// A running mean.
    loss: f64,
}

impl Watch {
    fn new(place: &Place, steps: u64, done: u64) -> Result<Watch, Failure> {
        let path = place.log();
        keep(&path, done)?;
        let log = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        let style = ProgressStyle::with_template("{msg} [{wide_bar}] {pos} of {len}, {eta} left");
        let bar = ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_position(done);
        bar.enable_steady_tick(Duration::from_secs(1));
        Ok(Watch { bar, log, path, start: Instant::now(), tokens: 0, loss: f64::NAN })
    }

    fn see(&mut self, report: &Report) -> Result<(), Failure> {
        let Report { step, loss, rate, norm, tokens, epoch } = *report;
        self.tokens += tokens;
        self.loss = if self.loss.is_nan() { loss } else { 0.95 * self.loss + 0.05 * loss };
        let seconds = self.start.elapsed().as_secs_f64();
        let speed = self.tokens as f64 / seconds.max(1e-9);
        self.bar.set_message(format!("loss {:.4}, {speed:.0} tokens/s", self.loss));
        self.bar.set_position(step);
        let line = json!({
            "step": step, "loss": loss, "rate": rate, "grad_norm": norm, "tokens": tokens, "epoch": epoch,
            "tokens_per_s": speed,
        });
        writeln!(self.log, "{line}").map_err(Error::io(&self.path))?;
        Ok(())
    }

    fn end(self) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        Ok(self.log.sync_all().map_err(Error::io(&self.path))?)
    }
}

/// Keeps the lines of a log up to step `done`.
fn keep(path: &Path, done: u64) -> Result<(), Failure> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(()) };
    let step = |line: &str| serde_json::from_str::<Value>(line).ok()?.get("step")?.as_u64();
    let kept: String = text
        .lines()
        .filter(|line| step(line).is_some_and(|step| step <= done))
        .flat_map(|line| [line, "\n"])
        .collect();
    inlaid::format::write::whole_file(path, |out| out.write_all(kept.as_bytes()).map_err(Error::io(path)))?;
    Ok(())
}
