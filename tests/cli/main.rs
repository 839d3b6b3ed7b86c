//! The command line, run as users run it: what it prints where, how it fails, and that its figures are those of the model.
#![cfg(feature = "cli")]

mod adapters;
mod chat;
#[path = "../common/mod.rs"]
mod common;
mod convert;
mod failures;
mod figures;
mod tasks;
mod text;
#[cfg(feature = "train")]
mod train;
#[path = "../common/words.rs"]
mod words;

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program with some arguments, two threads and nothing to read.
pub fn inlaid(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inlaid"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Its output.
pub fn output(args: &[&str]) -> Output {
    inlaid(args).output().unwrap()
}

/// Its output when it reads `input`.
pub fn with_input(args: &[&str], input: &[u8]) -> Output {
    let mut child =
        inlaid(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// What it wrote to standard output; it succeeded.
pub fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one JSON object that it wrote, and nothing else anywhere.
pub fn json(args: &[&str]) -> Value {
    let output = output(args);
    let text = text(&output);
    assert!(output.stderr.is_empty() && text.ends_with("}\n") && text.lines().count() == 1, "{output:?}");
    serde_json::from_str(&text).unwrap()
}

/// A golden model's directory.
pub fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    path.into_os_string().into_string().unwrap()
}

/// The GGUF file of a golden model.
pub fn golden_gguf(name: &str) -> String {
    let files = std::fs::read_dir(golden(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut ggufs: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ext| ext == "gguf")).collect();
    assert_eq!(ggufs.len(), 1, "{name}");
    ggufs.remove(0).into_os_string().into_string().unwrap()
}

/// The logits that the program prints for `ids`.
pub fn logits(model: &str, ids: &[u64]) -> Vec<Vec<f64>> {
    let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
    let printed = json(&["logits", model, "--ids", &ids.join(","), "--json"]);
    let row = |row: &Value| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    printed["logits"].as_array().unwrap().iter().map(row).collect()
}

/// A list of ids in a JSON object.
pub fn ids(object: &Value, key: &str) -> Vec<u64> {
    object[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}
