//! Floor 6: `inlaid train ppo`. Knows what the library's trainer asks for.

use super::options::{Options, base};
use super::place::{Place, Watch};
use super::reward::{Reward, Said};
use crate::args::at_least_one;
use crate::interrupt;
use crate::output::{Failure, json, note, read_text};
use clap::Args;
use inlaid::model::Model;
use inlaid::train::order::Order;
use inlaid::train::ppo::advantage::KlControl;
use inlaid::train::ppo::{self, PpoConfig, Progress, Stats};
use inlaid::train::{LearnConfig, Learner};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Answers that are worth more, near the model that it was: a round draws answers, asks what they are worth, and learns
#[derive(Args)]
pub struct Ppo {
    /// Directory, .safetensors file with its config beside it, .gguf file, or `demo`
    model: PathBuf,
    /// A text file: each line is a prompt
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    /// What an answer is worth: builtin:length (how long it is), builtin:lexicon:FILE (share of its words that are in the file),
    /// model:DIR (a model with one output), cmd:PROGRAM (reads lines of {"prompt", "answer"}, writes lines with a number)
    #[arg(long, value_name = "WHAT")]
    reward: String,
    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    max_tokens: usize,
    /// Weight of the divergence from the model that it was
    #[arg(long, value_name = "X", default_value_t = 0.05)]
    kl_coef: f64,
    /// Move that weight towards a divergence of so many nats per answer
    #[arg(long, value_name = "X")]
    kl_target: Option<f64>,
    /// Times that each answer is learnt from
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    ppo_epochs: usize,
    /// Answers of a step of the optimiser
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one)]
    minibatch: usize,
    /// Weight of the entropy
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    entropy: f64,
    /// What logits are divided by
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f32,
    /// A text file whose next tokens are learnt beside the answers, so that less of the language is forgotten
    #[arg(long, value_name = "FILE")]
    mix: Option<PathBuf>,
    /// Weight of their loss
    #[arg(long, value_name = "X", default_value_t = 27.8, requires = "mix")]
    mix_coef: f64,
    /// Windows of that text in each step of the optimiser [default: as many as answers]
    #[arg(long, value_name = "N", requires = "mix", value_parser = at_least_one)]
    mix_batch: Option<usize>,
    /// Bring rewards to variance 1 first
    #[arg(long)]
    whiten_rewards: bool,
    #[command(flatten)]
    options: Options,
}

impl Ppo {
    fn said(&self) -> Value {
        let mut said = base(&self.options, "ppo");
        said["mix"] = json!([self.mix, self.mix_coef, self.mix_batch]);
        said["ppo"] = json!([
            self.reward,
            self.max_tokens,
            self.kl_coef,
            self.kl_target,
            self.ppo_epochs,
            self.minibatch,
            self.entropy,
            self.temperature,
            self.whiten_rewards,
        ]);
        said
    }

    fn config(&self) -> PpoConfig {
        let run = self.options.config(self.options.batch());
        let horizon = 100.0 * self.options.batch() as f64;
        let base = PpoConfig::default();
        PpoConfig {
            max_tokens: self.max_tokens,
            kl_coef: self.kl_coef,
            kl_control: match self.kl_target {
                Some(target) => KlControl::Adaptive { target, horizon },
                None => KlControl::Fixed,
            },
            clip: ppo::objective::Clip { entropy_coef: self.entropy, ..base.clip },
            epochs: self.ppo_epochs,
            minibatch: self.minibatch,
            tokens: run.tokens,
            whiten_rewards: self.whiten_rewards,
            mix_coef: self.mix_coef,
            mix_batch: self.mix_batch.unwrap_or(self.minibatch),
            rate: run.rate,
            rule: run.rule,
            max_norm: run.clip,
            seed: run.seed,
            ..base
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Ppo) -> Result<(), Failure> {
    let options = &args.options;
    let (files, model) = super::open(&args.model, options)?;
    let tokenizer = model.tokenizer()?;
    let text = read_text(&args.prompts)?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let prompts: Vec<Vec<u32>> =
        lines.iter().map(|line| tokenizer.encode(line, true, true)).collect::<Result<_, _>>()?;
    if prompts.is_empty() {
        return Err(Failure::Cannot(format!("{}: expected prompts, found none", args.prompts.display())));
    }
    let mut reward = Reward::parse(&args.reward, &options.run, &model)?;
    let place = Place::new(options, args.said())?;
    let learn = LearnConfig { value_head: true, temperature: args.temperature, ..options.learns(&model)? };
    let mut ppo = ppo::Ppo::new(Learner::new(&model, &learn)?, args.config())?;
    if let Some(mix) = &args.mix {
        ppo.set_mix(super::next(&model, std::slice::from_ref(mix), options.length(&model))?)?;
    }
    let more = place.resume(options, ppo.state_mut())?;
    if let (Some(rounds), Some(kl_coef)) = (more[0].as_u64(), more[1].as_f64()) {
        ppo.restore(rounds, kl_coef);
    }
    interrupt::install(|| {});
    let (steps, mut order) = (options.rounds(), Order::new(prompts.len(), options.seed));
    let mut watch = Watch::new(&place, steps, ppo.position().0)?;
    while ppo.position().0 < steps {
        let first = ppo.position().0 * options.batch() as u64;
        let chosen: Vec<usize> = (0..options.batch() as u64).map(|i| order.at(first + i)).collect();
        let batch: Vec<Vec<u32>> = chosen.iter().map(|i| prompts[*i].clone()).collect();
        let names: Vec<&str> = chosen.iter().map(|i| lines[*i]).collect();
        let (stats, rollout) = round(&mut ppo, &model, &mut reward, &batch, &names, args.max_tokens)?;
        let message = format!("reward {:.3}, KL {:.2}", stats.reward, stats.kl);
        let tokens = (stats.tokens * batch.len() as f64) as usize;
        let mut line = line(&stats);
        line["rollout_s"] = json!(rollout.as_secs_f64());
        watch.see(stats.round, tokens, &message, line)?;
        let position = ppo.position();
        if position.0 < steps {
            place.pause(&watch, ("round", stats.round), json!(position), ppo.state_mut())?;
        }
    }
    watch.end()?;
    place.plot("reward")?;
    place.plot("kl")?;
    let last = *ppo.stats();
    let out = place.model(ppo.learner_mut(), &files)?;
    if options.json {
        return json(&json!({"out": out, "rounds": steps, "reward": last.reward, "kl": last.kl}));
    }
    note(&format!("{}: {steps} rounds, reward {:.3}, KL {:.2}", out.display(), last.reward, last.kl));
    Ok(())
}

/// One round: answers, what they are worth, updates. Returns how long the answers took, too.
fn round(
    ppo: &mut ppo::Ppo,
    model: &Model,
    reward: &mut Reward,
    prompts: &[Vec<u32>],
    names: &[&str],
    most: usize,
) -> Result<(Stats, Duration), Failure> {
    let start = Instant::now();
    ppo.begin(prompts)?;
    let mut rollout = Duration::ZERO;
    loop {
        match ppo.advance(Duration::MAX, &AtomicBool::new(false))? {
            Progress::More => {}
            Progress::Done => return Ok((*ppo.stats(), rollout)),
            Progress::Rewards => {
                rollout = start.elapsed();
                let mut said = Vec::new();
                for (answer, prompt) in ppo.answers().iter().zip(names) {
                    let text = model.tokenizer()?.decode(&answer.ids, true)?;
                    let length = answer.ids.len() as f32 / most as f32;
                    said.push(Said { prompt: (*prompt).to_owned(), answer: text, length });
                }
                ppo.set_rewards(&reward.of(&said)?)?;
            }
        }
    }
}

fn line(s: &Stats) -> Value {
    json!({
        "step": s.round, "reward": s.reward, "kl": s.kl, "kl_coef": s.kl_coef, "policy_loss": s.figures.policy_loss,
        "value_loss": s.figures.value_loss, "entropy": s.figures.entropy, "clip_fraction": s.figures.clip_fraction,
        "approx_kl": s.figures.approx_kl, "ratio": s.figures.ratio, "explained_variance": s.explained_variance,
        "tokens": s.tokens, "grad_norm": s.norm, "mix_loss": s.mix_loss,
    })
}
