//! Encoder-decoders that learn: files into lessons, what was learnt into files, and what only they can get wrong. Their gradients
//! are compared in `learn.rs`.
#![cfg(all(feature = "train", feature = "tokenizer"))]

mod common;
#[path = "common/words.rs"]
mod words;

use common::{engine, open};
use inlaid::Error;
use inlaid::format::files::Files;
use inlaid::kernels::attention::Cache;
use inlaid::model::{Model, ModelConfig};
use inlaid::session::{Session, SessionConfig};
use inlaid::train::data::{Lesson, Reader};
use inlaid::train::lora::LoraConfig;
use inlaid::train::loss::{Scored, cross_entropy};
use inlaid::train::trainer::{Objective, Trainer};
use inlaid::train::{LearnConfig, Learner, Rule, Sample, What, save};
use safetensors_reference::SafeTensors;
use safetensors_reference::tensor::TensorView;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;
use words::reader;

static GO: AtomicBool = AtomicBool::new(false);

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn model(dir: &Path) -> Arc<Model> {
    open(&engine(2, None), dir, Some(Cache::F32))
}

/// Lessons of several lengths, the second of which has a longer source than answer.
fn lessons() -> Vec<Lesson> {
    let lesson = |i: u32| {
        let mut lesson =
            Lesson { source: (0..70 - 22 * i).map(|t| 3 + (t * t + i) % 50).collect(), ..Lesson::default() };
        lesson.push(&[0], false);
        lesson.push(&(0..5 + 30 * i).map(|t| 3 + (3 * t + i) % 50).collect::<Vec<_>>(), true);
        lesson
    };
    (0..3).map(lesson).collect()
}

fn trainer(model: &Arc<Model>, what: What, objective: Objective) -> Trainer {
    let config = LearnConfig { what, ..LearnConfig::default() };
    Trainer::new(model, &config, objective, Rule::default(), 0.0, 150).expect("a trainer")
}

fn logits(model: &Arc<Model>, source: &[u32], ids: &[u32]) -> Vec<f32> {
    let mut session = Session::new(model, SessionConfig::default()).expect("a session");
    session.set_source(source).expect("a source");
    let mut out = Vec::new();
    session.prefill_all(ids, |row| out.extend_from_slice(row)).expect("logits");
    out
}

/// A golden model whose file has its table a second time, as a head: what old files do.
fn with_twin(name: &str, of: &str, twin: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let bytes = std::fs::read(golden(name).join("model.safetensors")).expect("a model");
    let read = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut tensors: BTreeMap<String, TensorView> = read.tensors().into_iter().collect();
    let copy = read.tensor(of).expect("a table");
    tensors.insert(twin.to_owned(), copy);
    let whole = safetensors_reference::serialize(&tensors, None).expect("a file");
    std::fs::write(dir.path().join("model.safetensors"), whole).expect("written");
    for file in ["config.json", "generation_config.json"] {
        std::fs::copy(golden(name).join(file), dir.path().join(file)).expect("a copy");
    }
    dir
}

#[test]
fn what_was_learnt_opens_as_a_model() {
    let twin = with_twin("t5", "shared.weight", "lm_head.weight");
    let dirs = ["t5", "t5-untied", "mt5", "marian", "bart", "transformer"].map(golden);
    for dir in dirs.iter().map(PathBuf::as_path).chain([twin.path()]) {
        let (served, out) = (model(dir), tempfile::tempdir().expect("a directory"));
        let mut trainer = trainer(&served, What::All, Objective::NextToken { smoothing: 0.1 });
        let mut losses = Vec::new();
        for _ in 0..4 {
            losses.push(trainer.step(lessons(), &[], 3e-3, &GO).expect("a step").loss);
        }
        assert!(losses[3] < losses[0], "{}: {losses:?}", dir.display());
        let (learner, _) = trainer.state_mut();
        let out = out.path().join("out");
        save::model(learner, &Files::at(dir).expect("files"), &out).expect("saved");
        let Lesson { source, ids, .. } = &lessons()[1];
        let rows: Vec<u32> = (0..ids.len() as u32).collect();
        learner.forward(&[Sample { source, ids, rows: &rows, ..Sample::default() }], &GO).expect("forward");
        let kept = logits(&model(&out), source, ids);
        assert!(kept == learner.answer(), "{}: what was saved is another model", dir.display());
        assert!(kept != logits(&served, source, ids), "{}: nothing was learnt", dir.display());
    }
}

/// The loss of some lessons, and the gradient of a tensor of each stack.
fn gradients(learner: &mut Learner, tensors: [&str; 2]) -> [Vec<f32>; 2] {
    let lessons = lessons();
    let rows: Vec<Vec<u32>> = lessons.iter().map(|one| (0..one.ids.len() as u32 - 1).collect()).collect();
    let samples = lessons.iter().zip(&rows).map(|(one, rows)| Sample {
        source: &one.source,
        ids: &one.ids[..rows.len()],
        rows,
        targets: &one.ids[1..],
        ..Sample::default()
    });
    learner.forward(&samples.collect::<Vec<_>>(), &GO).expect("forward");
    let scored = Scored { logprobs: learner.logprobs(), logits: &[] };
    let loss = cross_entropy(scored, 0.0, scored.rows() as f64);
    learner.backward(&loss.seeds, &[], &GO).expect("backward");
    tensors.map(|tensor| learner.gradient(tensor).expect("a gradient"))
}

#[test]
fn a_stack_that_stays_changes_nothing_for_the_other() {
    let biases = ["encoder", "decoder"]
        .map(|side| format!("{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"));
    let tensors = [&biases[0][..], &biases[1][..]];
    let served = model(&golden("t5"));
    let of = |what: What| {
        let config = LearnConfig { what, ..LearnConfig::default() };
        gradients(&mut Learner::new(&served, &config).expect("a learner"), tensors)
    };
    let both = of(What::All);
    for (side, other) in [(0, 1), (1, 0)] {
        assert!(both[side].iter().any(|x| *x != 0.0), "{} has no gradient", tensors[side]);
        let name = ["encoder.", "decoder."][side].to_owned();
        let one = of(What::Named(vec![name]));
        assert!(one[side] == both[side], "{} has another gradient alone", tensors[side]);
        assert!(one[other].iter().all(|x| *x == 0.0), "{} learns", tensors[other]);
    }
}

#[test]
fn additions_and_preferences_learn_from_sources() {
    let served = model(&golden("marian"));
    let lora = What::Lora(LoraConfig { rank: 4, alpha: 8.0, targets: Vec::new() });
    let mut sft = trainer(&served, lora, Objective::NextToken { smoothing: 0.0 });
    let losses: Vec<f64> =
        (0..8).map(|_| sft.step(lessons(), &[], 3e-3, &GO).expect("a step").loss).collect();
    assert!(losses[7] < losses[0] && losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
    let pairs: Vec<Lesson> = lessons()
        .iter()
        .flat_map(|one| {
            let mut worse = one.clone();
            worse.ids[2..].reverse();
            [one.clone(), worse]
        })
        .collect();
    let mut dpo = trainer(&served, What::All, Objective::Preferences { beta: 0.1 });
    let mut step = || dpo.step(pairs.clone(), &[0, 0, 1, 1, 2, 2], 1e-3, &GO).expect("a step").loss;
    let losses = [step(), step(), step()];
    assert!((losses[0] - 2f64.ln()).abs() < 1e-6 && losses[2] < losses[0], "{losses:?}");
}

#[test]
fn lines_become_sources_and_answers() {
    let dir = reader("t5", |config| config["forced_bos_token_id"] = 9.into());
    let config = ModelConfig { cache: Some(Cache::F32), ..ModelConfig::default() };
    let model =
        Model::open(&engine(2, None), &Files::at(dir.path()).expect("files"), config).expect("a model");
    let lines = Reader::new(&model, 5).expect("a reader");
    let want = Lesson {
        source: vec![2, 5, 6, 3],
        ids: vec![0, 9, 7, 8, 1],
        counts: vec![false, true, true, true, true],
    };
    for (source, target) in [("source", "target"), ("prompt", "completion")] {
        assert_eq!(lines.lesson(&json!({source: "w5 w6", target: "w7 w8"})), Ok(want.clone()));
    }
    let cut = lines.lesson(&json!({"source": "w5 w6 w7 w8 w10", "target": "w7 w8 w10"})).expect("a lesson");
    assert_eq!((cut.source, cut.ids), (vec![2, 5, 6, 7, 3], vec![0, 9, 7, 8, 10]));
    for wrong in [json!({"text": "w5"}), json!({"messages": []}), json!({"source": "w5"})] {
        lines.lesson(&wrong).expect_err("expected a pair");
    }
    let ranking =
        lines.ranking(&json!({"prompt": "w5", "chosen": "w6", "rejected": "w7"})).expect("a ranking");
    assert!(ranking.answers.iter().all(|answer| answer.source == [2, 5, 3] && answer.ids[..2] == [0, 9]));
}

#[test]
fn batches_without_what_the_model_reads_are_refused() {
    let run = |name: &str, source: &[u32]| {
        let mut learner = Learner::new(&model(&golden(name)), &LearnConfig::default()).expect("a learner");
        let sample = |source| Sample { source, ids: &[3, 4], rows: &[1], ..Sample::default() };
        let refused = learner.forward(&[sample(source)], &GO).expect_err("expected a refusal");
        assert!(learner.answer().is_empty() && learner.backward(&[], &[], &GO).is_err());
        let right: &[u32] = if learner.model().arch().reads_source() { &[5, 6, 7] } else { &[] };
        learner.forward(&[sample(right)], &GO).expect("the learner goes on");
        assert_eq!(learner.answer().len(), learner.model().arch().vocab());
        refused
    };
    for (name, source) in [("bart", &[][..]), ("bart", &[3, 1000]), ("gpt2", &[3])] {
        let refused = run(name, source);
        assert!(matches!(refused, Error::Argument { .. }), "{name}: {refused}");
    }
    assert!(matches!(run("bart", &[3; 81]), Error::ContextFull { .. }));
}

#[test]
fn an_encoder_of_which_nothing_learns_costs_no_gradients() {
    let served = model(&golden("bart"));
    let tensors = ["model.encoder.layers.0.fc1.weight", "model.decoder.layers.0.fc1.weight"];
    let learner = |what| {
        let config = LearnConfig { what, ..LearnConfig::default() };
        Learner::new(&served, &config).expect("a learner")
    };
    let (mut all, mut one) = (learner(What::All), learner(What::Named(vec![tensors[1].to_owned()])));
    let ([other, own], [none, same]) = (gradients(&mut all, tensors), gradients(&mut one, tensors));
    assert!(own == same && other.iter().any(|x| *x != 0.0) && none.iter().all(|x| *x == 0.0));
    assert!(one.buffer_bytes() < all.buffer_bytes(), "{} of {}", one.buffer_bytes(), all.buffer_bytes());
}

#[test]
fn a_bias_that_is_no_parameter_never_learns() {
    for name in ["bart", "marian"] {
        let served = model(&golden(name));
        let named = What::Named(vec!["final_logits_bias".to_owned()]);
        for what in [named, What::Biases(vec!["final_logits_bias".to_owned()])] {
            let config = LearnConfig { what, ..LearnConfig::default() };
            assert!(matches!(Learner::new(&served, &config), Err(Error::Argument { .. })), "{name}");
        }
        let mut trainer = trainer(&served, What::All, Objective::NextToken { smoothing: 0.1 });
        trainer.step(lessons(), &[], 3e-3, &GO).expect("a step");
        let (learner, _) = trainer.state_mut();
        assert!(learner.learned().iter().all(|one| one.name != "final_logits_bias"), "{name}");
    }
}
