//! `include/inlaid.h` is what the sources in `src/capi` say. `INLAID_BLESS=1` rewrites it.
#![cfg(not(miri))]

use std::path::{Path, PathBuf};

/// The chapters of the header, in the order of their functions.
const SOURCES: [&str; 20] = [
    "version", "status", "error", "engine", "parts", "model", "info", "tokens", "sampler", "session",
    "adapter", "feed", "logits", "batch", "generate", "encode", "beams", "learning", "train", "ppo",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The header as cbindgen writes it, with the example at its top.
fn generate() -> String {
    let root = root();
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    let program: Vec<String> = read(&root.join("examples/c/hello.c"))
        .lines()
        .map(|line| format!(" *     {line}").trim_end().to_owned())
        .collect();
    config.header = config.header.map(|text| text.trim().replace("@PROGRAM@", &program.join("\n")));
    let mut builder = cbindgen::Builder::new().with_config(config);
    for name in SOURCES {
        builder = builder.with_src(root.join("src/capi").join(name).with_extension("rs"));
    }
    let mut out = Vec::new();
    builder.generate().expect("cbindgen").write(&mut out);
    let text = String::from_utf8(out).expect("UTF-8");
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

#[test]
fn the_header_is_what_the_sources_say() {
    let path = root().join("include/inlaid.h");
    let fresh = generate();
    if std::env::var_os("INLAID_BLESS").is_some() {
        std::fs::write(&path, &fresh).expect("include/inlaid.h can be written");
    }
    let kept = read(&path);
    let differs = kept.lines().zip(fresh.lines()).position(|(a, b)| a != b);
    assert!(
        kept == fresh,
        "include/inlaid.h is not what src/capi says (line {:?}): run `INLAID_BLESS=1 cargo test --test header`",
        differs.map(|at| at + 1)
    );
}

#[test]
fn every_source_of_exports_is_in_the_header() {
    for entry in std::fs::read_dir(root().join("src/capi")).expect("src/capi") {
        let path = entry.expect("an entry").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let exports = read(&path).contains("unsafe(no_mangle)");
        assert_eq!(exports || stem == "parts", SOURCES.contains(&stem), "{}", path.display());
    }
}
