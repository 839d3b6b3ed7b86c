//! Gradients, and ten steps of AdamW, of golden models against torch (`tests/golden/learn/make_learn.py`).
#![cfg(feature = "train")]

mod common;
#[path = "common/steps.rs"]
mod steps;

use common::{engine, open};
use inlaid::kernels::attention::Cache;
use inlaid::kernels::{Isa, Ops};
use inlaid::session::{Session, SessionConfig};
use inlaid::train::loss::{Scored, cross_entropy};
use inlaid::train::{LearnConfig, Learner, Optimizer, Rule, Sample};
use safetensors_reference::SafeTensors;
use serde_json::Value;
use std::path::{Path, PathBuf};
use steps::{GO, NOTHING, distance};

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

struct Case {
    source: Vec<u32>,
    ids: Vec<u32>,
    rows: Vec<u32>,
    targets: Vec<u32>,
}

struct Golden {
    name: String,
    said: Value,
    cases: Vec<Case>,
    bytes: Vec<u8>,
}

fn models() -> Vec<Golden> {
    let list = std::fs::read_dir(golden_dir().join("learn")).expect("tests/golden/learn");
    let paths = list.map(|entry| entry.expect("an entry").path());
    let mut all: Vec<Golden> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            let said: Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
            let ids = |value: &Value| -> Vec<u32> {
                value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
            };
            let case = |case: &Value| Case {
                source: case.get("source").map(ids).unwrap_or_default(),
                ids: ids(&case["ids"]),
                rows: ids(&case["rows"]),
                targets: ids(&case["targets"]),
            };
            let cases = said["cases"].as_array().expect("cases").iter().map(case).collect();
            let bytes = std::fs::read(path.with_extension("safetensors")).expect("tensors");
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            Golden { name, said, cases, bytes }
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(all.len() >= 23, "golden gradients are missing");
    all
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect()
}

/// Forward and backward; the loss.
fn pass(learner: &mut Learner, cases: &[Case]) -> f64 {
    let batch: Vec<Sample> = cases.iter().map(sample).collect();
    learner.forward(&batch, &GO).expect("forward");
    let scored = Scored { logprobs: learner.logprobs(), logits: &[] };
    let loss = cross_entropy(scored, 0.0, scored.rows() as f64);
    learner.backward(&loss.seeds, &[], &GO).expect("backward");
    loss.value
}

fn sample(case: &Case) -> Sample<'_> {
    let Case { source, ids, rows, targets } = case;
    Sample { source, ids, rows, targets, ..Sample::default() }
}

fn learner(name: &str, threads: usize) -> Learner {
    let model = open(&engine(threads, None), &golden_dir().join(name), Some(Cache::F32));
    Learner::new(&model, &LearnConfig::default()).expect("a learner")
}

#[test]
fn gradients_are_those_of_torch() {
    let mut wrong = Vec::new();
    for golden in models() {
        let mut learner = learner(&golden.name, 2);
        let loss = pass(&mut learner, &golden.cases);
        let want = golden.said["loss"].as_f64().expect("a loss");
        assert!((loss - want).abs() < 1e-5 * want, "{}: loss {loss}, expected {want}", golden.name);
        let tensors = SafeTensors::deserialize(&golden.bytes).expect("safetensors");
        let mut worst = (0.0, String::new());
        for (name, tensor) in tensors.tensors() {
            let Some(of) = name.strip_prefix("grad.") else { continue };
            let want = floats(tensor.data());
            let got = learner.gradient(of).expect("a gradient");
            if want.iter().all(|x| x.abs() < NOTHING) {
                assert!(got.iter().all(|x| x.abs() < 1e-6), "{}: {of} has a gradient", golden.name);
                continue;
            }
            let apart = distance(&got, &want);
            if apart > worst.0 {
                worst = (apart, of.to_owned());
            }
        }
        if worst.0 >= 1e-4 {
            wrong.push(format!("{}: {} is {:.2e} off", golden.name, worst.1, worst.0));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn ten_steps_of_adamw_are_those_of_torch() {
    for golden in models().iter().filter(|golden| !golden.said["losses"].is_null()) {
        let number = |key: &str| golden.said["adamw"][key].as_f64().expect(key) as f32;
        let betas = [0, 1].map(|i| golden.said["adamw"]["betas"][i].as_f64().expect("a beta") as f32);
        let rule = Rule::AdamW { betas, eps: number("eps"), decay: number("weight_decay") };
        let mut learner = learner(&golden.name, 2);
        let mut optimizer = Optimizer::new(&learner, rule, 0.0).expect("an optimiser");
        let before = learner.model().clone();
        for want in golden.said["losses"].as_array().expect("losses") {
            let want = want.as_f64().expect("a loss");
            let loss = pass(&mut learner, &golden.cases);
            assert!((loss - want).abs() < 1e-4 * want, "{}: loss {loss}, expected {want}", golden.name);
            optimizer.step(&mut learner, number("lr")).expect("a step");
        }
        let tensors = SafeTensors::deserialize(&golden.bytes).expect("safetensors");
        for (name, tensor) in tensors.tensors() {
            let Some(of) = name.strip_prefix("after.") else { continue };
            let stored = before.tensors().get(of).expect("readable").expect("a tensor").bytes();
            let (from, want) = (floats(stored), floats(tensor.data()));
            let mut got = learner.tensor(of).expect("a tensor");
            let grads = floats(tensors.tensor(&format!("grad.{of}")).expect("a gradient").data());
            for ((got, want), grad) in got.iter_mut().zip(&want).zip(&grads) {
                if grad.abs() < NOTHING {
                    assert!((*got - want).abs() < 1e-3, "{}: {of} moved by rounding", golden.name);
                    *got = *want;
                }
            }
            let apart: f64 = got.iter().zip(&want).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
            let path: f64 = from.iter().zip(&want).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
            assert!(apart <= 1e-3 * path, "{}: {of} is {apart:.2e} off after {path:.2e}", golden.name);
        }
    }
}

#[test]
fn the_bits_depend_on_neither_threads_nor_instructions_and_are_those_of_inference() {
    for golden in models() {
        let run = |threads: usize, isa: Option<Isa>| {
            let model = open(&engine(threads, isa), &golden_dir().join(&golden.name), Some(Cache::F32));
            let mut learner = Learner::new(&model, &LearnConfig::default()).expect("a learner");
            pass(&mut learner, &golden.cases);
            let answer = learner.answer().to_vec();
            let all: Vec<f32> = learner.learned().iter().flat_map(|one| one.grads.to_vec()).collect();
            (answer, all)
        };
        let (answer, grads) = run(1, None);
        let sets = Ops::all().into_iter().map(|ops| (2, Some(ops.isa())));
        for (threads, isa) in [(2, None), (3, None)].into_iter().chain(sets) {
            let other = run(threads, isa);
            let same = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same(&answer, &other.0), "{}: answers of {threads} threads, {isa:?}", golden.name);
            assert!(same(&grads, &other.1), "{}: gradients of {threads} threads, {isa:?}", golden.name);
        }
        if golden.name.starts_with("llama") || !golden.cases[0].source.is_empty() {
            let model = open(&engine(2, None), &golden_dir().join(&golden.name), Some(Cache::F32));
            let mut at = &answer[..];
            for case in &golden.cases {
                let mut session = Session::new(&model, SessionConfig::default()).expect("a session");
                let mut rows = Vec::new();
                if !case.source.is_empty() {
                    session.set_source(&case.source).expect("a source");
                }
                session.prefill_all(&case.ids, |row| rows.push(row.to_vec())).expect("logits");
                for row in &case.rows {
                    let (own, rest) = at.split_at(rows[0].len());
                    assert!(own == &rows[*row as usize][..], "{}: position {row}", golden.name);
                    at = rest;
                }
            }
        }
    }
}
