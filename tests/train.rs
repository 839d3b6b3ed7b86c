//! Steps of every objective against torch (`tests/golden/learn/make_learn.py`), and what a run keeps: checkpoints, models.
#![cfg(feature = "train")]

mod common;
#[path = "common/steps.rs"]
mod steps;

use common::{engine, open};
use inlaid::Error;
use inlaid::format::files::Files;
use inlaid::kernels::attention::Cache;
use inlaid::model::Model;
use inlaid::session::{Session, SessionConfig};
use inlaid::train::data::Lesson;
use inlaid::train::run::{Run, RunConfig};
use inlaid::train::task::{NextToken, Task};
use inlaid::train::trainer::{Objective, Trainer};
use inlaid::train::{LearnConfig, Learner, Rule, Sample, What, save};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use steps::{GO, Said, bits, golden, ids, lesson, lora, model};

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
