//! Floor 6: the options that all ways to train share. Knows no loop.

use super::peft::Peft;
use crate::args::{Run as Runs, at_least_one};
use crate::output::Failure;
use clap::{Args, ValueEnum};
use inlaid::model::Model;
use inlaid::train::run::RunConfig;
use inlaid::train::{LearnConfig, Rule, Schedule, What};
use serde_json::{Value, json};
use std::path::PathBuf;

/// How the learning rate goes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shape {
    /// As it is, after the warm-up
    Constant,
    /// Down to zero in a line
    Linear,
    /// Down to a tenth in half a cosine
    Cosine,
    /// One over the root of the step
    InverseRoot,
    /// Up and down in half cosines
    OneCycle,
    /// Up in a line over a tenth of the run, then down
    Slanted,
}

/// How a run learns, and where it writes.
#[derive(Args)]
pub struct Options {
    /// The directory of the run
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Go on from the newest checkpoint in OUT
    #[arg(long)]
    pub resume: bool,
    /// Steps [default: one epoch]
    #[arg(long, value_name = "N", conflicts_with = "epochs", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Times that each example is seen
    #[arg(long, value_name = "X", value_parser = positive)]
    epochs: Option<f64>,
    /// Examples of a step
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one)]
    batch: usize,
    /// Most tokens of one pass; a step takes as many passes as it needs
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = at_least_one)]
    pass_tokens: usize,
    /// Most tokens of an example; what is longer is cut [default: what the model can hold, at most 512]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_length: Option<usize>,
    /// Largest learning rate
    #[arg(long, value_name = "X", default_value_t = 1e-4)]
    rate: f32,
    /// How the rate goes
    #[arg(long, value_enum, value_name = "SHAPE", default_value = "cosine")]
    schedule: Shape,
    /// Steps over which the rate rises from zero [default: 3 % of them]
    #[arg(long, value_name = "N")]
    warmup: Option<u64>,
    /// Weight decay of matrices
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    weight_decay: f32,
    /// Decay of the optimiser's mean of gradients
    #[arg(long, value_name = "X", default_value_t = 0.9)]
    beta1: f32,
    /// Decay of its mean of squares
    #[arg(long, value_name = "X", default_value_t = 0.999)]
    beta2: f32,
    /// Added to the root of the corrected mean of squares
    #[arg(long, value_name = "X", default_value_t = 1e-8)]
    epsilon: f32,
    /// Largest norm of the gradient; 0: any
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    clip: f32,
    /// Share of each target that is spread over all tokens
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub smoothing: f32,
    /// Learn only tensors whose name contains one of these, separated by commas [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with_all = ["lora_rank", "peft"])]
    only: Vec<String>,
    #[command(flatten)]
    peft: Peft,
    /// Compute blocks again for their gradients: less memory, about a third more time, the same bits
    #[arg(long)]
    recompute: bool,
    /// Steps between checkpoints
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_every: u64,
    /// The same seed gives the same run
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub run: Runs,
}

fn positive(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|x: &f64| *x > 0.0 && x.is_finite());
    value.ok_or_else(|| "expected a number above 0".to_owned())
}

impl Options {
    /// Most tokens of an example.
    pub fn length(&self, model: &Model) -> usize {
        let most = model.arch().max_positions.saturating_sub(self.peft.lead()).max(1);
        self.max_length.unwrap_or(most.min(512))
    }

    /// What learns.
    ///
    /// # Errors
    /// `Usage` for adapters that cannot be learnt on; where one cannot be read.
    pub fn learns(&self, model: &Model) -> Result<LearnConfig, Failure> {
        let adapter = self.run.adapter_to_learn(model)?;
        if adapter.is_some() && (self.peft.is_some() || !self.only.is_empty()) {
            let what = "--adapter is what learns: it goes without --peft, --lora-rank and --only";
            return Err(Failure::Usage(what.to_owned()));
        }
        let what = match (adapter, self.peft.what(model)?) {
            (Some(adapter), _) => What::Adapter(adapter),
            (None, Some(what)) => what,
            _ if self.only.is_empty() => What::All,
            _ => What::Named(self.only.clone()),
        };
        Ok(LearnConfig { what, seed: self.seed, recompute: self.recompute, ..LearnConfig::default() })
    }

    /// Examples of a step.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Rounds of a run that learns from rewards.
    pub fn rounds(&self) -> u64 {
        self.steps.unwrap_or(50)
    }

    /// The run over so many examples.
    pub fn config(&self, examples: usize) -> RunConfig {
        let epochs = self.epochs.unwrap_or(1.0);
        let of_epochs = (examples as f64 * epochs / self.batch as f64).ceil().max(1.0) as u64;
        let steps = self.steps.unwrap_or(of_epochs);
        let warmup = self.warmup.unwrap_or(steps * 3 / 100);
        let schedule = match self.schedule {
            Shape::Constant => Schedule::Constant { warmup },
            Shape::Linear => Schedule::Linear { warmup },
            Shape::Cosine => Schedule::Cosine { warmup, floor: 0.1 },
            Shape::InverseRoot => Schedule::InverseRoot { warmup: warmup.max(1) },
            Shape::OneCycle => Schedule::OneCycle { up: 0.3 },
            Shape::Slanted => Schedule::Slanted { cut: 0.1, ratio: 32.0 },
        };
        let betas = [self.beta1, self.beta2];
        RunConfig {
            steps,
            batch: self.batch,
            tokens: self.pass_tokens,
            rate: self.rate,
            schedule,
            rule: Rule::AdamW { betas, eps: self.epsilon, decay: self.weight_decay },
            clip: self.clip,
            seed: self.seed,
        }
    }
}

/// All that a run's bits depend on, as a checkpoint says it.
pub fn base(o: &Options, kind: &str) -> Value {
    json!({
        "kind": kind, "steps": o.steps, "epochs": o.epochs, "batch": o.batch, "pass_tokens": o.pass_tokens,
        "max_length": o.max_length, "rate": o.rate, "schedule": format!("{:?}", o.schedule), "warmup": o.warmup,
        "weight_decay": o.weight_decay, "beta1": o.beta1, "beta2": o.beta2, "epsilon": o.epsilon, "clip": o.clip,
        "smoothing": o.smoothing, "only": o.only, "peft": o.peft.said(), "seed": o.seed,
    })
}
