//! `inlaid convert`: what it writes is the same model, whole or not at all.

use crate::{golden, golden_gguf, json, logits, output, text};
use std::fs;
use std::path::Path;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_gguf_file_and_its_directory_have_the_same_logits() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["gguf-gpt2-q5_0", "gguf-qwen2-q8_0", "gguf-llama-f32", "gguf-llama-q4_k"] {
        let (source, out) = (golden_gguf(name), dir.path().join(name));
        let out_text = out.to_str().unwrap();
        let printed = json(&["convert", &source, out_text, "--to", "f32", "--json"]);
        assert_eq!(printed["dtype"], "F32");
        let written: u64 = names(&out).iter().map(|name| fs::metadata(out.join(name)).unwrap().len()).sum();
        assert_eq!(printed["bytes"], written);
        let expected = fs::read(Path::new(&golden(name)).join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
        let case = &expected["cases"][3];
        let ids: Vec<String> = case["ids"].as_array().unwrap().iter().map(ToString::to_string).collect();
        let flat = |model: &str| -> Vec<f64> {
            let value = json(&["logits", model, "--ids", &ids.join(","), "--kv", "f32", "--json"]);
            let rows = value["logits"].as_array().unwrap().iter();
            rows.flat_map(|row| row.as_array().unwrap()).map(|x| x.as_f64().unwrap()).collect()
        };
        let (old, new) = (flat(&source), flat(out_text));
        // The bounds that golden models are held to: quantised weights take quantised inputs, f32 does not, and rows of
        // Llama are put back in another order, which changes the order of attention's sums.
        let exact = 2e-4 * case["max_abs"].as_f64().unwrap();
        let bound = case["rounded_error"].as_f64().map_or(exact, |error| 2.0 * error);
        assert!(old.iter().zip(&new).all(|(old, new)| (old - new).abs() <= bound), "{name}");
    }
}

#[test]
fn a_directory_keeps_its_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("demo");
    let out_text = out.to_str().unwrap();
    json(&["convert", "demo", out_text, "--to", "bf16", "--json"]);
    assert_eq!(names(dir.path()), ["demo"]);
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(demo.join(name)).unwrap(), "{name}");
    }
    assert_eq!(logits(out_text, &[5, 6, 7]), logits("demo", &[5, 6, 7]));
}

#[test]
fn what_is_there_is_replaced_only_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let (out, source) = (dir.path().join("out"), golden("llama-tied"));
    let out_text = out.to_str().unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("notes.txt"), "mine").unwrap();
    fs::write(out.join("model-00001-of-00002.safetensors"), "stale").unwrap();
    let before = names(&out);
    let refused = output(&["convert", &source, out_text, "--to", "bf16"]);
    let line = String::from_utf8(refused.stderr).unwrap();
    assert!(
        refused.status.code() == Some(1) && line.contains("out: ") && line.lines().count() == 1,
        "{line}"
    );
    assert_eq!(names(&out), before);
    json(&["convert", &source, out_text, "--to", "bf16", "--force", "--json"]);
    assert_eq!(names(&out), ["config.json", "generation_config.json", "model.safetensors", "notes.txt"]);
    assert_eq!(json(&["info", out_text, "--json"])["dtypes"].as_object().unwrap().len(), 1);
}

#[test]
fn a_conversion_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("source"), dir.path().join("out"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    fs::write(source.join("model.safetensors"), "short").unwrap();
    let failed = output(&["convert", source.to_str().unwrap(), out.to_str().unwrap(), "--to", "f32"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert_eq!(names(dir.path()), ["source"]);
}

/// A disk that is full: here a limit on the size of files, which anybody may set.
#[cfg(unix)]
#[test]
fn a_full_disk_is_a_failure_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (out, limited) = (dir.path().join("out"), "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\"");
    let convert = |more: &[&str]| {
        let inlaid = env!("CARGO_BIN_EXE_inlaid");
        let args = ["convert", "demo", out.to_str().unwrap(), "--to", "f32"];
        std::process::Command::new("sh").args(["-c", limited, inlaid]).args(args).args(more).output().unwrap()
    };
    let refuse = |failed: &std::process::Output| {
        let line = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert_eq!(failed.status.code(), Some(1), "{line}");
        assert!(line.contains("model.safetensors: ") && line.lines().count() == 1, "{line}");
        assert!(failed.stdout.is_empty());
    };
    refuse(&convert(&[]));
    assert!(names(dir.path()).is_empty(), "nothing is left");
    // What was there before stays.
    text(&output(&["convert", "demo", out.to_str().unwrap(), "--to", "bf16"]));
    let before: Vec<_> = names(&out).iter().map(|name| fs::read(out.join(name)).unwrap()).collect();
    refuse(&convert(&["--force"]));
    let after: Vec<_> = names(&out).iter().map(|name| fs::read(out.join(name)).unwrap()).collect();
    assert!(before == after && names(dir.path()) == ["out"]);
}
