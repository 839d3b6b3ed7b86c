//! Floor 6: where a run writes: checkpoints, log, picture, model; and what is seen of it meanwhile. Knows no losses.

use super::options::Options;
use super::plot;
use crate::interrupt;
use crate::output::{Failure, note};
use indicatif::{ProgressBar, ProgressStyle};
use inlaid::Error;
use inlaid::format::files::Files;
use inlaid::train::{Learner, Optimizer, save};
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a run becomes.
const MODEL: &str = "model";
const ADAPTER: &str = "adapter";

/// Where a run writes.
pub struct Place {
    out: PathBuf,
    /// What the run is, for the one that goes on.
    said: Value,
    /// Steps (or rounds) from checkpoint to checkpoint.
    every: u64,
}

impl Place {
    /// The place of a run that says of itself what `said` does.
    ///
    /// # Errors
    /// `Cannot` where another run has left something.
    pub fn new(options: &Options, said: Value) -> Result<Place, Failure> {
        let place = Place { out: options.out.clone(), said, every: options.checkpoint_every };
        let found = save::newest(&place.checkpoints())?;
        for done in [MODEL, ADAPTER].map(|name| place.out.join(name)) {
            if done.exists() {
                return Err(Failure::Cannot(format!("{} is there already: the run is done", done.display())));
            }
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

    /// Goes on from the newest checkpoint, where that is asked for and there is one. Returns what the run said beside.
    ///
    /// # Errors
    /// `Cannot` where the checkpoint is of a run with other settings; as [`save::restore`].
    pub fn resume(
        &self,
        options: &Options,
        (learner, optimizer): (&mut Learner, &mut Optimizer),
    ) -> Result<Value, Failure> {
        if !options.resume {
            return Ok(Value::Null);
        }
        let Some((said, at)) = save::newest(&self.checkpoints())? else { return Ok(Value::Null) };
        let done = said.get("step").and_then(Value::as_u64).unwrap_or(0);
        if said.get("run") != Some(&self.said) {
            return Err(Failure::Cannot(format!(
                "{} is of a run with other settings: {} (this one: {})",
                at.display(),
                said.get("run").unwrap_or(&Value::Null),
                self.said
            )));
        }
        save::restore(learner, optimizer, &at, done)?;
        Ok(said.get("more").cloned().unwrap_or(json!(done)))
    }

    /// What is due between two steps (or rounds, as `unit` says), of which `done` are: a checkpoint every so often, and where
    /// Ctrl-C was pressed, which ends the run here. `more` will be said when a run goes on from the checkpoint.
    ///
    /// # Errors
    /// `Cancelled` where the run ends, once the bar is gone and a note says so; as [`save::checkpoint`].
    pub fn pause(
        &self,
        watch: &Watch,
        (unit, done): (&str, u64),
        more: Value,
        (learner, optimizer): (&mut Learner, &mut Optimizer),
    ) -> Result<(), Failure> {
        let asked = interrupt::flow().is_break();
        if asked || done.is_multiple_of(self.every) {
            let said = json!({"step": optimizer.steps(), "run": self.said, "more": more});
            save::checkpoint(learner, optimizer, &self.checkpoints(), &said)?;
        }
        if asked {
            watch.bar.finish_and_clear();
            note(&format!("stopped after {unit} {done}: go on with --resume"));
            return Err(Error::Cancelled.into());
        }
        Ok(())
    }

    /// Writes the model or adapter; checkpoints, and the model that a run from scratch began with, go.
    ///
    /// # Errors
    /// As [`save::model`].
    pub fn model(&self, learner: &mut Learner, files: &Files) -> Result<PathBuf, Failure> {
        let out = self.out.join(if learner.is_adapter() { ADAPTER } else { MODEL });
        save::model(learner, files, &out)?;
        for done in [self.checkpoints(), self.out.join("new")] {
            // What cannot be removed does no harm.
            let _ = fs::remove_dir_all(done);
        }
        Ok(out)
    }

    /// Draws what the log says of `key`.
    ///
    /// # Errors
    /// As [`plot::curve`].
    pub fn plot(&self, key: &str) -> Result<(), Failure> {
        plot::curve(&self.log(), key, &self.out.join(format!("{key}.svg")))
    }
}

/// The bar and the log.
pub struct Watch {
    bar: ProgressBar,
    log: fs::File,
    path: PathBuf,
    start: Instant,
    /// When the last step was seen.
    last: Instant,
    tokens: usize,
}

impl Watch {
    /// Of `steps` steps, of which `done` are.
    ///
    /// # Errors
    /// `Engine` where the log cannot be written.
    pub fn new(place: &Place, steps: u64, done: u64) -> Result<Watch, Failure> {
        let path = place.log();
        keep(&path, done)?;
        let log = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        let style = ProgressStyle::with_template("{msg} [{wide_bar}] {pos} of {len}, {eta} left");
        let bar = ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_position(done);
        bar.enable_steady_tick(Duration::from_secs(1));
        let start = Instant::now();
        Ok(Watch { bar, log, path, start, last: start, tokens: 0 })
    }

    /// Shows and logs a step, after which `tokens` more have run.
    ///
    /// # Errors
    /// `Engine` where the log cannot be written.
    pub fn see(&mut self, step: u64, tokens: usize, message: &str, mut line: Value) -> Result<(), Failure> {
        self.tokens += tokens;
        let speed = self.tokens as f64 / self.start.elapsed().as_secs_f64().max(1e-9);
        self.bar.set_message(format!("{message}, {speed:.0} tokens/s"));
        self.bar.set_position(step);
        line["tokens_per_s"] = json!(speed);
        line["seconds"] = json!(self.last.elapsed().as_secs_f64());
        self.last = Instant::now();
        writeln!(self.log, "{line}").map_err(Error::io(&self.path))?;
        Ok(())
    }

    /// Ends the bar, and brings the log to the disk.
    ///
    /// # Errors
    /// `Engine` where that cannot be done.
    pub fn end(self) -> Result<(), Failure> {
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
