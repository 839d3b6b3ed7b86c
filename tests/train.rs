//! Steps of every objective against torch (`tests/golden/learn/make_learn.py`), and what a run keeps: checkpoints, models.
#![cfg(feature = "train")]

mod common;

use common::{engine, open};
use inlaid::Error;
use inlaid::format::files::Files;
use inlaid::kernels::attention::Cache;
use inlaid::model::Model;
use inlaid::session::{Session, SessionConfig};
use inlaid::train::data::Lesson;
use inlaid::train::lora::LoraConfig;
use inlaid::train::loss::Scored;
use inlaid::train::ppo::objective::{Clip, Step, clipped};
use inlaid::train::ppo::{Ppo, PpoConfig, Progress};
use inlaid::train::run::{Run, RunConfig};
use inlaid::train::task::{NextToken, Task};
use inlaid::train::trainer::{Objective, Trainer};
use inlaid::train::{LearnConfig, Learner, Optimizer, Rule, Sample, What, save};
use safetensors_reference::SafeTensors;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

static GO: AtomicBool = AtomicBool::new(false);

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn model(name: &str) -> Arc<Model> {
    open(&engine(2, None), &golden(name), Some(Cache::F32))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect()
}

/// What torch did.
struct Said {
    json: Value,
    tensors: Vec<u8>,
}

impl Said {
    fn read(kind: &str) -> Said {
        let at = golden("learn/steps").join(kind);
        let json = std::fs::read(at.with_extension("json")).expect("steps");
        let tensors = std::fs::read(at.with_extension("safetensors")).expect("tensors");
        Said { json: serde_json::from_slice(&json).expect("JSON"), tensors }
    }

    fn model(&self) -> Arc<Model> {
        model(self.json["model"].as_str().expect("a model"))
    }

    fn rule(&self) -> Rule {
        let number = |of: &Value| of.as_f64().expect("a number") as f32;
        let a = &self.json["adamw"];
        let betas = [number(&a["betas"][0]), number(&a["betas"][1])];
        Rule::AdamW { betas, eps: number(&a["eps"]), decay: number(&a["weight_decay"]) }
    }

    fn rate(&self) -> f32 {
        self.json["adamw"]["lr"].as_f64().expect("a rate") as f32
    }

    fn losses(&self) -> Vec<f64> {
        self.json["losses"].as_array().expect("losses").iter().map(|x| x.as_f64().expect("a loss")).collect()
    }

    /// Every tensor lies within a thousandth of the way that it went.
    fn check(&self, learner: &Learner) {
        for (name, tensor) in SafeTensors::deserialize(&self.tensors).expect("safetensors").tensors() {
            let stored = learner.model().tensors().get(&name).expect("readable").expect("a tensor").bytes();
            let (from, want, got) =
                (floats(stored), floats(tensor.data()), learner.tensor(&name).expect("a tensor"));
            let (mut apart, mut path) = (0.0, 0.0);
            for ((from, want), got) in from.iter().zip(&want).zip(&got) {
                let (way, off) = (f64::from(want - from), f64::from(got - want));
                // What has no gradient (a bias of keys) is moved by rounding alone, in torch too.
                if way.abs() < 1e-6 || name.ends_with("k_proj.bias") {
                    assert!(off.abs() < 2e-3, "{name} moved by rounding: {off}");
                } else {
                    (apart, path) = (apart + off * off, path + way * way);
                }
            }
            let (apart, path) = (f64::sqrt(apart), f64::sqrt(path));
            assert!(apart <= 1e-3 * path.max(1e-9), "{name} is {apart:.2e} off after {path:.2e}");
        }
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

fn lesson(ids: &[u32], first: usize) -> Lesson {
    let mut lesson = Lesson::default();
    lesson.push(&ids[..first], false);
    lesson.push(&ids[first..], true);
    lesson
}

fn ten_steps(kind: &str, objective: Objective) {
    let said = Said::read(kind);
    let mut trainer = Trainer::new(&said.model(), &LearnConfig::default(), objective, said.rule(), 0.0, 60)
        .expect("a trainer");
    let (mut lessons, mut groups) = (Vec::new(), Vec::new());
    for (group, answers) in said.json["data"].as_array().expect("prompts").iter().enumerate() {
        for answer in answers.as_array().expect("answers") {
            lessons.push(lesson(&ids(&answer["ids"]), answer["first"].as_u64().expect("a place") as usize));
            groups.push(group as u32);
        }
    }
    for want in said.losses() {
        let loss = trainer.step(lessons.clone(), &groups, said.rate(), &GO).expect("a step").loss;
        assert!((loss - want).abs() <= 1e-4 * want.abs(), "{kind}: loss {loss}, expected {want}");
    }
    said.check(trainer.state_mut().0);
}

#[test]
fn reward_models_learn_as_in_torch() {
    ten_steps("reward", Objective::Rewards);
}

#[test]
fn preferences_are_learnt_as_in_torch() {
    ten_steps("dpo", Objective::Preferences { beta: 0.1 });
}

#[test]
fn policies_learn_from_recorded_rollouts_as_in_torch() {
    let said = Said::read("ppo");
    let config = LearnConfig { value_head: true, ..LearnConfig::default() };
    let mut learner = Learner::new(&said.model(), &config).expect("a learner");
    let mut optimizer = Optimizer::new(&learner, said.rule(), 0.0).expect("an optimiser");
    let clip = Clip { policy: 0.2, value: 0.2, vf_coef: 0.1, entropy_coef: 0.01 };
    let (mut all, mut steps) = (Vec::new(), Vec::new());
    for answer in said.json["data"].as_array().expect("rollouts") {
        let (ids, first) = (ids(&answer["ids"]), answer["first"].as_u64().expect("a place") as usize);
        let number = |key: &str, t: usize| answer[key][t].as_f64().expect(key) as f32;
        steps.extend((0..ids.len() - first).map(|t| Step {
            logprob: number("logprob", t),
            value: number("value", t),
            advantage: number("advantage", t),
            returns: number("returns", t),
        }));
        let rows: Vec<u32> = (first as u32 - 1..ids.len() as u32 - 1).collect();
        all.push((ids[..ids.len() - 1].to_vec(), rows, ids[first..].to_vec()));
    }
    let batch: Vec<Sample> =
        all.iter().map(|(ids, rows, targets)| Sample { ids, rows, targets, ..Sample::default() }).collect();
    for want in said.losses() {
        learner.forward(&batch, &GO).expect("forward");
        let scored = Scored { logprobs: learner.logprobs(), logits: learner.answer() };
        let (loss, _) = clipped(scored, learner.values(), &steps, &clip, steps.len() as f64);
        assert!((loss.value - want).abs() <= 1e-4 * want.abs(), "loss {}, expected {want}", loss.value);
        learner.backward(&loss.seeds, &loss.values, &GO).expect("backward");
        optimizer.step(&mut learner, said.rate()).expect("a step");
    }
    said.check(&learner);
}

/// Lessons of several lengths.
fn lessons() -> Vec<Lesson> {
    (0..7_u32)
        .map(|i| {
            lesson(&(0..9 + 5 * i).map(|t| 3 + (t * t + 7 * i) % 50).collect::<Vec<_>>(), 2 + i as usize)
        })
        .collect()
}

fn run(model: &Arc<Model>, learn: &LearnConfig) -> Run {
    let task = Box::new(NextToken::new(lessons(), 0.1).expect("a task"));
    assert_eq!(task.examples(), 7);
    let config = RunConfig { steps: 6, batch: 3, tokens: 40, rate: 3e-3, ..RunConfig::default() };
    Run::new(Learner::new(model, learn).expect("a learner"), task, config).expect("a run")
}

fn bits(learner: &mut Learner) -> Vec<u32> {
    learner
        .learned()
        .iter()
        .flat_map(|one| one.values.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
        .collect()
}

fn lora(rank: usize) -> LearnConfig {
    let targets = Vec::new();
    LearnConfig { what: What::Lora(LoraConfig { rank, alpha: 16.0, targets }), ..LearnConfig::default() }
}

#[test]
fn a_run_that_goes_on_has_the_bits_of_one_that_was_not_interrupted() {
    let model = model("llama-gqa");
    for learn in [LearnConfig::default(), lora(3)] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut whole = run(&model, &learn);
        let mut losses = Vec::new();
        while !whole.is_done() {
            losses.push(whole.step(&GO).expect("a step").loss);
        }
        assert!(losses[5] < losses[0], "nothing was learnt: {losses:?}");

        let mut first = run(&model, &learn);
        for _ in 0..4 {
            first.step(&GO).expect("a step");
        }
        for step in [2, 4] {
            let said = json!({"step": step});
            save::checkpoint(&mut first.learner, &first.optimizer, dir.path(), &said).expect("a checkpoint");
        }
        drop(first);
        let (said, at) = save::newest(dir.path()).expect("readable").expect("a checkpoint");
        assert_eq!(
            (said["step"].as_u64(), at.file_name().and_then(|n| n.to_str())),
            (Some(2), Some("step-4"))
        );

        let mut second = run(&model, &learn);
        save::restore(&mut second.learner, &mut second.optimizer, &at, 4).expect("restored");
        while !second.is_done() {
            second.step(&GO).expect("a step");
        }
        assert!(bits(&mut whole.learner) == bits(&mut second.learner));

        let mut other = run(&model, &lora(5));
        let refused = save::restore(&mut other.learner, &mut other.optimizer, &at, 4);
        assert!(matches!(refused, Err(Error::Tensor { .. })), "{refused:?}");
    }
}

#[test]
fn a_step_in_many_passes_is_a_step_in_one() {
    let model = model("gpt2");
    let steps = |tokens: usize| {
        let task = Box::new(NextToken::new(lessons(), 0.0).expect("a task"));
        let config = RunConfig { steps: 1, batch: 7, tokens, ..RunConfig::default() };
        let learner = Learner::new(&model, &LearnConfig::default()).expect("a learner");
        let mut run = Run::new(learner, task, config).expect("a run");
        run.step(&GO).expect("a step")
    };
    let (one, many) = (steps(1000), steps(30));
    assert_eq!(one.tokens, many.tokens);
    assert!((one.loss - many.loss).abs() < 1e-6 && (one.norm - many.norm).abs() < 1e-5 * one.norm);
}

fn logits(model: &Arc<Model>, ids: &[u32]) -> Vec<f32> {
    let mut session = Session::new(model, SessionConfig::default()).expect("a session");
    let mut out = Vec::new();
    session.prefill_all(ids, |row| out.extend_from_slice(row)).expect("logits");
    out
}

#[test]
fn what_was_learnt_opens_as_a_model_and_the_served_one_never_moves() {
    let ids: Vec<u32> = (3..40).collect();
    let rows: Vec<u32> = (0..ids.len() as u32).collect();
    for name in ["llama-gqa", "llama-tied", "gpt2", "gpt-neox", "gemma2", "bloom"] {
        let (dir, model) = (tempfile::tempdir().expect("a directory"), model(name));
        let before = logits(&model, &ids);
        let mut run = run(&model, &LearnConfig::default());
        for _ in 0..3 {
            run.step(&GO).expect("a step");
        }
        let out = dir.path().join("out");
        save::model(&mut run.learner, &Files::at(golden(name)).expect("files"), &out).expect("saved");
        let sample = Sample { ids: &ids, rows: &rows, ..Sample::default() };
        run.learner.forward(&[sample], &GO).expect("forward");
        let opened = open(&engine(2, None), &out, Some(Cache::F32));
        let (kept, answer) = (logits(&opened, &ids), run.learner.answer());
        let apart = kept.iter().zip(answer).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Gemma's gains are stored less 1, which rounds.
        assert!(apart <= if name == "gemma2" { 1e-4 } else { 0.0 }, "{name}: what was saved is {apart} off");
        assert!(before == logits(&model, &ids), "{name}: the served model moved");
        assert!(before != answer, "{name}: nothing was learnt");
        let refused = save::model(&mut run.learner, &Files::at(golden(name)).expect("files"), &out);
        assert!(matches!(refused, Err(Error::Io { .. })), "{name}: {refused:?}");
    }
}

#[test]
fn additions_begin_as_nothing_on_weights_of_any_type() {
    let ids: Vec<u32> = (3..30).collect();
    let rows: Vec<u32> = (0..ids.len() as u32).collect();
    let folders = ["llama-gqa", "llama-bf16", "llama-f16", "gpt2", "gguf-llama-q8_0", "gguf-llama-q4_k"];
    for name in folders {
        let path = golden(name);
        let gguf = std::fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path());
        let path =
            gguf.into_iter().find(|path| path.extension().is_some_and(|e| e == "gguf")).unwrap_or(path);
        let model = open(&engine(2, None), &path, Some(Cache::F32));
        let mut run = run(&model, &lora(4));
        let sample = Sample { ids: &ids, rows: &rows, ..Sample::default() };
        run.learner.forward(&[sample], &GO).expect("forward");
        assert!(run.learner.answer() == logits(&model, &ids), "{name}: other bits than the served model's");
        let first = run.step(&GO).expect("a step").loss;
        let mut last = first;
        while !run.is_done() {
            last = run.step(&GO).expect("a step").loss;
        }
        assert!(last < first, "{name}: from {first} to {last}");
    }
}

#[test]
fn an_adapter_that_was_learnt_has_the_same_bits_in_a_session_and_in_files() {
    let ids: Vec<u32> = (3..40).collect();
    let rows: Vec<u32> = (0..ids.len() as u32).collect();
    for name in ["llama-gqa", "llama-bf16", "gpt2", "gpt-neox", "qwen3"] {
        let (dir, model) = (tempfile::tempdir().expect("a directory"), model(name));
        let mut run = run(&model, &lora(3));
        for _ in 0..3 {
            run.step(&GO).expect("a step");
        }
        let sample = Sample { ids: &ids, rows: &rows, ..Sample::default() };
        run.learner.forward(&[sample], &GO).expect("forward");
        let answer = run.learner.answer().to_vec();
        let out = dir.path().join("adapter");
        save::adapter(&mut run.learner, &out).expect("saved");
        let read = model.adapter(&Files::at(&out).expect("files")).expect("read");
        // Parts of one module share a wider product, whose sums have more terms: zeros.
        for adapter in [run.learner.adapter("learnt").expect("an adapter"), read.clone()] {
            let mut session = Session::new(&model, SessionConfig::default()).expect("a session");
            session.set_adapters(&[(adapter, 1.0)]).expect("attached");
            let mut got = Vec::new();
            session.prefill_all(&ids, |row| got.extend_from_slice(row)).expect("logits");
            assert!(got == answer, "{name}: other bits than those that were learnt");
        }
        // Who goes on learns from there.
        let learn = LearnConfig { what: What::Adapter(read), ..LearnConfig::default() };
        let mut again = Learner::new(&model, &learn).expect("a learner");
        again.forward(&[sample], &GO).expect("forward");
        assert!(again.answer() == answer, "{name}: other bits where learning goes on");
    }
}

fn policy(seed: u64, kl_coef: f64, learn: &LearnConfig) -> Ppo {
    let learn = LearnConfig { value_head: true, ..learn.clone() };
    let learner = Learner::new(&model("llama-gqa"), &learn).expect("a learner");
    let config = PpoConfig { max_tokens: 12, kl_coef, seed, rate: 1e-2, ..PpoConfig::default() };
    Ppo::new(learner, config).expect("a policy")
}

/// A round in pieces of one microsecond; what answers are worth is how many of their tokens are small.
fn round(ppo: &mut Ppo, prompts: &[Vec<u32>]) -> f64 {
    ppo.begin(prompts).expect("begun");
    loop {
        match ppo.advance(Duration::from_micros(1), &GO).expect("a piece") {
            Progress::More => {}
            Progress::Done => return ppo.stats().reward,
            Progress::Rewards => {
                let share = |ids: &[u32]| ids.iter().filter(|id| **id < 50).count() as f32 / ids.len() as f32;
                let scores: Vec<f32> = ppo.answers().iter().map(|answer| share(&answer.ids)).collect();
                assert!(ppo.set_rewards(&scores[1..]).is_err());
                assert!(ppo.set_rewards(&vec![f32::NAN; scores.len()]).is_err());
                ppo.set_rewards(&scores).expect("rewards");
            }
        }
    }
}

fn prompts() -> Vec<Vec<u32>> {
    (0..8_u32).map(|i| (0..2 + i).map(|t| 3 + (5 * t + i) % 90).collect()).collect()
}

#[test]
fn before_the_first_update_every_ratio_is_one() {
    for learn in [LearnConfig::default(), lora(4), LearnConfig { temperature: 0.7, ..LearnConfig::default() }]
    {
        let learn = LearnConfig { value_head: true, ..learn };
        let learner = Learner::new(&model("llama-bf16"), &learn).expect("a learner");
        let config = PpoConfig { max_tokens: 9, epochs: 1, minibatch: 8, ..PpoConfig::default() };
        let mut ppo = Ppo::new(learner, config).expect("a policy");
        round(&mut ppo, &prompts());
        let figures = ppo.stats().figures;
        assert_eq!((figures.ratio, figures.approx_kl, figures.clip_fraction), (1.0, 0.0, 0.0));
        if !matches!(learn.what, What::All) {
            assert_eq!(ppo.stats().kl, 0.0, "a policy that has learnt nothing is its reference");
        }
    }
}

#[test]
fn rewards_rise() {
    let mut ppo = policy(1, 0.005, &LearnConfig::default());
    let rewards: Vec<f64> = (0..30).map(|_| round(&mut ppo, &prompts())).collect();
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let (first, last) = (mean(&rewards[..5]), mean(&rewards[25..]));
    assert!(last > first + 0.15, "{rewards:?}");
    assert!(ppo.stats().kl > 0.0);
}

#[test]
fn a_policy_that_goes_on_has_the_bits_of_one_that_was_not_interrupted() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut whole = policy(5, 0.05, &lora(2));
    let mut first = policy(5, 0.05, &lora(2));
    for _ in 0..2 {
        round(&mut whole, &prompts());
        round(&mut first, &prompts());
    }
    let position = first.position();
    let (learner, optimizer) = first.state_mut();
    let said = json!({"ppo": [position.0, 0.1 + 0.2, 0.999_000_012_874_603_3]});
    save::checkpoint(learner, optimizer, dir.path(), &said).expect("a checkpoint");
    let steps = optimizer.steps();
    let mut second = policy(5, 0.05, &lora(2));
    let (read, at) = save::newest(dir.path()).expect("readable").expect("a checkpoint");
    assert_eq!(read, said, "numbers lose nothing in a file");
    let (learner, optimizer) = second.state_mut();
    save::restore(learner, optimizer, &at, steps).expect("restored");
    second.restore(position.0, position.1);
    round(&mut whole, &prompts());
    round(&mut second, &prompts());
    assert!(bits(whole.learner_mut()) == bits(second.learner_mut()));
}

#[test]
fn bad_input_is_refused_and_the_trainer_goes_on() {
    let model = model("llama-gqa");
    let none = LearnConfig { what: What::Named(vec!["no such".into()]), ..LearnConfig::default() };
    assert!(matches!(Learner::new(&model, &none), Err(Error::Argument { .. })));
    for rank in [0, 1 << 20] {
        assert!(matches!(Learner::new(&model, &lora(rank)), Err(Error::Argument { .. })));
    }
    let objective = Objective::NextToken { smoothing: 0.0 };
    let learn = LearnConfig::default();
    let mut trainer = Trainer::new(&model, &learn, objective, Rule::default(), 1.0, 64).expect("a trainer");
    let before = bits(trainer.state_mut().0);
    let good = lesson(&[3, 4, 5], 1);
    for (what, lessons) in [
        ("no lessons", vec![]),
        ("nothing to learn", vec![lesson(&[3, 4], 2)]),
        ("an id beyond", vec![good.clone(), lesson(&[3, 9999, 5], 1)]),
        ("too long", vec![lesson(&vec![3; 2000], 1)]),
    ] {
        assert!(trainer.step(lessons, &[], 1e-3, &GO).is_err(), "{what}");
    }
    for rate in [f32::NAN, -1.0, f32::INFINITY] {
        assert!(trainer.step(vec![good.clone()], &[], rate, &GO).is_err());
    }
    let cancelled = trainer.step(vec![good.clone()], &[], 1e-3, &AtomicBool::new(true));
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    assert!(before == bits(trainer.state_mut().0), "something was learnt");
    trainer.step(vec![good], &[], 1e-3, &GO).expect("it goes on");
    assert!(before != bits(trainer.state_mut().0));
}
