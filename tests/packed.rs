//! Packed weights: the same model as mapped, bit for bit, in memory and from a file; quantised ones the same however
//! they are run; and nothing half-done where something fails.

mod common;

use common::{Random, all_logits, bits, configs, engine, session, write_model};
use inlaid::Error;
use inlaid::arch::{Rows, Task};
use inlaid::encode::{Ask, Text, run};
use inlaid::engine::{Engine, EngineConfig};
use inlaid::format::files::Files;
use inlaid::kernels::{DType, Ops};
use inlaid::model::{Model, ModelConfig};
use inlaid::pack::{self, Hold};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn open(engine: &Arc<Engine>, at: &Path, weights: Hold) -> Arc<Model> {
    let config = ModelConfig { weights, no_tokenizer: true, ..ModelConfig::default() };
    Model::open(engine, &Files::at(at).expect("files"), config).expect("a model")
}

fn write(at: &Path, out: &Path, hold: Hold) {
    pack::write(&Files::at(at).expect("files"), out, hold, 2, None, &mut None).expect("a packed model");
}

/// Golden folders, each with its GGUF file where it has one.
fn golden() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folders = std::fs::read_dir(root).expect("tests/golden").map(|entry| entry.expect("an entry").path());
    let mut all: Vec<PathBuf> = folders
        .filter(|path| path.join("expected.json").exists())
        .map(|path| if path.join("model.gguf").exists() { path.join("model.gguf") } else { path })
        .collect();
    all.sort();
    all
}

/// The logits of `ids`; of a model without a decoder, its states; of one with both, after a source.
fn says(model: &Arc<Model>, ids: &[u32]) -> Vec<u32> {
    let arch = model.arch();
    if arch.head.task != Task::LanguageModel {
        let mut all = Vec::new();
        let ask = if arch.head.task == Task::Hidden { Ask::Hidden } else { Ask::Head };
        let texts = [Text { ids, types: &[] }];
        let mut each = |_: usize, rows: &[f32], _: usize| all = bits(rows);
        run(model, &texts, ask, &AtomicBool::new(false), &mut None, &mut each).expect("states");
        return all;
    }
    let mut session = session(model);
    if let Some(encoder) = &arch.encoder {
        let source: Vec<u32> = ids[..30].iter().map(|id| id % encoder.embed.vocab as u32).collect();
        session.set_source(&source).expect("a source");
    }
    all_logits(&mut session, ids)
}

#[test]
fn every_golden_model_is_the_same_mapped_packed_and_from_a_packed_file() {
    let engine = engine(2, None);
    for path in golden() {
        let (mapped, packed) = (open(&engine, &path, Hold::Mapped), open(&engine, &path, Hold::Packed));
        let mut ids = Random(9).ids(70, mapped.arch().vocab());
        if let Rows::End(end) = mapped.arch().head.rows {
            ids[60] = end;
        }
        let want = says(&mapped, &ids);
        assert!(says(&packed, &ids) == want, "{}: packed", path.display());
        let dir = tempfile::tempdir().expect("a directory");
        write(&path, dir.path(), Hold::Packed);
        for hold in [Hold::Auto, Hold::Mapped, Hold::Packed] {
            let written = open(&engine, dir.path(), hold);
            assert!(says(&written, &ids) == want, "{}: written", path.display());
            let (all, own) = (packed.memory_plan().private_bytes, written.memory_plan().private_bytes);
            assert!(own < all, "{}: a packed file is mapped, not copied: {own} of {all}", path.display());
        }
        assert!(
            Files::at(dir.path())
                .unwrap()
                .tensors(Default::default(), &mut None)
                .unwrap()
                .iter()
                .all(|(_, t)| t.is_intact())
        );
    }
}

#[test]
fn quantised_weights_have_the_same_bits_however_they_run() {
    for (family, config) in configs() {
        // Inner widths that are whole blocks and some that are not: those stay dense.
        let config = config
            .replace("\"hidden_size\": 60", "\"hidden_size\": 96")
            .replace("\"n_embd\": 36", "\"n_embd\": 64");
        let dir = write_model(&config, DType::BF16);
        let ids = Random(3).ids(90, 77);
        let mapped = all_logits(&mut session(&open(&engine(2, None), dir.path(), Hold::Mapped)), &ids);
        for hold in [Hold::Q8, Hold::Q4] {
            let mut want = None;
            for ops in Ops::all() {
                for threads in [1, 2, 3, 7] {
                    let model = open(&engine(threads, Some(ops.isa())), dir.path(), hold);
                    let got = all_logits(&mut session(&model), &ids);
                    let want = want.get_or_insert(got.clone());
                    assert!(got == *want, "{family} {hold:?}: {} on {threads} threads", ops.name());
                }
            }
            let want = want.expect("some set");
            assert!(want != mapped, "{family} {hold:?}: nothing was quantised");
            let model = open(&engine(2, None), dir.path(), hold);
            let mut s = session(&model);
            let last: Vec<u32> = ids
                .iter()
                .flat_map(|id| {
                    s.accept(*id).expect("accept");
                    common::bits(s.logits().expect("logits"))
                })
                .collect();
            assert!(last == want, "{family} {hold:?}: step by step");
            let out = tempfile::tempdir().expect("a directory");
            write(dir.path(), out.path(), hold);
            let written = open(&engine(2, None), out.path(), Hold::Auto);
            assert!(all_logits(&mut session(&written), &ids) == want, "{family} {hold:?}: from a file");
        }
    }
}

#[test]
fn tables_of_tokens_are_quantised_like_the_head() {
    let config = configs()[0].1.replace("\"hidden_size\": 60", "\"hidden_size\": 96");
    let (dir, table) = (write_model(&config, DType::F32), "model.embed_tokens.weight");
    for (hold, want) in [(Hold::Packed, DType::F32), (Hold::Q8, DType::Q8_0), (Hold::Q4, DType::Q6K)] {
        let out = tempfile::tempdir().expect("a directory");
        write(dir.path(), out.path(), hold);
        let tensors = Files::at(out.path()).unwrap().tensors(Default::default(), &mut None).unwrap();
        let found = tensors.iter().find(|(name, _)| *name == table).map(|(_, tensor)| tensor.dtype());
        assert_eq!(found, Some(want), "{hold:?}");
    }
}

fn model() -> tempfile::TempDir {
    write_model(&configs()[0].1, DType::F32)
}

#[test]
fn a_budget_without_room_refuses_what_was_asked_for_and_maps_what_was_not() {
    let tight = |budget| {
        Engine::new(EngineConfig { threads: 1, budget: Some(budget), ..EngineConfig::default() }).unwrap()
    };
    let dir = model();
    let config = |weights| ModelConfig { weights, no_tokenizer: true, ..ModelConfig::default() };
    let files = Files::at(dir.path()).unwrap();
    let plan = Model::plan(&tight(1 << 40), &files, &config(Hold::Packed)).unwrap();
    let mapped = Model::plan(&tight(1 << 40), &files, &config(Hold::Mapped)).unwrap();
    assert!(plan.private_bytes > mapped.private_bytes + 60 * 101 * 4);
    let refused = Model::open(&tight(50_000), &files, config(Hold::Packed));
    assert!(matches!(refused, Err(Error::Budget { .. })));
    let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gguf-llama-q8_0/model.gguf");
    let files = Files::at(gguf).unwrap();
    assert!(matches!(Model::open(&tight(20_000), &files, config(Hold::Packed)), Err(Error::Budget { .. })));
    assert!(Model::open(&tight(20_000), &files, config(Hold::Auto)).is_ok());
}

#[test]
fn a_cancelled_packing_leaves_no_file_and_no_charge() {
    let (dir, engine) = (model(), engine(2, None));
    let files = Files::at(dir.path()).unwrap();
    let mut calls = 0;
    let mut stop = |_, _| {
        calls += 1;
        if calls < 6 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let config = ModelConfig { weights: Hold::Q4, progress: Some(&mut stop), ..ModelConfig::default() };
    assert!(matches!(Model::open(&engine, &files, config), Err(Error::Cancelled)));
    assert_eq!(engine.used_bytes(), 0);
    let out = tempfile::tempdir().unwrap();
    let mut stop =
        |done, total| if 2 * done < total { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
    let written = pack::write(&files, out.path(), Hold::Packed, 1, None, &mut Some(&mut stop));
    assert!(matches!(written, Err(Error::Cancelled)));
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
}

#[test]
fn weights_that_are_not_numbers_are_refused_by_name() {
    let wide = ModelConfig { weights: Hold::Q8, ..ModelConfig::default() };
    let config = configs()[0].1.replace("\"hidden_size\": 60", "\"hidden_size\": 96");
    let other = write_model(&config, DType::F32);
    let path = other.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 8 * 4;
    bytes[middle..middle + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    match Model::open(&engine(1, None), &Files::at(other.path()).unwrap(), wide) {
        Err(Error::Tensor { tensor, what, .. }) => {
            assert!(tensor.ends_with(".weight") && what.contains("not finite"), "{tensor}: {what}");
        }
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn packed_files_that_lie_are_refused() {
    let (dir, out) = (model(), tempfile::tempdir().unwrap());
    write(dir.path(), out.path(), Hold::Packed);
    let path = out.path().join("model.safetensors");
    let good = std::fs::read(&path).unwrap();
    let open = || {
        let config = ModelConfig { no_tokenizer: true, ..ModelConfig::default() };
        Model::open(&engine(1, None), &Files::at(out.path()).unwrap(), config).map(|_| ())
    };
    open().expect("the file as it was written");
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let text = String::from_utf8_lossy(&good[..6000.min(good.len())]).into_owned();
        let at = text.find(from).unwrap_or_else(|| panic!("{from} in {text}"));
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    for (from, to) in [
        (r#"[\"F32\",101,60,"#, r#"[\"F32\",901,60,"#),
        (r#"[\"F32\",101,60,"#, r#"[\"F32\",101,99,"#),
        (r#"[\"F32\",101,60,"#, r#"[\"F16\",101,60,"#),
        (r#"[\"F32\",101,60,"#, r#"[\"X99\",101,60,"#),
        (r#"[\"F32\",101,60,"#, r#"[\"F32\",101,-0,"#),
        ("inlaid.packed", "inlaid.packet"),
        (r#"\"model.embed"#, r#"\"mode_.embed"#),
    ] {
        std::fs::write(&path, replaced(from, to)).unwrap();
        assert!(open().is_err(), "{from} as {to}");
    }
    // Norms come last and have no sum; what lies in the middle is a matrix.
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    let copied = ModelConfig { copy: true, no_tokenizer: true, ..ModelConfig::default() };
    match Model::open(&engine(1, None), &Files::at(out.path()).unwrap(), copied) {
        Err(Error::Tensor { what, .. }) => assert!(what.contains("CRC-32"), "{what}"),
        other => panic!("{:?}", other.err()),
    }
}
