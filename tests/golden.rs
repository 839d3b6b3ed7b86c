//! Logits and greedy tokens of every golden model, against what `transformers` answered (`tests/golden/README.md`).

mod common;

use common::{engine, greedy, open};
use inlaid::kernels::attention::Cache;
use inlaid::session::{Session, SessionConfig};
use safetensors_reference::SafeTensors;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Our chains sum k in order where the reference sums in lanes, which costs some four times the rounding error (the
/// ratio grows with the root of the lanes), and the reference has its own error beside ours.
const CHAIN: f64 = 5.0;

/// Never above this share of the largest logit, in f32.
const MOST: f64 = 2e-4;

fn models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut all: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("tests/golden")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("expected.json").exists())
        .collect();
    all.sort();
    assert!(all.len() >= 16, "golden models are missing");
    all
}

/// The file of a GGUF folder, or the folder.
fn files(folder: &Path) -> PathBuf {
    let entries =
        std::fs::read_dir(folder).expect("a golden folder").map(|entry| entry.expect("an entry").path());
    let mut ggufs = entries.filter(|path| path.extension().is_some_and(|e| e == "gguf"));
    ggufs.next().unwrap_or_else(|| folder.to_owned())
}

fn answers(folder: &Path) -> Value {
    let text = std::fs::read(folder.join("expected.json")).expect("expected.json");
    serde_json::from_slice(&text).expect("JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    let all = value.as_array().expect("ids").iter();
    all.map(|id| id.as_u64().expect("an id") as u32).collect()
}

fn logits(model: &std::sync::Arc<inlaid::model::Model>, ids: &[u32]) -> Vec<f32> {
    let mut session = Session::new(model, SessionConfig::default()).expect("a session");
    let mut out = Vec::new();
    session.prefill_all(ids, |row| out.extend_from_slice(row)).expect("logits");
    out
}

fn expected(tensors: &SafeTensors, name: &str) -> Option<Vec<f32>> {
    let tensor = tensors.tensor(name).ok()?;
    Some(tensor.data().chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect())
}

#[test]
fn logits_at_every_position() {
    let engine = engine(2, None);
    for folder in models() {
        let json = answers(&folder);
        let bytes = std::fs::read(folder.join("expected.safetensors")).expect("expected.safetensors");
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let model = open(&engine, &files(&folder), Some(Cache::F32));
        for (i, case) in json["cases"].as_array().expect("cases").iter().enumerate() {
            let got = logits(&model, &ids(&case["ids"]));
            let number = |key: &str| case[key].as_f64().expect(key);
            let mut bound = (CHAIN * number("f32_error")).min(MOST * number("max_abs"));
            if json["rounds"] == "bytes" {
                // Inputs are quantised for quantised weights: at most twice the error that this costs the reference.
                bound = 2.0 * number("rounded_error");
            }
            // With bf16 weights the reference rounds the inputs of linear layers, as the contract says.
            let want = expected(&tensors, &format!("rounded.{i}"));
            let want = want.or_else(|| expected(&tensors, &format!("logits.{i}"))).expect("logits");
            assert_eq!(got.len(), want.len(), "{}: case {i}", folder.display());
            let error = got.iter().zip(&want).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
            println!("{}: case {i}: {error:.2e}, bound {bound:.2e}", folder.display());
            assert!(error <= bound, "{}: case {i}: {error:e} beyond {bound:e}", folder.display());
        }
    }
}

#[test]
fn greedy_tokens() {
    let engine = engine(2, None);
    for folder in models() {
        let json = answers(&folder);
        let model = open(&engine, &files(&folder), Some(Cache::F32));
        let config = SessionConfig { sampler: greedy(), ..SessionConfig::default() };
        let mut session = Session::new(&model, config).expect("a session");
        session.prefill(&ids(&json["greedy"]["prompt"])).expect("prefill");
        let want = ids(&json["greedy"]["ids"]);
        let got: Vec<u32> = want.iter().map(|_| session.step().expect("a step")).collect();
        assert_eq!(got, want, "{}", folder.display());
    }
}
