//! Logits, hidden states and greedy tokens of every golden model, against what `transformers` answered (`tests/golden/README.md`).

mod common;

use common::{answer, engine, greedy, open};
use inlaid::beam::{BeamConfig, Prompt, search};
use inlaid::convert::{Target, convert};
use inlaid::encode::{Ask, Text, run};
use inlaid::format::files::Files;
use inlaid::kernels::DType;
use inlaid::kernels::attention::Cache;
use inlaid::session::{Session, SessionConfig};
use safetensors_reference::SafeTensors;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Our chains sum k in order where the reference sums in lanes, which costs some four times the rounding error (the
/// ratio grows with the root of the lanes), and the reference has its own error beside ours.
const CHAIN: f64 = 5.0;

/// Never above this share of the largest logit, in f32.
const MOST: f64 = 2e-4;

const BRANCHES: [&str; 3] = ["decoder", "encoder", "encoder-decoder"];

/// Folders of one branch, with their `expected.json`.
fn models(branch: &str) -> Vec<(PathBuf, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut all: Vec<(PathBuf, Value)> = std::fs::read_dir(root)
        .expect("tests/golden")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("expected.json").exists())
        .map(|path| (path.clone(), answers(&path)))
        .filter(|(_, json)| json["branch"].as_str().unwrap_or("decoder") == branch)
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(all.len() >= 7, "golden models are missing");
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

fn tensors(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("expected.safetensors")).expect("expected.safetensors")
}

fn expected(tensors: &SafeTensors, name: &str) -> Option<Vec<f32>> {
    let tensor = tensors.tensor(name).ok()?;
    Some(tensor.data().chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect())
}

/// The largest difference.
fn farthest(got: &[f32], want: &[f32]) -> f64 {
    got.iter().zip(want).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}

#[test]
fn logits_at_every_position() {
    let engine = engine(2, None);
    for (folder, json) in models("decoder") {
        let bytes = tensors(&folder);
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let model = open(&engine, &files(&folder), Some(Cache::F32));
        for (i, case) in json["cases"].as_array().expect("cases").iter().enumerate() {
            let speaks = !json["greedy"].is_null();
            let got = if speaks { logits } else { answer }(&model, &ids(&case["ids"]));
            let number = |key: &str| case[key].as_f64().expect(key);
            let mut bound = (CHAIN * number("f32_error")).min(MOST * number("max_abs"));
            if json["rounds"] == "bytes" {
                // Inputs are quantised for quantised weights: at most twice the error that this costs the reference.
                bound = 2.0 * number("rounded_error");
            }
            if json["rounds"] == "bf16" && i >= 2 {
                // Of many inputs, some lie on the edge between two bf16 values, and fall on either side of it.
                bound = bound.max(number("rounded_error") / 4.0);
            }
            // With bf16 weights the reference rounds the inputs of linear layers, as the contract says.
            let want = expected(&tensors, &format!("rounded.{i}"));
            let want = want.or_else(|| expected(&tensors, &format!("logits.{i}"))).expect("logits");
            assert_eq!(got.len(), want.len(), "{}: case {i}", folder.display());
            let error = farthest(&got, &want);
            println!("{}: case {i}: {error:.2e}, bound {bound:.2e}", folder.display());
            assert!(error <= bound, "{}: case {i}: {error:e} beyond {bound:e}", folder.display());
        }
    }
}

#[test]
fn greedy_tokens() {
    let engine = engine(2, None);
    for (folder, json) in models("decoder").into_iter().filter(|(_, json)| !json["greedy"].is_null()) {
        let model = open(&engine, &files(&folder), Some(Cache::F32));
        let config = SessionConfig { sampler: greedy(), ..SessionConfig::default() };
        let mut session = Session::new(&model, config).expect("a session");
        session.prefill(&ids(&json["greedy"]["prompt"])).expect("prefill");
        let want = ids(&json["greedy"]["ids"]);
        let got: Vec<u32> = want.iter().map(|_| session.step().expect("a step")).collect();
        assert_eq!(got, want, "{}", folder.display());
    }
}

/// The largest error of the reference in f32, as a share of its largest answer. (An answer of one number may by chance
/// have hardly any, so all cases count.)
fn f32_error(cases: &[Value]) -> f64 {
    let share = |answer: &Value| Some(answer["f32_error"].as_f64()? / answer["max_abs"].as_f64()?);
    let shares = |case: &Value| ["hidden", "logits"].map(|what| share(&case[what]).unwrap_or(0.0));
    cases.iter().flat_map(shares).fold(0.0, f64::max)
}

/// Whether `got` is `what.i` of the tensors, within the bound.
fn close(folder: &Path, tensors: &SafeTensors, cases: &[Value], (what, i): (&str, usize), got: &[f32]) {
    let want = expected(tensors, &format!("{what}.{i}")).expect(what);
    assert_eq!(got.len(), want.len(), "{}: {what} of case {i}", folder.display());
    let bound =
        (CHAIN * f32_error(cases)).min(MOST) * cases[i][what]["max_abs"].as_f64().expect("its largest value");
    let error = farthest(got, &want);
    println!("{}: {what} of case {i}: {error:.2e}, bound {bound:.2e}", folder.display());
    assert!(error <= bound, "{}: {what} of case {i}: {error:e} beyond {bound:e}", folder.display());
}

/// What `ask` gives for each text.
fn encoded(model: &inlaid::model::Model, texts: &[Text], ask: Ask) -> Vec<Vec<f32>> {
    let mut all = vec![Vec::new(); texts.len()];
    let mut each = |i: usize, rows: &[f32], _: usize| all[i] = rows.to_vec();
    run(model, texts, ask, &AtomicBool::new(false), &mut None, &mut each).expect("answers");
    all
}

/// Of all texts in one batch; alone a text has the same bits.
#[test]
fn states_and_heads_of_encoders() {
    let engine = engine(2, None);
    for (folder, json) in models("encoder") {
        let (bytes, cases) = (tensors(&folder), json["cases"].as_array().expect("cases"));
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let model = open(&engine, &folder, Some(Cache::F32));
        let read = |case: &Value| (ids(&case["ids"]), case["types"].as_array().map(|_| ids(&case["types"])));
        let inputs: Vec<_> = cases.iter().map(read).collect();
        let texts: Vec<Text> =
            inputs.iter().map(|(ids, types)| Text { ids, types: types.as_deref().unwrap_or(&[]) }).collect();
        for (what, ask) in [("hidden", Ask::Hidden), ("logits", Ask::Head)] {
            if cases[0][what].is_null() {
                continue;
            }
            for (i, got) in encoded(&model, &texts, ask).iter().enumerate() {
                close(&folder, &tensors, cases, (what, i), got);
                assert_eq!(&encoded(&model, &texts[i..=i], ask)[0], got, "{}: {what}", folder.display());
            }
        }
    }
}

#[test]
fn states_and_logits_of_encoder_decoders() {
    let engine = engine(2, None);
    for (folder, json) in models("encoder-decoder") {
        let (bytes, cases) = (tensors(&folder), json["cases"].as_array().expect("cases"));
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let model = open(&engine, &folder, Some(Cache::F32));
        let sources: Vec<Vec<u32>> = cases.iter().map(|case| ids(&case["ids"])).collect();
        let texts: Vec<Text> = sources.iter().map(|ids| Text { ids, types: &[] }).collect();
        for (i, got) in encoded(&model, &texts, Ask::Hidden).iter().enumerate() {
            close(&folder, &tensors, cases, ("hidden", i), got);
        }
        let mut session = Session::new(&model, SessionConfig::default()).expect("a session");
        for (i, case) in cases.iter().enumerate() {
            session.set_source(&sources[i]).expect("a source");
            let mut got = Vec::new();
            let ids = ids(&case["decoder_ids"]);
            session.prefill_all(&ids, |row| got.extend_from_slice(row)).expect("logits");
            close(&folder, &tensors, cases, ("logits", i), &got);
        }
    }
}

/// Greedy and with beams, by the rules that the folder has.
#[test]
fn answers_of_encoder_decoders() {
    let engine = engine(2, None);
    for (folder, json) in models("encoder-decoder") {
        let model = open(&engine, &folder, Some(Cache::F32));
        let own = model.generation();
        let first = [model.first_token().expect("a first token")];
        for answer in json["answers"].as_array().expect("answers") {
            let (source, want) = (ids(&answer["source"]), ids(&answer["ids"]));
            let config = BeamConfig {
                beams: answer["beams"].as_u64().expect("beams") as usize,
                max_tokens: 16,
                length_penalty: own.length_penalty.unwrap_or(1.0),
                early_stopping: own.early_stopping,
                rules: own.rules.clone(),
            };
            let prompts = [Prompt { source: &source, ids: &first }];
            let found =
                search(&model, &prompts, &config, &AtomicBool::new(false), &mut None).expect("answers");
            assert_eq!(found[0][0].ids, want, "{}: {} beams", folder.display(), config.beams);
        }
    }
}

/// What a model says of a case of its branch, one or two of `hidden` and `logits`.
fn said(model: &std::sync::Arc<inlaid::model::Model>, branch: &str, case: &Value) -> [Option<Vec<f32>>; 2] {
    let ids_in = ids(&case["ids"]);
    let types = case["types"].as_array().map(|_| ids(&case["types"])).unwrap_or_default();
    let of = |ask| encoded(model, &[Text { ids: &ids_in, types: &types }], ask).remove(0);
    match branch {
        "encoder" => [Some(of(Ask::Hidden)), Some(of(Ask::Head))],
        "decoder" => [None, Some(answer(model, &ids_in))],
        _ => {
            let mut session = Session::new(model, SessionConfig::default()).expect("a session");
            session.set_source(&ids_in).expect("a source");
            let mut logits = Vec::new();
            let push = |row: &[f32]| logits.extend_from_slice(row);
            session.prefill_all(&ids(&case["decoder_ids"]), push).expect("logits");
            [Some(of(Ask::Hidden)), Some(logits)]
        }
    }
}

/// Weights become bf16 by `convert`; the reference rounds the inputs of linears, as the contract says. An input on the edge
/// between two bf16 values may fall on either side of it, so that both are as far as rounding brings them from what they
/// would be without; of the texts of a model most have no such input, and are as close as in f32.
#[test]
fn bf16_weights_of_every_family() {
    let (engine, mut seen, mut known) = (engine(2, None), BTreeSet::new(), BTreeSet::new());
    for (branch, folder, json) in
        BRANCHES.iter().flat_map(|b| models(b).into_iter().map(move |m| (b, m.0, m.1)))
    {
        let source = Files::at(files(&folder)).expect("files");
        let family = source.config().expect("a config").str("model_type").expect("a family").to_owned();
        known.insert(family.clone());
        let Ok(bytes) = std::fs::read(folder.join("expected-bf16.safetensors")) else { continue };
        seen.insert(family);
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a header");
        let cases = &header.metadata().as_ref().expect("metadata")["cases"];
        let cases: Vec<Value> = serde_json::from_str(cases).expect("JSON");
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let halved = tempfile::tempdir().expect("a directory");
        convert(&source, halved.path(), Target::Dense(DType::BF16), 1, false, None).expect("a conversion");
        let model = open(&engine, halved.path(), Some(Cache::F32));
        let (mut close, mut all) = (0, 0);
        for (i, case) in cases.iter().enumerate() {
            let got = said(&model, branch, &json["cases"][i]);
            for (what, got) in ["hidden", "logits"].into_iter().zip(got) {
                let Some(want) = expected(&tensors, &format!("{what}.{i}")) else { continue };
                let (got, name) = (got.expect(what), format!("{}: {what} of case {i}", folder.display()));
                assert_eq!(got.len(), want.len(), "{name}");
                let error = farthest(&got, &want);
                let bound = |key: &str| case[what][key].as_f64().expect(key);
                println!("{name}: {error:.2e}; all roundings {:.2e}", bound("rounded_error"));
                assert!(
                    error <= 2.0 * bound("rounded_error"),
                    "{name}: {error:e} is more than rounding costs"
                );
                all += 1;
                close += usize::from(error <= CHAIN * bound("f32_error"));
            }
        }
        assert!(2 * close >= all, "{}: only {close} of {all} are close", folder.display());
    }
    assert_eq!(seen, known, "families with answers in bf16, and all");
}
