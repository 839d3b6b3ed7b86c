//! Adapters against what peft and adapters answered (`tests/golden/make_adapters.py`, `make_bottlenecks.py`), unmerged and merged; and the promises that hold
//! for them: same bits in any batch, on any number of threads, in steps or at once; merging and taking apart leaves no
//! trace.

mod common;

use common::{bits, engine, greedy, write_adapter};
use inlaid::Error;
use inlaid::adapter::Adapter;
use inlaid::arch::Task;
use inlaid::encode;
use inlaid::engine::{Engine, EngineConfig};
use inlaid::format::files::Files;
use inlaid::kernels::Isa;
use inlaid::model::{Model, ModelConfig};
use inlaid::pack::Hold;
use inlaid::session::{Session, SessionConfig, batch};
use safetensors_reference::SafeTensors;
use safetensors_reference::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// As in `tests/golden.rs`.
const CHAIN: f64 = 5.0;
const MOST: f64 = 2e-4;

type List = Vec<(Arc<Adapter>, f32)>;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn folder(name: &str) -> PathBuf {
    golden().join("adapters").join(name)
}

fn answers(name: &str) -> Value {
    let text = std::fs::read(folder(name).join("expected.json")).expect("expected.json");
    serde_json::from_slice(&text).expect("JSON")
}

/// Every golden adapter.
fn names() -> Vec<String> {
    let entries = std::fs::read_dir(golden().join("adapters")).expect("golden adapters");
    let mut all: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    all.sort();
    assert!(all.len() >= 39, "golden adapters are missing");
    all
}

fn open(engine: &Arc<Engine>, base: &str, weights: Hold) -> Arc<Model> {
    let config = ModelConfig { weights, no_tokenizer: true, ..ModelConfig::default() };
    Model::open(engine, &Files::at(golden().join(base)).expect("files"), config).expect("a model")
}

fn adapter(model: &Model, name: &str) -> Arc<Adapter> {
    let files = Files::at(folder(name)).expect("an adapter's files");
    model.adapter(&files).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The adapters of a golden folder.
fn list(model: &Model, name: &str, json: &Value) -> List {
    let Some(parts) = json["with"].as_array() else { return vec![(adapter(model, name), 1.0)] };
    let one = |part: &Value| {
        (adapter(model, part[0].as_str().expect("a name")), part[1].as_f64().expect("a weight") as f32)
    };
    parts.iter().map(one).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().map_or(&[][..], |all| all).iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

fn session(model: &Arc<Model>, list: &[(Arc<Adapter>, f32)]) -> Session {
    let config = SessionConfig { sampler: greedy(), ..SessionConfig::default() };
    let mut session = Session::new(model, config).expect("a session");
    session.set_adapters(list).expect("adapters");
    session
}

fn logits(session: &mut Session, ids: &[u32]) -> Vec<f32> {
    let mut out = Vec::new();
    session.prefill_all(ids, |row| out.extend_from_slice(row)).expect("logits");
    out
}

/// What the model says of a case, with `list` attached to it.
fn answer(model: &Arc<Model>, list: &[(Arc<Adapter>, f32)], case: &Value) -> Vec<f32> {
    let text = ids(&case["ids"]);
    if model.arch().head.task != Task::LanguageModel {
        model.attach(list).expect("adapters");
        let (mut out, never) = (Vec::new(), AtomicBool::new(false));
        let texts = [encode::Text { ids: &text, types: &[] }];
        let mut each = |_: usize, rows: &[f32], _: usize| out.extend_from_slice(rows);
        encode::run(model, &texts, encode::Ask::Head, &never, &mut None, &mut each).expect("an answer");
        model.attach(&[]).expect("no adapters");
        return out;
    }
    let mut session = session(model, list);
    if model.arch().reads_source() {
        session.set_source(&text).expect("a source");
        return logits(&mut session, &ids(&case["decoder_ids"]));
    }
    logits(&mut session, &text)
}

/// Compares the answers of `name` with those of peft.
fn compare(how: &str, name: &str, json: &Value, mut answer: impl FnMut(&Value) -> Vec<f32>) {
    let bytes = std::fs::read(folder(name).join("expected.safetensors")).expect("expected.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let cases = json["cases"].as_array().expect("cases");
    let number = |case: &Value, key: &str| case[key].as_f64().unwrap_or(0.0);
    let worst = cases.iter().map(|c| number(c, "f32_error") / number(c, "max_abs")).fold(0.0, f64::max);
    for (i, case) in cases.iter().enumerate() {
        let want = tensors.tensor(&format!("logits.{i}")).expect("logits");
        let want = want.data().chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]));
        let (got, want) = (answer(case), want.collect::<Vec<f32>>());
        assert_eq!(got.len(), want.len(), "{name}: case {i}");
        let error = got.iter().zip(&want).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        // Merged 16-bit weights round once more: at most twice the error that this costs the reference.
        let rounded = if how == "unmerged" { 0.0 } else { 2.0 * number(case, "merged_error") };
        let bound = ((CHAIN * worst).min(MOST) * number(case, "max_abs")).max(rounded);
        println!("{name}: {how}: case {i}: {error:.2e}, bound {bound:.2e}");
        assert!(error <= bound, "{name}: {how}: case {i}: {error:e} beyond {bound:e}");
    }
}

#[test]
fn unmerged_adapters_answer_as_peft_does() {
    let engine = engine(2, None);
    for name in names() {
        let json = answers(&name);
        let model = open(&engine, json["base"].as_str().expect("a base"), Hold::Auto);
        let list = list(&model, &name, &json);
        compare("unmerged", &name, &json, |case| answer(&model, &list, case));
    }
}

#[test]
fn merged_adapters_answer_as_peft_does_and_leave_no_trace() {
    let engine = engine(2, None);
    for name in names() {
        let json = answers(&name);
        for weights in [Hold::Mapped, Hold::Packed] {
            let model = open(&engine, json["base"].as_str().expect("a base"), weights);
            let (list, last) = (list(&model, &name, &json), &json["cases"][2]);
            let before = bits(&answer(&model, &[], last));
            if json["merges"] == false {
                assert!(matches!(model.merge(&list), Err(Error::Unsupported { .. })), "{name}");
                continue;
            }
            model.merge(&list).unwrap_or_else(|e| panic!("{name}: {e}"));
            compare("merged", &name, &json, |case| answer(&model, &[], case));
            model.unmerge().expect("the model's own weights");
            assert_eq!(bits(&answer(&model, &[], last)), before, "{name}");
        }
    }
}

#[test]
fn a_saved_adapter_is_the_same_adapter() {
    let engine = engine(2, None);
    let dir = tempfile::tempdir().expect("a directory");
    for name in names().into_iter().filter(|name| answers(name)["with"].is_null()) {
        let json = answers(&name);
        let model = open(&engine, json["base"].as_str().expect("a base"), Hold::Auto);
        let (list, case) = (list(&model, &name, &json), &json["cases"][2]);
        let out = dir.path().join(&name);
        list[0].0.save(&out).expect("a place to write");
        let saved = vec![(model.adapter(&Files::at(&out).expect("files")).expect("the same"), 1.0)];
        assert_eq!(bits(&answer(&model, &saved, case)), bits(&answer(&model, &list, case)), "{name}");
        // The same tensors, but for those that say what the model says anyway.
        let file = if name.starts_with("bn-") { "adapter.safetensors" } else { "adapter_model.safetensors" };
        let read = |path: &Path| std::fs::read(path.join(file)).expect("tensors");
        let (old, new) = (read(&folder(&name)), read(&out));
        let (old, new) =
            (SafeTensors::deserialize(&old).expect("old"), SafeTensors::deserialize(&new).expect("new"));
        for (tensor, found) in new.iter() {
            let want = old.tensor(tensor).unwrap_or_else(|e| panic!("{name}: {tensor}: {e}"));
            assert_eq!((want.shape(), want.data()), (found.shape(), found.data()), "{name}: {tensor}");
        }
        let left: Vec<_> = old.names().into_iter().filter(|t| new.tensor(t).is_err()).collect();
        assert!(left.iter().all(|tensor| tensor.contains(".base_layer.")), "{name}: {left:?}");
    }
}

/// Adapters of decoders on one golden model.
const SAME_BASE: [&str; 7] = [
    "lora-names",
    "lora-patterns",
    "lora-layers",
    "lora-embeddings",
    "lora-saved",
    "dora-linear",
    "ia3-gated",
];

#[test]
fn sessions_with_different_adapters_share_a_batch_and_keep_their_bits() {
    let prompts: Vec<Vec<u32>> =
        (0..13).map(|i| (0..3 + 8 * i).map(|at| (at * 7 + i) % 101).collect()).collect();
    let mut want: Option<Vec<Vec<u32>>> = None;
    for (threads, isa) in [(1, None), (3, None), (2, Some(Isa::Scalar))] {
        let engine = engine(threads, isa);
        let model = open(&engine, "llama-gqa", Hold::Auto);
        let mut lists: Vec<List> = SAME_BASE.iter().map(|name| vec![(adapter(&model, name), 1.0)]).collect();
        lists.push(Vec::new());
        lists
            .push(lists[..3].iter().zip([0.5, -0.25, 2.0]).map(|(list, w)| (list[0].0.clone(), w)).collect());
        // Alone, token by token, after a prompt that ran as a whole.
        let alone: Vec<Vec<u32>> = lists
            .iter()
            .zip(&prompts)
            .map(|(list, prompt)| {
                let mut session = session(&model, list);
                session.prefill(prompt).expect("a prompt");
                let mut all = Vec::new();
                for _ in 0..5 {
                    all.extend(bits(session.logits().expect("logits")));
                    session.step().expect("a token");
                }
                all
            })
            .collect();
        let mut sessions: Vec<Session> = lists.iter().map(|list| session(&model, list)).collect();
        for (session, prompt) in sessions.iter_mut().zip(&prompts) {
            prompt.iter().for_each(|id| session.accept(*id).expect("a token"));
        }
        let mut together = vec![Vec::new(); sessions.len()];
        for round in 0..5 {
            let mut seats: Vec<&mut Session> = sessions.iter_mut().collect();
            let mut out: Vec<_> = seats.iter().map(|_| Ok(None)).collect();
            batch::step(&mut seats, 0, &mut out).expect("a step");
            assert!(out.iter().all(|out| matches!(out, Ok(Some(_)))), "round {round}: {out:?}");
        }
        for (session, all) in sessions.iter_mut().zip(&mut together) {
            // The logits that were chosen from, computed again in one piece.
            let ids = session.tokens().to_vec();
            session.rewind(0);
            let mut rows = Vec::new();
            session.prefill_all(&ids, |row| rows.push(bits(row))).expect("logits");
            rows[ids.len() - 6..ids.len() - 1].iter().for_each(|row| all.extend_from_slice(row));
        }
        assert_eq!(alone, together, "{threads} threads, {isa:?}");
        assert_eq!(want.get_or_insert(alone.clone()), &alone, "{threads} threads, {isa:?}");
    }
}

#[test]
fn rows_without_an_adapter_have_the_bits_of_a_model_without_one() {
    let engine = engine(2, None);
    let model = open(&engine, "llama-gqa", Hold::Auto);
    let prompt: Vec<u32> = (0..20).collect();
    let want = bits(&logits(&mut session(&model, &[]), &prompt));
    let list = vec![(adapter(&model, "lora-patterns"), 1.0)];
    let (mut with, mut without) = (session(&model, &list), session(&model, &[]));
    for id in &prompt {
        with.accept(*id).expect("a token");
        without.accept(*id).expect("a token");
    }
    let mut out = [Ok(None), Ok(None)];
    batch::step(&mut [&mut with, &mut without], 0, &mut out).expect("a step");
    without.rewind(prompt.len());
    let last = bits(without.logits().expect("logits"));
    assert_eq!(last, want[want.len() - last.len()..]);
    with.rewind(prompt.len());
    assert_ne!(bits(with.logits().expect("logits")), last, "the adapter does something");
}

#[test]
fn a_session_changes_its_adapters_and_shares_pages_with_its_likes_alone() {
    let engine = engine(2, None);
    let model = open(&engine, "llama-gqa", Hold::Auto);
    let prompt: Vec<u32> = (0..100).map(|i| i * 3 % 101).collect();
    let lists: Vec<List> =
        ["lora-names", "ia3-gated"].map(|name| vec![(adapter(&model, name), 1.0)]).to_vec();
    let fresh = |list: &List| bits(&logits(&mut session(&model, list), &prompt));
    let want: Vec<Vec<u32>> = lists.iter().map(fresh).collect();
    let plain = fresh(&Vec::new());
    // All of these hold the prompt's first page at once.
    let mut held: Vec<Session> = Vec::new();
    for (list, want) in lists.iter().zip(&want).chain([(&Vec::new(), &plain)]) {
        for shares in [0, 64] {
            let mut session = session(&model, list);
            session.prefill(&prompt).expect("a prompt");
            assert_eq!(session.timings().shared_tokens, shares, "pages of the same adapters, and no others");
            let last = bits(session.logits().expect("logits"));
            assert_eq!(last, want[want.len() - last.len()..]);
            held.push(session);
        }
    }
    let session = &mut held[0];
    for (list, want) in [(&lists[1], &want[1]), (&Vec::new(), &plain), (&lists[0], &want[0])] {
        session.set_adapters(list).expect("adapters");
        assert_eq!(session.tokens(), prompt);
        let last = bits(session.logits().expect("logits"));
        assert_eq!(last, want[want.len() - last.len()..]);
        let mut twin = session.fork().expect("a fork");
        assert_eq!(bits(twin.logits().expect("logits")), last);
    }
}

#[test]
fn sessions_follow_a_merge_and_its_end() {
    let engine = engine(2, None);
    let model = open(&engine, "t5", Hold::Auto);
    let list = vec![(adapter(&model, "lora-pairs"), 1.0)];
    let (source, prompt): (Vec<u32>, Vec<u32>) = ((3..30).collect(), (3..12).collect());
    let run = |session: &mut Session| {
        session.set_source(&source).expect("a source");
        session.prefill(&prompt).expect("a prompt");
        bits(session.logits().expect("logits"))
    };
    let (mut held, plain) = (session(&model, &[]), run(&mut session(&model, &[])));
    assert_eq!(run(&mut held), plain);
    model.merge(&list).expect("a merge");
    let merged = bits(held.logits().expect("logits"));
    assert_ne!(merged, plain, "the source and the tokens were computed anew");
    assert_eq!(run(&mut session(&model, &[])), merged);
    model.unmerge().expect("the model's own weights");
    assert_eq!(bits(held.logits().expect("logits")), plain);
}

#[test]
fn quantised_weights_run_adapters_and_refuse_to_merge_them() {
    let engine = engine(2, None);
    let config = r#"{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 101, "max_position_embeddings": 128}"#;
    let dir = common::write_model(config, inlaid::kernels::DType::F32);
    let at = |weights| {
        let config = ModelConfig { weights, no_tokenizer: true, ..ModelConfig::default() };
        Model::open(&engine, &Files::at(dir.path()).expect("files"), config).expect("a model")
    };
    let (exact, rough) = (at(Hold::Mapped), at(Hold::Q8));
    let module = |layer: usize, name: &str, n: usize, k: usize| {
        let path = format!("base_model.model.model.layers.{layer}.{name}");
        [(format!("{path}.lora_A.weight"), [4, k]), (format!("{path}.lora_B.weight"), [n, 4])]
    };
    let tensors =
        (0..2).flat_map(|i| [module(i, "self_attn.q_proj", 64, 64), module(i, "mlp.down_proj", 64, 96)]);
    let settings =
        r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]}"#;
    write_adapter(
        dir.path(),
        settings,
        tensors.flatten().map(|(name, shape)| (name, shape.to_vec())).collect(),
    );
    let files = Files::at(dir.path()).expect("files");
    let prompt: Vec<u32> = (0..30).collect();
    let run = |model: &Arc<Model>, adapted: bool| {
        let list: List =
            if adapted { vec![(model.adapter(&files).expect("an adapter"), 1.0)] } else { Vec::new() };
        logits(&mut session(model, &list), &prompt)
    };
    let list = vec![(rough.adapter(&files).expect("an adapter"), 1.0)];
    let refused = rough.merge(&list).expect_err("quantised weights").to_string();
    assert!(refused.contains("quantised") && refused.contains("q_proj"), "{refused}");
    // Bytes cost what they cost without an adapter.
    let off = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (plain, adapted) =
        (off(&run(&exact, false), &run(&rough, false)), off(&run(&exact, true), &run(&rough, true)));
    assert!(adapted < 3.0 * plain, "{adapted} with an adapter, {plain} without");
    assert!(off(&run(&exact, true), &run(&exact, false)) > 10.0 * plain);
}

/// A golden adapter with other settings or tensors.
fn tampered(name: &str, settings: impl Fn(&mut Value), tensors: impl Fn(&mut Tensors)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let text = std::fs::read(folder(name).join("adapter_config.json")).expect("settings");
    let mut json = serde_json::from_slice(&text).expect("JSON");
    settings(&mut json);
    std::fs::write(dir.path().join("adapter_config.json"), json.to_string()).expect("settings");
    let file = if name.starts_with("bn-") { "adapter.safetensors" } else { "adapter_model.safetensors" };
    let bytes = std::fs::read(folder(name).join(file)).expect("tensors");
    let found = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut all: Tensors =
        found.iter().map(|(name, t)| (name.to_owned(), (t.shape().to_vec(), t.data().to_vec()))).collect();
    tensors(&mut all);
    let view = |(shape, bytes): &'static (Vec<usize>, Vec<u8>)| {
        TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor")
    };
    let all: &'static Tensors = Box::leak(Box::new(all));
    let views = all.iter().map(|(name, t)| (name, view(t)));
    safetensors_reference::serialize_to_file(views, None, &dir.path().join(file)).expect("tensors");
    dir
}

type Tensors = std::collections::BTreeMap<String, (Vec<usize>, Vec<u8>)>;

#[test]
fn settings_that_change_what_is_computed_are_refused_by_name() {
    let model = open(&engine(1, None), "llama-gqa", Hold::Auto);
    let cases = [
        ("peft_type", r#""LOHA""#, "LOHA"),
        ("alora_invocation_tokens", "[1]", "alora_invocation_tokens"),
        ("layer_replication", "[[0, 1]]", "layer_replication"),
        ("use_qalora", "true", "use_qalora"),
        ("trainable_token_indices", "[3]", "trainable_token_indices"),
        ("target_parameters", r#"["x"]"#, "target_parameters"),
        ("init_lora_weights", r#""pissa""#, "init_lora_weights"),
        ("ensure_weight_tying", "true", "ensure_weight_tying"),
        ("what_comes_next", "1", "what_comes_next"),
        ("r", "0", "from 1 to"),
        ("r", "1000000000", "1000000000"),
        ("r", "5", "[5, 40]"),
        ("lora_alpha", "1e30", "lora_alpha"),
        ("bias", r#""some""#, "some"),
        ("use_dora", "true", "lora_magnitude_vector"),
        ("lora_bias", "true", "lora_B.bias"),
        ("target_modules", r#"["q_proj"]"#, "v_proj"),
        ("target_modules", r#"["q_proj", "v_proj", "k_proj"]"#, "k_proj"),
        ("target_modules", r#""(?=x)""#, "target_modules"),
        ("target_modules", "null", "target_modules is missing"),
        ("rank_pattern", r#"{"(": 4}"#, "rank_pattern"),
        ("rank_pattern", r#"{"q_proj": 0}"#, "rank_pattern"),
        ("layers_to_transform", r#"["x"]"#, "layers_to_transform"),
        ("modules_to_save", r#"["lm_head"]"#, "lm_head"),
    ];
    let inner = [
        ("phm_layer", "true"),
        ("use_gating", "true"),
        ("is_parallel", "true"),
        ("ln_before", "true"),
        ("ln_after", "true"),
        ("inv_adapter", r#""nice""#),
        ("residual_before_ln", "false"),
        ("original_ln_after", "false"),
        ("non_linearity", r#""prelu""#),
        ("architecture", r#""lora""#),
        ("scaling", r#""learned""#),
    ];
    for (key, value) in inner {
        let value: Value = serde_json::from_str(value).expect("JSON");
        let dir = tampered("bn-double", |json| json["config"][key] = value.clone(), |_| {});
        let found = model.adapter(&Files::at(dir.path()).expect("files"));
        let error = found.err().unwrap_or_else(|| panic!("{key} = {value}")).to_string();
        assert!(error.contains(key), "{key} = {value}: {error}");
    }
    for (key, value, word) in cases {
        let value: Value = serde_json::from_str(value).expect("JSON");
        let dir = tampered("lora-names", |json| json[key] = value.clone(), |_| {});
        let found = model.adapter(&Files::at(dir.path()).expect("files"));
        let error = found.err().unwrap_or_else(|| panic!("{key} = {value}")).to_string();
        assert!(error.contains(word), "{key} = {value}: {error}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let model = open(&engine(1, None), "llama-gqa", Hold::Auto);
    let q = "base_model.model.model.layers.1.self_attn.q_proj";
    let (a, b) = (format!("{q}.lora_A.weight"), format!("{q}.lora_B.weight"));
    let refuse = |what: &str, change: &dyn Fn(&mut Tensors), words: &[&str]| {
        let dir = tampered("lora-names", |_| {}, change);
        let error = model.adapter(&Files::at(dir.path()).expect("files")).err().expect(what).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{what}: {error}");
        assert!(error.contains("adapter_model.safetensors"), "{what}: {error}");
    };
    refuse("a missing half", &|t| _ = t.remove(&b), &["q_proj.lora_A.weight", "lora_B.weight"]);
    refuse("the other half", &|t| _ = t.remove(&a), &["q_proj.lora_A.weight", "missing"]);
    let both = |t: &mut Tensors| (t.remove(&a), t.remove(&b));
    refuse("a missing module", &|t| _ = both(t), &["model.layers.1.self_attn.q_proj", "target_modules"]);
    let moved = |to: &'static str| {
        let (a, b) = (a.clone(), b.clone());
        move |t: &mut Tensors| {
            for name in [&a, &b] {
                let tensor = t[name].clone();
                t.insert(name.replace("layers.1.self_attn.q_proj", to), tensor);
            }
        }
    };
    refuse("a strange module", &moved("layers.9.self_attn.q_proj"), &["layers.9.self_attn.q_proj"]);
    refuse("one that is not named", &moved("layers.1.self_attn.o_proj"), &["o_proj", "target_modules"]);
    refuse("a strange tensor", &|t| _ = t.insert("x.y".into(), (vec![1], vec![0; 4])), &["x.y", "LORA"]);
    refuse(
        "a strange part",
        &|t| _ = t.insert(format!("{q}.ia3_l"), (vec![40, 1], vec![0; 160])),
        &["ia3_l"],
    );
    refuse(
        "a bias",
        &|t| _ = t.insert(format!("{q}.bias"), (vec![40], vec![0; 160])),
        &["q_proj.bias", "none"],
    );
    let not_a_number = |t: &mut Tensors| {
        t.get_mut(&a).expect("A").1[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    refuse("not a number", &not_a_number, &["q_proj.lora_A.weight", "element 2", "NaN"]);
    refuse("a shape", &|t| t.get_mut(&a).expect("A").0 = vec![40, 4], &["[4, 40]", "[40, 4]"]);
}

#[test]
fn adapters_of_other_models_and_absurd_weights_are_refused_and_change_nothing() {
    let engine = engine(1, None);
    let (model, other) = (open(&engine, "llama-gqa", Hold::Auto), open(&engine, "qwen2", Hold::Auto));
    let phi = open(&engine, "phi3", Hold::Auto);
    let error = phi.adapter(&Files::at(folder("lora-names")).expect("files")).err().expect("another model");
    assert!(matches!(error, Error::Tensor { .. }), "{error}");
    let own = adapter(&model, "lora-names");
    let foreign = adapter(&other, "lora-all-linear");
    let prompt = [1, 2, 3];
    let mut session = session(&model, &[(own.clone(), 1.0)]);
    let want = bits(&logits(&mut session, &prompt));
    let lists: [List; 4] = [
        vec![(foreign, 1.0)],
        vec![(own.clone(), f32::NAN)],
        vec![(own.clone(), 1e9)],
        vec![(own.clone(), 1.0); 65],
    ];
    for list in &lists {
        let errors = [session.set_adapters(list), model.merge(list), model.attach(list)];
        assert!(
            errors.iter().all(|e| matches!(e, Err(Error::Argument { name: "adapters", .. }))),
            "{errors:?}"
        );
    }
    session.rewind(0);
    assert_eq!(bits(&logits(&mut session, &prompt)), want);
}

#[test]
fn an_adapter_is_charged_to_the_budget() {
    let config = EngineConfig { threads: 1, budget: Some(200 << 10), ..EngineConfig::default() };
    let engine = Engine::new(config).expect("an engine");
    let model = open(&engine, "llama-gqa", Hold::Mapped);
    let mut kept = Vec::new();
    let refused = loop {
        match model.adapter(&Files::at(folder("lora-saved")).expect("files")) {
            Ok(adapter) => kept.push(adapter),
            Err(e) => break e,
        }
        assert!(kept.len() < 100, "the budget has an end");
    };
    assert!(matches!(refused, Error::Budget { .. }), "{refused}");
    kept.clear();
    let list = vec![(adapter(&model, "lora-saved"), 1.0)];
    model.merge(&list).expect("there is room again");
}
