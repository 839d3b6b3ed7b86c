//! Adapters that learn: gradients and steps against peft (`tests/golden/learn/make_peft.py`), what they begin as, and what is
//! kept of them.
#![cfg(feature = "train")]

mod common;
#[path = "common/steps.rs"]
mod steps;

use common::{engine, open};
use inlaid::Error;
use inlaid::format::files::Files;
use inlaid::kernels::act::Act;
use inlaid::kernels::attention::Cache;
use inlaid::kernels::{Isa, Ops};
use inlaid::model::Model;
use inlaid::session::{Session, SessionConfig};
use inlaid::train::before::PromptConfig;
use inlaid::train::draw::Drawer;
use inlaid::train::ia3::Ia3Config;
use inlaid::train::lora::LoraConfig;
use inlaid::train::loss::{Scored, cross_entropy};
use inlaid::train::{BottleneckConfig, LearnConfig, Learner, Optimizer, Rule, Sample, What, Width, save};
use safetensors_reference::SafeTensors;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use steps::{GO, NOTHING, distance, golden};

struct Case {
    source: Vec<u32>,
    ids: Vec<u32>,
    rows: Vec<u32>,
    targets: Vec<u32>,
}

struct Said {
    name: String,
    json: Value,
    cases: Vec<Case>,
    tensors: Tensors,
}

/// Tensors of a file by their names.
type Tensors = BTreeMap<String, Vec<f32>>;

fn tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).expect("tensors");
    let floats =
        |bytes: &[u8]| bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect();
    let all = SafeTensors::deserialize(&bytes).expect("safetensors").tensors();
    all.into_iter().map(|(name, tensor)| (name, floats(tensor.data()))).collect()
}

fn said() -> Vec<Said> {
    let list = std::fs::read_dir(golden("learn/peft"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path());
    let read = |path: PathBuf| {
        let json: Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
        let ids = |value: &Value| -> Vec<u32> {
            value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
        };
        let case = |case: &Value| Case {
            source: case.get("source").map(ids).unwrap_or_default(),
            ids: ids(&case["ids"]),
            rows: ids(&case["rows"]),
            targets: ids(&case["targets"]),
        };
        Said {
            name: path.file_stem().expect("a name").to_string_lossy().into_owned(),
            cases: json["cases"].as_array().expect("cases").iter().map(case).collect(),
            json,
            tensors: tensors(&path.with_extension("safetensors")),
        }
    };
    let mut all: Vec<Said> =
        list.filter(|path| path.extension().is_some_and(|e| e == "json")).map(read).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(all.len() >= 16, "golden adapters that learn are missing");
    all
}

impl Said {
    fn learner(&self, threads: usize, isa: Option<Isa>, recompute: bool) -> Learner {
        let base = golden(self.json["base"].as_str().expect("a model"));
        let model = open(&engine(threads, isa), &base, Some(Cache::F32));
        let what = match self.json["adapter"].as_str() {
            None => What::Biases(Vec::new()),
            Some(adapter) => {
                let files = Files::at(golden(adapter)).expect("files");
                What::Adapter(model.adapter(&files).expect("an adapter"))
            }
        };
        Learner::new(&model, &LearnConfig { what, recompute, ..LearnConfig::default() }).expect("a learner")
    }

    /// Forward and backward; the loss.
    fn pass(&self, learner: &mut Learner) -> f64 {
        let batch: Vec<Sample> = self.cases.iter().map(sample).collect();
        pass(learner, &batch)
    }
}

fn sample(case: &Case) -> Sample<'_> {
    let Case { source, ids, rows, targets } = case;
    Sample { source, ids, rows, targets, ..Sample::default() }
}

/// Forward and backward; the loss.
fn pass(learner: &mut Learner, batch: &[Sample]) -> f64 {
    learner.forward(batch, &GO).expect("forward");
    let scored = Scored { logprobs: learner.logprobs(), logits: &[] };
    let loss = cross_entropy(scored, 0.0, scored.rows() as f64);
    learner.backward(&loss.seeds, &[], &GO).expect("backward");
    loss.value
}

/// What an adapter's file has now.
fn written(learner: &mut Learner) -> Tensors {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("adapter");
    save::adapter(learner, &out).expect("saved");
    let file = ["adapter_model.safetensors", "adapter.safetensors"].map(|name| out.join(name));
    tensors(file.iter().find(|path| path.exists()).expect("tensors"))
}

#[test]
fn gradients_are_those_of_peft() {
    for said in said() {
        let mut learner = said.learner(2, None, false);
        let loss = said.pass(&mut learner);
        let want = said.json["loss"].as_f64().expect("a loss");
        assert!((loss - want).abs() < 1e-5 * want, "{}: loss {loss}, expected {want}", said.name);
        // Written in the place of what has them, gradients lie where the adapter's numbers do.
        learner.learned().into_iter().for_each(|one| one.values.copy_from_slice(one.grads));
        let got = written(&mut learner);
        for (name, want) in &said.tensors {
            let Some(name) = name.strip_prefix("grad.") else { continue };
            let Some(got) = got.get(name) else { panic!("{}: {name} is missing", said.name) };
            if want.iter().all(|x| x.abs() < NOTHING) {
                assert!(got.iter().all(|x| x.abs() < 1e-6), "{}: {name} has a gradient", said.name);
                continue;
            }
            let apart = distance(got, want);
            assert!(apart < 1e-4, "{}: {name} is {apart:.2e} off", said.name);
        }
    }
}

#[test]
fn steps_of_adamw_are_those_of_peft() {
    for said in said() {
        let number = |key: &str| said.json["adamw"][key].as_f64().expect(key) as f32;
        let betas = [0, 1].map(|i| said.json["adamw"]["betas"][i].as_f64().expect("a beta") as f32);
        let rule = Rule::AdamW { betas, eps: number("eps"), decay: number("weight_decay") };
        let mut learner = said.learner(2, None, false);
        let mut optimizer = Optimizer::new(&learner, rule, 0.0).expect("an optimiser");
        let before = written(&mut learner);
        for want in said.json["losses"].as_array().expect("losses") {
            let want = want.as_f64().expect("a loss");
            let loss = said.pass(&mut learner);
            assert!((loss - want).abs() < 1e-4 * want, "{}: loss {loss}, expected {want}", said.name);
            optimizer.step(&mut learner, number("lr")).expect("a step");
        }
        let after = written(&mut learner);
        for (name, want) in &said.tensors {
            let Some(name) = name.strip_prefix("after.") else { continue };
            let (from, mut got) = (before.get(name), after[name].clone());
            let grads = &said.tensors[&format!("grad.{name}")];
            for ((got, want), _) in
                got.iter_mut().zip(want).zip(grads).filter(|(_, grad)| grad.abs() < NOTHING)
            {
                assert!((*got - want).abs() < 2e-2, "{}: {name} moved by rounding", said.name);
                *got = *want;
            }
            let apart: f64 = got.iter().zip(want).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
            // Biases are not written before they move; their way is not far from its steps.
            let path: f64 = from.map_or(5.0 * 2e-3 * (want.len() as f64).sqrt(), |from| {
                from.iter().zip(want).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
            });
            assert!(apart <= 1e-3 * path, "{}: {name} is {apart:.2e} off after {path:.2e}", said.name);
        }
    }
}

#[test]
fn the_bits_depend_on_neither_threads_nor_instructions() {
    for said in said() {
        let run = |threads: usize, isa: Option<Isa>| {
            // Blocks that are computed again have the same bits too.
            let mut learner = said.learner(threads, isa, threads == 3);
            said.pass(&mut learner);
            let answer = learner.answer().to_vec();
            let all: Vec<f32> = learner.learned().iter().flat_map(|one| one.grads.to_vec()).collect();
            (answer, all)
        };
        let (answer, grads) = run(1, None);
        let sets = Ops::all().into_iter().map(|ops| (2, Some(ops.isa())));
        for (threads, isa) in [(2, None), (3, None)].into_iter().chain(sets) {
            let other = run(threads, isa);
            let same = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same(&answer, &other.0), "{}: answers of {threads} threads, {isa:?}", said.name);
            assert!(same(&grads, &other.1), "{}: gradients of {threads} threads, {isa:?}", said.name);
        }
    }
}

fn model(name: &str) -> Arc<Model> {
    open(&engine(2, None), &golden(name), Some(Cache::F32))
}

fn learns(model: &Arc<Model>, what: What) -> Learner {
    Learner::new(model, &LearnConfig { what, seed: 3, ..LearnConfig::default() }).expect("a learner")
}

fn dora() -> What {
    What::Dora(LoraConfig { rank: 3, alpha: 5.0, targets: Vec::new() })
}

/// One of each kind.
fn kinds() -> Vec<What> {
    vec![
        dora(),
        What::Ia3(Ia3Config::default()),
        What::Prompt(PromptConfig { tokens: 4, text: Vec::new() }),
        What::Prompt(PromptConfig { tokens: 5, text: vec![7, 3, 9] }),
        What::Prefix(3),
        What::Bottleneck(BottleneckConfig { width: Width::Over(6), act: None, both: true }),
        What::Bottleneck(BottleneckConfig { width: Width::Is(3), act: Some(Act::GeluErf), both: false }),
    ]
}

fn ids() -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let ids: Vec<u32> = (0..37).map(|i| 3 + i * 7 % 50).collect();
    let rows: Vec<u32> = (0..ids.len() as u32).collect();
    let targets = rows.iter().map(|row| 3 + row * 11 % 50).collect();
    (ids, rows, targets)
}

/// Some steps; the losses before each.
fn steps(learner: &mut Learner, n: usize) -> Vec<f64> {
    let (ids, rows, targets) = ids();
    let mut optimizer = Optimizer::new(learner, Rule::default(), 1.0).expect("an optimiser");
    let sample = Sample { ids: &ids, rows: &rows, targets: &targets, ..Sample::default() };
    let step = |_| {
        let loss = pass(learner, &[sample]);
        optimizer.step(learner, 1e-2).expect("a step");
        loss
    };
    (0..n).map(step).collect()
}

fn answer(learner: &mut Learner) -> Vec<f32> {
    let (ids, rows, _) = ids();
    learner.forward(&[Sample { ids: &ids, rows: &rows, ..Sample::default() }], &GO).expect("forward");
    learner.answer().to_vec()
}

fn logits(session: &mut Session) -> Vec<f32> {
    let mut out = Vec::new();
    session.prefill_all(&ids().0, |row| out.extend_from_slice(row)).expect("logits");
    out
}

#[test]
fn magnitudes_and_factors_begin_as_the_model_itself_on_weights_of_any_type() {
    for name in ["llama-gqa", "llama-bf16", "gpt2", "gguf-llama-q8_0", "gguf-llama-q4_k"] {
        let path = golden(name);
        let gguf = std::fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path());
        let path =
            gguf.into_iter().find(|path| path.extension().is_some_and(|e| e == "gguf")).unwrap_or(path);
        let model = open(&engine(2, None), &path, Some(Cache::F32));
        let mut session = Session::new(&model, SessionConfig::default()).expect("a session");
        let served = logits(&mut session);
        let mut all = vec![dora(), What::Ia3(Ia3Config::default())];
        all.extend((name == "gpt2").then(|| What::Biases(Vec::new())));
        for what in all {
            let mut learner = learns(&model, what);
            assert!(answer(&mut learner) == served, "{name}: other bits than the served model's");
            let losses = steps(&mut learner, 6);
            assert!(losses[5] < losses[0], "{name}: {losses:?}");
        }
    }
}

#[test]
fn what_was_learnt_has_the_same_bits_in_a_session_and_in_files_and_goes_on() {
    for name in ["llama-gqa", "llama-bf16", "gpt2", "gpt-neox", "qwen3", "gemma"] {
        let model = model(name);
        // Halves side by side have no sum of their own.
        let fits = |what: &What| name != "gpt-neox" || !matches!(what, What::Bottleneck(_));
        for what in kinds().into_iter().filter(fits) {
            let dir = tempfile::tempdir().expect("a directory");
            let mut learner = learns(&model, what);
            let losses = steps(&mut learner, 4);
            assert!(losses[3] < losses[0], "{name}: {losses:?}");
            let learnt = answer(&mut learner);
            let out = dir.path().join("adapter");
            save::adapter(&mut learner, &out).expect("saved");
            let read = model.adapter(&Files::at(&out).expect("files")).expect("read");
            let kind = read.config().kind;
            for adapter in [learner.adapter("learnt").expect("an adapter"), read.clone()] {
                let mut session = Session::new(&model, SessionConfig::default()).expect("a session");
                session.set_adapters(&[(adapter, 1.0)]).expect("attached");
                assert!(
                    logits(&mut session) == learnt,
                    "{name}, {kind:?}: other bits than those that were learnt"
                );
            }
            let mut again = learns(&model, What::Adapter(read));
            assert!(answer(&mut again) == learnt, "{name}, {kind:?}: other bits where learning goes on");
            let losses = steps(&mut again, 4);
            assert!(losses[3] < losses[0], "{name}: {losses:?}");
        }
    }
}

#[test]
fn biases_that_were_learnt_say_the_same_in_a_session_and_go_on() {
    let (model, dir) = (model("gpt2"), tempfile::tempdir().expect("a directory"));
    let mut learner = learns(&model, What::Biases(vec!["attn".to_owned(), "ln_".to_owned()]));
    let losses = steps(&mut learner, 4);
    assert!(losses[3] < losses[0], "{losses:?}");
    let learnt = answer(&mut learner);
    let out = dir.path().join("adapter");
    save::adapter(&mut learner, &out).expect("saved");
    let read = model.adapter(&Files::at(&out).expect("files")).expect("read");
    let mut session = Session::new(&model, SessionConfig::default()).expect("a session");
    session.set_adapters(&[(read.clone(), 1.0)]).expect("attached");
    let apart = distance(&logits(&mut session), &learnt);
    assert!(apart < 1e-6, "{apart:.2e} off");
    assert!(answer(&mut learns(&model, What::Adapter(read))) == learnt, "other bits where learning goes on");
}

#[test]
fn a_learner_that_was_restored_has_the_same_bits_and_draws_what_it_scores() {
    let (llama, gpt2) = (model("llama-gqa"), model("gpt2"));
    let more = [What::All, What::Biases(Vec::new())].map(|what| (&gpt2, what));
    for (model, what) in kinds().into_iter().map(|what| (&llama, what)).chain(more) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut learner = learns(model, what.clone());
        steps(&mut learner, 3);
        let optimizer = Optimizer::new(&learner, Rule::default(), 1.0).expect("an optimiser");
        save::checkpoint(&mut learner, &optimizer, dir.path(), &json!({})).expect("a checkpoint");
        let (_, at) = save::newest(dir.path()).expect("readable").expect("a checkpoint");
        let mut other = learns(model, what);
        let mut optimizer = Optimizer::new(&other, Rule::default(), 1.0).expect("an optimiser");
        save::restore(&mut other, &mut optimizer, &at, 0).expect("restored");
        assert!(answer(&mut other) == answer(&mut learner));

        let mut drawer = Drawer::new(&other, 1).expect("a drawer");
        drawer.begin(&other, &[vec![3, 4, 5], vec![6]], 5).expect("begun");
        while drawer.step(&other, &GO).expect("a step") {}
        for answer in drawer.end() {
            let ids = [&answer.prompt[..], &answer.ids].concat();
            let first = answer.prompt.len() as u32 - 1;
            let rows: Vec<u32> = (first..first + answer.ids.len() as u32).collect();
            let (ids, targets) = (&ids[..ids.len() - 1], &answer.ids[..]);
            other
                .forward(&[Sample { ids, rows: &rows, targets, ..Sample::default() }], &GO)
                .expect("forward");
            let scored: Vec<f32> = other.logprobs().chunks_exact(2).map(|pair| pair[0]).collect();
            assert!(scored == answer.logprobs, "other bits than those that were drawn");
        }
    }
}

#[test]
fn what_cannot_learn_is_refused() {
    let (llama, t5) = (model("llama-gqa"), model("t5"));
    let refused = |model: &Arc<Model>, what: What| {
        Learner::new(model, &LearnConfig { what, ..LearnConfig::default() }).err().expect("a refusal")
    };
    let none = |text: &str| vec![text.to_owned()];
    for what in [
        What::Dora(LoraConfig { rank: 0, alpha: 1.0, targets: Vec::new() }),
        What::Ia3(Ia3Config { targets: none("no such"), feedforward: Vec::new() }),
        What::Prompt(PromptConfig { tokens: 0, text: Vec::new() }),
        What::Prompt(PromptConfig { tokens: 3, text: vec![1 << 20] }),
        What::Prefix(1 << 20),
        What::Biases(Vec::new()),
        What::Bottleneck(BottleneckConfig { width: Width::Over(0), act: None, both: true }),
        What::Bottleneck(BottleneckConfig { width: Width::Is(2), act: Some(Act::QuickGelu), both: true }),
    ] {
        assert!(matches!(refused(&llama, what), Error::Argument { .. }));
    }
    let neck = What::Bottleneck(BottleneckConfig { width: Width::Over(6), act: None, both: true });
    assert!(matches!(refused(&model("gpt-neox"), neck), Error::Unsupported { .. }));
    for what in [What::Prefix(3), What::Prompt(PromptConfig { tokens: 3, text: Vec::new() })] {
        assert!(matches!(refused(&t5, what), Error::Unsupported { .. }));
    }
    for adapter in ["lora-saved", "lora-embeddings", "bn-single"] {
        let adapter =
            llama.adapter(&Files::at(golden("adapters").join(adapter)).expect("files")).expect("read");
        assert!(matches!(refused(&llama, What::Adapter(adapter)), Error::Unsupported { .. }));
    }
}
