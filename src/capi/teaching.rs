//! Floor 6: what is behind a trainer's handle. Knows the Rust side of learning.

use super::error::argument;
use super::learning::*;
use super::ppo::{INLAID_PPO_DONE, INLAID_PPO_MORE, INLAID_PPO_REWARDS, inlaid_ppo_config, inlaid_ppo_stats};
use super::train::*;
use super::versioned::Versioned;
use crate::adapter::Adapter;
use crate::error::{Error, Result};
use crate::format::files::Files;
use crate::model::Model;
use crate::train::before::PromptConfig;
use crate::train::data::Lesson;
use crate::train::ia3::Ia3Config;
use crate::train::lora::LoraConfig;
use crate::train::mask::Masking;
use crate::train::ppo::advantage::KlControl;
use crate::train::ppo::objective::Clip;
use crate::train::ppo::{Ppo, PpoConfig, Progress};
use crate::train::trainer::{Objective, Trainer};
use crate::train::{BottleneckConfig, LearnConfig, Learner, Optimizer, Rule, What, Width, save};
use kernels::act::Act;
use serde_json::{Value, json};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Who learns by steps, or from rewards.
pub(super) enum Teacher {
    Steps(Box<Trainer>),
    Rewards(Box<Ppo>),
}

impl Teacher {
    pub fn new(model: &Arc<Model>, config: &TrainConfig) -> Result<Teacher> {
        let c = &config.fields;
        let objective = match c.objective {
            INLAID_OBJECTIVE_NEXT_TOKEN => Objective::NextToken { smoothing: c.smoothing },
            INLAID_OBJECTIVE_MASKED_TOKEN => {
                Objective::MaskedTokens { masking: masking(model, c)?, smoothing: c.smoothing }
            }
            INLAID_OBJECTIVE_REWARD => Objective::Rewards,
            INLAID_OBJECTIVE_DPO => Objective::Preferences { beta: f64::from(c.dpo_beta) },
            other => {
                return Err(argument("objective", format!("expected INLAID_OBJECTIVE_..., found {other}")));
            }
        };
        let learn = learns(config)?;
        let trainer = Trainer::new(model, &learn, objective, rule(c), c.clip, c.pass_tokens as usize)?;
        Ok(Teacher::Steps(Box::new(trainer)))
    }

    pub fn ppo(model: &Arc<Model>, config: &TrainConfig, p: &inlaid_ppo_config) -> Result<Teacher> {
        let c = &config.fields;
        let learn = LearnConfig { value_head: true, temperature: p.temperature, ..learns(config)? };
        let [kl_coef, gamma, lam] = [p.kl_coef, p.gamma, p.lam].map(f64::from);
        let config = PpoConfig {
            max_tokens: p.max_tokens as usize,
            kl_coef,
            kl_control: match p.kl_target {
                0.0 => KlControl::Fixed,
                target => KlControl::Adaptive { target: f64::from(target), horizon: f64::from(p.kl_horizon) },
            },
            gamma,
            lam,
            clip: Clip {
                policy: f64::from(p.clip_policy),
                value: f64::from(p.clip_value),
                vf_coef: f64::from(p.vf_coef),
                entropy_coef: f64::from(p.entropy_coef),
            },
            epochs: p.epochs as usize,
            minibatch: p.minibatch as usize,
            tokens: c.pass_tokens as usize,
            whiten_rewards: super::model::flag("whiten_rewards", p.whiten_rewards)?,
            mix_coef: f64::from(p.mix_coef),
            mix_batch: p.mix_batch as usize,
            unfinished: None,
            rate: p.rate,
            rule: rule(c),
            max_norm: c.clip,
            seed: c.seed,
        };
        Ok(Teacher::Rewards(Box::new(Ppo::new(Learner::new(model, &learn)?, config)?)))
    }

    fn state(&mut self) -> (&mut Learner, &mut Optimizer) {
        match self {
            Teacher::Steps(trainer) => trainer.state_mut(),
            Teacher::Rewards(ppo) => ppo.state_mut(),
        }
    }

    fn rewarded(&mut self) -> Result<&mut Ppo> {
        match self {
            Teacher::Rewards(ppo) => Ok(ppo),
            Teacher::Steps(_) => Err(argument("trainer", "expected one of inlaid_ppo_new")),
        }
    }

    pub fn step(
        &mut self,
        lessons: &[Example],
        groups: &[u32],
        rate: f32,
        cancel: &AtomicBool,
    ) -> Result<inlaid_train_report> {
        let Teacher::Steps(trainer) = self else {
            return Err(argument("trainer", "expected one of inlaid_trainer_new"));
        };
        let done = trainer.step(lessons.iter().map(lesson).collect(), groups, rate, cancel)?;
        Ok(inlaid_train_report {
            step: done.step,
            loss: done.loss,
            grad_norm: done.norm,
            tokens: done.tokens as u64,
            ..Versioned::defaults()
        })
    }

    pub fn save(&mut self, source: Option<&str>, out: &str) -> Result<()> {
        let learner = self.state().0;
        match source {
            Some(source) => save::model(learner, &Files::at(source)?, Path::new(out)),
            None if learner.is_adapter() => save::adapter(learner, Path::new(out)),
            None => {
                Err(argument("source", "expected the directory that the model was opened from, found NULL"))
            }
        }
    }

    pub fn adapter(&mut self) -> Result<Arc<Adapter>> {
        self.state().0.adapter("trainer")
    }

    pub fn checkpoint(&mut self, dir: &str) -> Result<()> {
        let position = match self {
            Teacher::Rewards(ppo) => Some(ppo.position()),
            Teacher::Steps(_) => None,
        };
        let (learner, optimizer) = self.state();
        let said = json!({"step": optimizer.steps(), "ppo": position});
        save::checkpoint(learner, optimizer, Path::new(dir), &said)
    }

    pub fn restore(&mut self, dir: &str) -> Result<()> {
        let none = || Error::io(dir)(io::Error::new(ErrorKind::NotFound, "no checkpoint is there"));
        let (said, at) = save::newest(Path::new(dir))?.ok_or_else(none)?;
        let step = said.get("step").and_then(Value::as_u64).unwrap_or(0);
        let (learner, optimizer) = self.state();
        save::restore(learner, optimizer, &at, step)?;
        let position = said.get("ppo").and_then(|p| Some((p.get(0)?.as_u64()?, p.get(1)?.as_f64()?)));
        if let (Teacher::Rewards(ppo), Some((rounds, kl_coef))) = (self, position) {
            ppo.restore(rounds, kl_coef);
        }
        Ok(())
    }

    pub fn set_mix(&mut self, examples: &[Example]) -> Result<()> {
        self.rewarded()?.set_mix(examples.iter().map(lesson).collect())
    }

    pub fn begin(&mut self, prompts: &[Vec<u32>]) -> Result<()> {
        self.rewarded()?.begin(prompts)
    }

    pub fn advance(&mut self, budget_us: u64, cancel: &AtomicBool) -> Result<i32> {
        let done = self.rewarded()?.advance(Duration::from_micros(budget_us), cancel)?;
        Ok(match done {
            Progress::More => INLAID_PPO_MORE,
            Progress::Rewards => INLAID_PPO_REWARDS,
            Progress::Done => INLAID_PPO_DONE,
        })
    }

    pub fn answer(&mut self, i: usize) -> Result<&[u32]> {
        let answers = self.rewarded()?.answers();
        let n = answers.len();
        let none = || argument("i", format!("expected a number below {n}, found {i}"));
        Ok(&answers.get(i).ok_or_else(none)?.ids)
    }

    pub fn set_rewards(&mut self, rewards: &[f32]) -> Result<()> {
        self.rewarded()?.set_rewards(rewards)
    }

    pub fn stats(&mut self) -> Result<inlaid_ppo_stats> {
        let s = *self.rewarded()?.stats();
        Ok(inlaid_ppo_stats {
            round: s.round,
            reward: s.reward,
            kl: s.kl,
            kl_coef: s.kl_coef,
            policy_loss: s.figures.policy_loss,
            value_loss: s.figures.value_loss,
            entropy: s.figures.entropy,
            clip_fraction: s.figures.clip_fraction,
            approx_kl: s.figures.approx_kl,
            explained_variance: s.explained_variance,
            tokens: s.tokens,
            grad_norm: s.norm,
            mix_loss: s.mix_loss,
            ..Versioned::defaults()
        })
    }
}

fn lesson(Example { ids, first, source }: &Example) -> Lesson {
    let mut lesson = Lesson { source: source.to_vec(), ..Lesson::default() };
    lesson.push(&ids[..*first], false);
    lesson.push(&ids[*first..], true);
    lesson
}

fn masking(model: &Model, c: &inlaid_train_config) -> Result<Masking> {
    let mask = match c.mask_token {
        -1 => None,
        mask => {
            let wrong = |_| argument("mask_token", format!("expected a token or -1, found {mask}"));
            Some(u32::try_from(mask).map_err(wrong)?)
        }
    };
    Masking::new(model, f64::from(c.mask_share), mask, c.seed)
}

fn rule(c: &inlaid_train_config) -> Rule {
    Rule::AdamW { betas: [c.beta1, c.beta2], eps: c.epsilon, decay: c.weight_decay }
}

fn learns(config: &TrainConfig) -> Result<LearnConfig> {
    let (c, targets) = (&config.fields, config.targets.clone());
    let tokens = c.virtual_tokens as usize;
    let lora = |targets| LoraConfig { rank: c.lora_rank as usize, alpha: c.lora_alpha, targets };
    let what = match c.learn {
        INLAID_LEARN_ALL => What::All,
        INLAID_LEARN_NAMED => What::Named(targets),
        INLAID_LEARN_LORA => What::Lora(lora(targets)),
        INLAID_LEARN_DORA => What::Dora(lora(targets)),
        INLAID_LEARN_IA3 => What::Ia3(Ia3Config { targets, feedforward: config.feedforward.clone() }),
        INLAID_LEARN_PROMPT => What::Prompt(PromptConfig { tokens, text: config.prompt.clone() }),
        INLAID_LEARN_PREFIX => What::Prefix(tokens),
        INLAID_LEARN_BOTTLENECK => What::Bottleneck(bottleneck(c)?),
        INLAID_LEARN_BIASES => What::Biases(targets),
        other => return Err(argument("learn", format!("expected INLAID_LEARN_..., found {other}"))),
    };
    let recompute = super::model::flag("recompute", c.recompute)?;
    Ok(LearnConfig { what, seed: c.seed, recompute, ..LearnConfig::default() })
}

fn bottleneck(c: &inlaid_train_config) -> Result<BottleneckConfig> {
    let act = match c.bottleneck_activation {
        INLAID_ACTIVATION_DEFAULT => None,
        INLAID_ACTIVATION_RELU => Some(Act::Relu),
        INLAID_ACTIVATION_SILU => Some(Act::Silu),
        INLAID_ACTIVATION_GELU => Some(Act::GeluErf),
        INLAID_ACTIVATION_GELU_TANH => Some(Act::GeluTanh),
        INLAID_ACTIVATION_TANH => Some(Act::Tanh),
        other => {
            let what = format!("expected INLAID_ACTIVATION_..., found {other}");
            return Err(argument("bottleneck_activation", what));
        }
    };
    let both = match c.bottleneck_place {
        INLAID_BOTTLENECK_BOTH => true,
        INLAID_BOTTLENECK_MLP => false,
        other => {
            return Err(argument(
                "bottleneck_place",
                format!("expected INLAID_BOTTLENECK_..., found {other}"),
            ));
        }
    };
    let width =
        if c.bottleneck_width == 0 { Width::Over(16) } else { Width::Is(c.bottleneck_width as usize) };
    Ok(BottleneckConfig { width, act, both })
}
