//! Masked language models learn: runs over hidden tokens, and what goes on from a checkpoint.
#![cfg(feature = "train")]

mod common;

use common::{engine, open};
use inlaid::Error;
use inlaid::kernels::attention::Cache;
use inlaid::model::Model;
use inlaid::train::data::Lesson;
use inlaid::train::mask::{MaskedTokens, Masking};
use inlaid::train::run::{Run, RunConfig};
use inlaid::train::task::Task;
use inlaid::train::trainer::{Objective, Trainer};
use inlaid::train::{LearnConfig, Learner, Rule, Schedule, save};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

static GO: AtomicBool = AtomicBool::new(false);
const MASK: u32 = 4;

fn model(name: &str) -> Arc<Model> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    open(&engine(2, None), &dir, Some(Cache::F32))
}

/// Texts in which six tokens follow each other in turn; the first and the last are never hidden.
fn texts() -> Vec<Lesson> {
    let text = |i: u32| {
        let mut lesson = Lesson::default();
        lesson.push(&[2], false);
        lesson.push(&(0..12 + i).map(|t| 5 + 4 * ((i + t) % 6)).collect::<Vec<_>>(), true);
        lesson.push(&[3], false);
        lesson
    };
    (0..11).map(text).collect()
}

fn task(model: &Model, seed: u64) -> MaskedTokens {
    let masking = Masking::new(model, 0.15, Some(MASK), seed).expect("masking");
    MaskedTokens::new(texts(), masking, 0.0).expect("a task")
}

fn run(model: &Arc<Model>, steps: u64) -> Run {
    let schedule = Schedule::Constant { warmup: 0 };
    let config =
        RunConfig { steps, batch: 4, tokens: 60, rate: 5e-3, schedule, seed: 3, ..RunConfig::default() };
    let learner = Learner::new(model, &LearnConfig::default()).expect("a learner");
    Run::new(learner, Box::new(task(model, 3)), config).expect("a run")
}

fn bits(learner: &mut Learner) -> Vec<u32> {
    learner
        .learned()
        .iter()
        .flat_map(|one| one.values.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn hidden_tokens_are_learnt() {
    for name in ["bert-mlm", "distilbert-mlm", "modernbert-mlm", "mpnet-mlm"] {
        let model = model(name);
        let mut run = run(&model, 300);
        // The same tokens are hidden at each look at what is held out.
        let loss = |run: &mut Run| task(&model, 8).loss(&mut run.learner, 50, &GO).expect("a loss");
        let before = loss(&mut run);
        assert_eq!(before, loss(&mut run), "{name}");
        while !run.is_done() {
            run.step(&GO).expect("a step");
        }
        let after = loss(&mut run);
        assert!(after < 0.5 * before, "{name}: from {before} to {after}");
    }
}

#[test]
fn a_run_that_goes_on_hides_what_it_would_have_hidden() {
    let (model, dir) = (model("bert-mlm"), tempfile::tempdir().expect("a directory"));
    let mut whole = run(&model, 9);
    let losses: Vec<f64> = (0..9).map(|_| whole.step(&GO).expect("a step").loss).collect();
    // Eleven texts, four a step: the sixth step is in the second epoch.
    let mut first = run(&model, 9);
    for _ in 0..5 {
        first.step(&GO).expect("a step");
    }
    save::checkpoint(&mut first.learner, &first.optimizer, dir.path(), &json!({})).expect("a checkpoint");
    let (_, at) = save::newest(dir.path()).expect("readable").expect("a checkpoint");
    let mut second = run(&model, 9);
    save::restore(&mut second.learner, &mut second.optimizer, &at, 5).expect("restored");
    let rest: Vec<f64> = (5..9).map(|_| second.step(&GO).expect("a step").loss).collect();
    assert_eq!(losses[5..], rest);
    assert!(bits(&mut whole.learner) == bits(&mut second.learner), "other bits");
}

#[test]
fn a_trainer_hides_other_tokens_in_each_step() {
    let model = model("bert-mlm");
    let masking = Masking::new(&model, 0.15, Some(MASK), 1).expect("masking");
    let objective = Objective::MaskedTokens { masking, smoothing: 0.0 };
    let learn = LearnConfig::default();
    let mut trainer = Trainer::new(&model, &learn, objective, Rule::default(), 1.0, 64).expect("a trainer");
    let mut losses: Vec<f64> =
        (0..3).map(|_| trainer.step(texts(), &[], 0.0, &GO).expect("a step").loss).collect();
    losses.dedup();
    assert_eq!(losses.len(), 3, "nothing was learnt, so other losses are other tokens");
}

#[test]
fn what_cannot_be_hidden_is_refused() {
    let (bert, llama) = (model("bert-mlm"), model("llama-gqa"));
    let refused = |model: &Model, share: f64, mask| {
        matches!(Masking::new(model, share, mask, 0), Err(Error::Argument { .. }))
    };
    assert!(refused(&llama, 0.15, Some(MASK)));
    assert!(refused(&bert, 0.15, Some(61)));
    for share in [0.0, -0.1, 1.1, f64::NAN] {
        assert!(refused(&bert, share, Some(MASK)), "{share}");
    }
    assert!(
        matches!(Masking::new(&bert, 0.15, None, 0), Err(Error::Tokenizer(_))),
        "nothing says what the mask is"
    );
    let masking = Masking::new(&bert, 0.15, Some(MASK), 0).expect("masking");
    let mut none = Lesson::default();
    none.push(&[2, 3], false);
    for lessons in [vec![], vec![none]] {
        assert!(matches!(MaskedTokens::new(lessons, masking, 0.0), Err(Error::Argument { .. })));
    }
}
