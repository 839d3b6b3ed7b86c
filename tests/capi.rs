//! C programs: the header compiles as C and C++, the example at its top runs, and `tests/capi/*.c` calls every function,
//! linked with the shared and the static library. `INLAID_RUNNER` puts a command (valgrind) before the programs.
#![cfg(all(unix, feature = "tokenizer", feature = "chat-template"))]

mod common;
#[path = "common/words.rs"]
mod words;

use inlaid::kernels::DType;
use serde_json::{Map, Value, json};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tempfile::TempDir;

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-pedantic", "-Werror"];
/// What a static library of Rust needs on this system beside libc.
const STATIC_LIBS: &[&str] = if cfg!(target_os = "macos") {
    &["-framework", "CoreFoundation", "-lm"]
} else {
    &["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"]
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The directory of the libraries, which cargo built with this test.
fn libraries() -> PathBuf {
    let exe = std::env::current_exe().expect("a path of this test");
    exe.parent().map(Path::to_owned).expect("a directory")
}

/// Runs a compiler; `None` where there is none.
fn compile(compiler: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Option<Output> {
    let include = root().join("include");
    match Command::new(compiler).arg("-I").arg(include).args(args).output() {
        Ok(out) => Some(out),
        Err(e) => {
            println!("skipped: {compiler}: {e}");
            None
        }
    }
}

fn succeeded(out: &Output) {
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{}\n{stdout}\n{stderr}", out.status);
}

#[test]
fn the_header_is_c99_and_cpp17_and_may_be_included_twice() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let text = "#include <inlaid.h>\n#include <inlaid.h>\nint main(void) { return inlaid_version() == 0; }\n";
    for (compiler, standard, name) in [("cc", "-std=c99", "twice.c"), ("c++", "-std=c++17", "twice.cpp")] {
        let source = dir.path().join(name);
        std::fs::write(&source, text).expect("a source");
        let args = [standard.into(), "-fsyntax-only".into(), source.into_os_string()];
        let args: Vec<OsString> = STRICT.iter().map(Into::into).chain(args).collect();
        if let Some(out) = compile(compiler, args) {
            succeeded(&out);
        }
    }
}

/// How a program gets the library.
#[derive(Clone, Copy, Debug)]
enum Link {
    Shared,
    Static,
    /// Shared, with the program and its heap under AddressSanitizer.
    Sanitized,
}

/// Compiles and links a program; `None` where the system cannot.
fn build(dir: &Path, sources: &[PathBuf], link: Link) -> Option<PathBuf> {
    let (exe, libs) = (dir.join(format!("program-{link:?}")), libraries());
    let mut args: Vec<OsString> = STRICT.iter().map(Into::into).collect();
    args.extend(["-std=c99", "-g", "-D_POSIX_C_SOURCE=200809L", "-pthread"].map(Into::into));
    args.extend(sources.iter().map(|path| path.clone().into_os_string()));
    args.extend([OsString::from("-o"), exe.clone().into_os_string()]);
    match link {
        Link::Static => {
            args.push(libs.join("libinlaid.a").into_os_string());
            args.extend(STATIC_LIBS.iter().map(Into::into));
        }
        Link::Shared | Link::Sanitized => {
            let name = if cfg!(target_os = "macos") { "libinlaid.dylib" } else { "libinlaid.so" };
            let soname = if cfg!(target_os = "macos") { "libinlaid.0.dylib" } else { "libinlaid.so.0" };
            // The program looks for the library under the name that the library gave itself.
            let alias = dir.join(soname);
            if !alias.exists() {
                std::os::unix::fs::symlink(libs.join(name), &alias).expect("a link to the library");
            }
            args.push(libs.join(name).into_os_string());
            args.push(format!("-Wl,-rpath,{}", dir.display()).into());
        }
    }
    if let Link::Sanitized = link {
        args.push("-fsanitize=address,undefined".into());
        let probe = dir.join("probe.c");
        std::fs::write(&probe, "int main(void) { return 0; }\n").expect("a source");
        let out = compile(
            "cc",
            [
                probe.as_os_str(),
                "-fsanitize=address,undefined".as_ref(),
                "-o".as_ref(),
                dir.join("probe").as_ref(),
            ],
        )?;
        if !out.status.success() {
            println!("skipped: cc cannot link sanitizers here");
            return None;
        }
    }
    let out = compile("cc", args)?;
    succeeded(&out);
    Some(exe)
}

/// Runs a program, behind `INLAID_RUNNER` where that is set and `runner` allows it.
fn run(exe: &Path, args: &[&Path], runner: bool) -> Output {
    let words = std::env::var("INLAID_RUNNER").unwrap_or_default();
    let mut words = words.split_whitespace().filter(|_| runner);
    let mut command = match words.next() {
        Some(first) => {
            let mut command = Command::new(first);
            command.args(words).arg(exe);
            command
        }
        None => Command::new(exe),
    };
    command.args(args).output().expect("the program runs")
}

/// The character that stands for a byte in byte-level vocabularies: printable ones for themselves, the others from
/// U+0100 on.
fn byte_char(byte: u8) -> char {
    let plain = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if plain(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !plain(*b)).count() as u32;
    char::from_u32(256 + before).expect("a character")
}

/// A tokenizer of single bytes, three special tokens, and names for the rest of the vocabulary.
fn tokenizer(vocab: usize) -> Value {
    let mut names = Map::new();
    for byte in 0..=255u8 {
        names.insert(byte_char(byte).to_string(), json!(byte));
    }
    let special = ["<|end|>", "<|user|>", "<|assistant|>"];
    for id in 256 + special.len()..vocab {
        names.insert(format!("x{id}"), json!(id));
    }
    let added: Vec<Value> = special
        .iter()
        .zip(256..)
        .map(|(text, id)| {
            json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
           "pre_tokenizer": level, "post_processor": null, "decoder": level,
           "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                     "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": names,
                     "merges": []}})
}

const TEMPLATE: &str = "{% if not messages %}{{ raise_exception('nobody speaks') }}{% endif %}\
    {% if tools %}{{ tools|length }} tools, {{ mood }}, {{ strftime_now('%Y') }}{% endif %}\
    {% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}\
    {% if add_generation_prompt %}<|assistant|>{% endif %}";

const ADAPTER: &str = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}"#;

/// The tensors of an adapter of these models.
fn adapter() -> Vec<(String, Vec<usize>)> {
    let half = |i: usize, end: &str, shape: [usize; 2]| {
        (format!("base_model.model.model.layers.{i}.self_attn.q_proj.{end}.weight"), shape.to_vec())
    };
    (0..3).flat_map(|i| [half(i, "lora_A", [4, 128]), half(i, "lora_B", [128, 4])]).collect()
}

/// A model that speaks and one that only counts, as the programs want them.
fn models() -> &'static (TempDir, TempDir) {
    static MODELS: OnceLock<(TempDir, TempDir)> = OnceLock::new();
    MODELS.get_or_init(|| {
        let config = r#"{"model_type": "llama", "num_hidden_layers": 3, "hidden_size": 128,
            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256, "vocab_size": 300,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": true}"#;
        let (speaks, counts) =
            (common::write_model(config, DType::F32), common::write_model(config, DType::F32));
        for model in [&speaks, &counts] {
            common::write_adapter(model.path(), ADAPTER, adapter());
        }
        let write = |name: &str, value: Value| {
            std::fs::write(speaks.path().join(name), value.to_string()).expect("a file of the model");
        };
        write("tokenizer.json", tokenizer(300));
        write("tokenizer_config.json", json!({"eos_token": "<|end|>", "chat_template": TEMPLATE}));
        write("generation_config.json", json!({"eos_token_id": [256, 258]}));
        (speaks, counts)
    })
}

fn smoke(link: Link) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let names = [
        "smoke", "models", "texts", "sessions", "answers", "threads", "batch", "tasks", "adapters",
        "learning",
    ];
    let sources = names.map(|name| root().join("tests/capi").join(name).with_extension("c"));
    let Some(exe) = build(dir.path(), &sources, link) else { return };
    let (speaks, counts) = models();
    // Each run has a directory of its own to write in.
    let own = tempfile::tempdir().expect("a temporary directory");
    for entry in std::fs::read_dir(counts.path()).expect("a model") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), own.path().join(entry.file_name())).expect("a copy");
    }
    let readers = tempfile::tempdir().expect("a temporary directory");
    for (name, golden) in [("classes", "bert-classify"), ("masks", "bert-mlm"), ("tags", "xlm-roberta-tag")] {
        let made = words::reader(golden, |_| {}).keep();
        std::fs::rename(made, readers.path().join(name)).expect("a place for a model");
    }
    let out = run(&exe, &[speaks.path(), own.path(), readers.path()], !matches!(link, Link::Sanitized));
    succeeded(&out);
    assert!(String::from_utf8_lossy(&out.stdout).contains("every call answered"));
}

#[test]
fn every_function_from_c_with_the_shared_library() {
    smoke(Link::Shared);
}

#[test]
fn every_function_from_c_with_the_static_library() {
    smoke(Link::Static);
}

#[test]
fn every_function_from_c_under_address_sanitizer() {
    smoke(Link::Sanitized);
}

/// The examples compile without a warning, and print text and nothing else.
#[test]
fn the_examples_run() {
    let (speaks, _) = models();
    for entry in std::fs::read_dir(root().join("examples/c")).expect("examples") {
        let source = entry.expect("an entry").path();
        if source.extension().is_none_or(|ext| ext != "c") {
            continue;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let Some(exe) = build(dir.path(), &[source], Link::Shared) else { return };
        let out = run(&exe, &[speaks.path()], true);
        succeeded(&out);
        assert!(!out.stdout.is_empty());
        let out = run(&exe, &["/no/such/model".as_ref()], true);
        assert_eq!(out.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&out.stderr).contains("/no/such/model"));
    }
}

/// The crate beneath panics on this normalizer (it counts characters that the first step added as replaced ones). That is
/// caught; the host hears of it in the error, and nowhere else.
#[test]
fn a_caught_panic_prints_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(exe) = build(dir.path(), &[root().join("examples/c/hello.c")], Link::Shared) else { return };
    let (speaks, _) = models();
    let broken = tempfile::tempdir().expect("a temporary directory");
    for entry in std::fs::read_dir(speaks.path()).expect("a model") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), broken.path().join(entry.file_name())).expect("a copy");
    }
    let mut file = tokenizer(300);
    file["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"Regex": "^"}, "content": "xx"}, {"type": "NFC"}]});
    std::fs::write(broken.path().join("tokenizer.json"), file.to_string()).expect("a tokenizer");
    let out = run(&exe, &[broken.path()], true);
    let line = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{line}");
    assert!(line.starts_with("INLAID_ERROR_TOKENIZER: ") && line.lines().count() == 1, "{line}");
    assert!(line.contains("makes no sense"), "it was a panic: {line}");
}
