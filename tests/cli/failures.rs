//! How the program fails: status, one line, nothing on standard output.

use crate::{golden, inlaid, json, output, with_input};
use std::process::{Output, Stdio};

fn refuse(output: &Output, status: i32, words: &[&str]) {
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(status), "{line}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
    if status == 1 {
        assert!(line.starts_with("inlaid: ") && line.ends_with('\n') && line.lines().count() == 1, "{line}");
    }
}

#[test]
fn bad_usage_is_status_2() {
    let model = golden("llama-tied");
    let model = model.as_str();
    let cases: [(&[&str], &str); 26] = [
        (&[], "Usage"),
        (&["sing"], "sing"),
        (&["generate", "--threads", "0"], "--threads"),
        (&["generate", "--prompt", "a", "--ids", "1"], "--ids"),
        (&["generate", "--ids", "1,x"], "x"),
        (&["generate", "--ids", "-1"], "-1"),
        (&["generate", "--top-p", "1.5"], "above 0 and at most 1"),
        (&["generate", "--temperature", "nan"], "0 or more"),
        (&["generate", "--stop", ""], "--stop"),
        (&["generate", "--isa", "sse9"], "sse9"),
        (&["generate", "--kv", "q4"], "q4"),
        (&["generate", "--logit-bias", "3"], "token id"),
        (&["generate", "--lookup", "17"], "--lookup"),
        (&["generate", "--lookup", "4", "--draft", "demo"], "--draft"),
        (&["generate", "--draft-tokens", "4"], "--draft"),
        (&["generate", "--cores", "3-1"], "0,2-5"),
        (&["generate", "--cores", "1,,2"], "0,2-5"),
        (&["bench", "--sessions", "0"], "--sessions"),
        (&["bench", &golden("bert"), "--tokens", "4096"], "--tokens"),
        (&["bench", "--beams", "65"], "--beams"),
        (&["bench", "--depth", "100000"], "--depth"),
        (&["generate", model, "--ids", "1", "--context", "129"], "at most 128"),
        (&["generate", model, "--ids", "1", "--stop", "a"], "no tokenizer"),
        (&["logits"], "--ids"),
        (&["tokenize", "demo"], "TEXT"),
        (&["convert", model, "out", "--to", "q8_0"], "q8_0"),
    ];
    for (args, word) in cases {
        refuse(&output(args), 2, &[word]);
    }
}

#[test]
fn a_failure_is_status_1_and_one_line_that_names_what_is_wrong() {
    let model = golden("llama-tied");
    let model = model.as_str();
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().to_str().unwrap();
    let missing = format!("{empty}/missing.gguf");
    refuse(&output(&["info", &missing]), 1, &["missing.gguf"]);
    refuse(&output(&["info", empty]), 1, &["model.safetensors"]);
    refuse(&output(&["logits", model, "--ids", "1,101", "--json"]), 1, &["101"]);
    refuse(&output(&["generate", model, "--ids", "101"]), 1, &["101"]);
    refuse(&output(&["generate", model, "--ids", "1", "--draft", "demo"]), 1, &["draft", "101"]);
    refuse(&output(&["generate", "--cores", "4000"]), 1, &["cores", "4000"]);
    refuse(&output(&["generate", model, "--prompt", "x"]), 1, &["tokenizer"]);
    refuse(&output(&["tokenize", model, "x"]), 1, &["tokenizer"]);
    refuse(&output(&["chat", "demo"]), 1, &["chat template"]);
    refuse(&output(&["generate", "--chat", "--prompt", "x"]), 1, &["chat template"]);
    refuse(&output(&["perplexity", "demo", &missing]), 1, &["missing.gguf"]);
    let ids = vec!["1"; 129].join(",");
    refuse(&output(&["logits", model, "--ids", &ids]), 1, &["129", "128"]);
    refuse(&with_input(&["tokenize", "demo", "-"], b"ab\xff"), 1, &["UTF-8", "at 2"]);
    refuse(&with_input(&["perplexity", "demo", "-"], b""), 1, &["at least 2 tokens"]);
    // A config that lies: one line, whatever its text.
    std::fs::write(dir.path().join("config.json"), "{\"model_type\": \"two\\nlines\"}").unwrap();
    std::fs::copy(format!("{model}/model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    refuse(&output(&["info", empty]), 1, &["model_type"]);
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    // More than a pipe holds, so that the program is still writing.
    let ids = vec!["7"; 100].join(",");
    let mut child = inlaid(&["logits", "demo", "--ids", &ids, "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = inlaid(&["tokenize", "demo", "word"]).stdout(full).output().unwrap();
    refuse(&output, 1, &["standard output"]);
}

#[test]
fn every_command_explains_itself() {
    for command in ["info", "generate", "chat", "logits", "tokenize", "perplexity", "convert", "bench"] {
        let help = crate::text(&output(&[command, "--help"]));
        assert!(help.contains("Examples:") && help.contains(&format!("inlaid {command}")), "{help}");
    }
    let version = crate::text(&output(&["--version"]));
    assert_eq!(version.trim(), concat!("inlaid ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_same_bits_whatever_the_threads_and_kernels() {
    let model = golden("llama-gqa");
    let run = |more: &[&str]| json(&[&["logits", &model, "--ids", "5,9,2,44", "--json"], more].concat());
    let expected = run(&[]);
    for more in [
        &["--threads", "1"][..],
        &["--threads", "3"],
        &["--isa", "scalar"],
        &["--copy"],
        &["--context", "77"],
    ] {
        assert_eq!(run(more), expected, "{more:?}");
    }
    assert_ne!(run(&["--kv", "bf16"]), expected, "keys and values are rounded");
}
