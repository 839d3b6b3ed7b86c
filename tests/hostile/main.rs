//! Files that lie: each is an error, within bounded work and memory, and never a panic. Then every truncation and many
//! single-byte changes of valid files, and what fuzzing found (`regressions/`).

mod alloc;
#[cfg(feature = "checkpoints")]
mod archive;
#[cfg(feature = "checkpoints")]
mod checkpoint;
mod config;
mod gguf;
#[cfg(feature = "tokenizer")]
mod gguf_tokenizer;
mod index;
mod model;
#[cfg(feature = "checkpoints")]
mod npz;
mod safetensors;
#[cfg(feature = "tokenizer")]
mod tokenizer;

use inlaid::Error;
use std::fs;
use std::panic::{catch_unwind, set_hook, take_hook};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A malformed input: what is wrong with it, and its bytes.
struct Case {
    what: String,
    bytes: Vec<u8>,
}

/// A valid text file with `old` replaced.
fn with(valid: Vec<u8>, old: &str, new: &str) -> Vec<u8> {
    let text = String::from_utf8(valid).unwrap();
    assert!(text.contains(old), "{old}");
    text.replacen(old, new, 1).into()
}

fn case(what: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Case {
    Case { what: what.into(), bytes: bytes.into() }
}

/// One format: how it is opened, a small valid file, malformed ones.
struct Format {
    name: &'static str,
    open: fn(&[u8]) -> Result<(), Error>,
    valid: Vec<u8>,
    cases: Vec<Case>,
    /// Allocations that the smallest file may take.
    calls: usize,
}

fn formats() -> Vec<Format> {
    macro_rules! format {
        ($name:ident, $calls:expr) => {
            Format {
                name: stringify!($name),
                open: $name::open,
                valid: $name::valid(),
                cases: $name::cases(),
                calls: $calls,
            }
        };
    }
    vec![
        format!(safetensors, 500),
        format!(index, 500),
        format!(gguf, 500),
        format!(config, 500),
        format!(model, 5_000),
        #[cfg(feature = "checkpoints")]
        format!(checkpoint, 500),
        #[cfg(feature = "checkpoints")]
        format!(npz, 500),
        // Its regular expression is compiled.
        #[cfg(feature = "tokenizer")]
        format!(tokenizer, 50_000),
        #[cfg(feature = "tokenizer")]
        format!(gguf_tokenizer, 50_000),
    ]
}

/// Allocations are counted for the whole process, so one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

const MOST_MEMORY: usize = 64 << 20;

/// Panics, caught or not.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Opens `bytes` and checks what that took: no panic, memory below the bound, and work in proportion to the file.
fn open(format: &Format, what: &str, bytes: &[u8]) -> Result<(), Error> {
    let start = Instant::now();
    // Panics of a dependency that the engine contains would print themselves, which takes more memory than the file.
    let hook = take_hook();
    set_hook(Box::new(|_| {
        PANICS.fetch_add(1, Relaxed);
    }));
    let (result, cost) = alloc::measure(|| catch_unwind(|| (format.open)(bytes)));
    set_hook(hook);
    let (took, name) = (start.elapsed(), format.name);
    let result = result.unwrap_or_else(|_| panic!("{name}: {what}: panicked"));
    assert!(cost.peak < MOST_MEMORY, "{name}: {what}: held {} bytes", cost.peak);
    // A value takes at least two bytes of a file and is copied into a few allocations at most.
    let most = format.calls + 2 * bytes.len();
    assert!(cost.calls < most, "{name}: {what}: {} allocations for {} bytes", cost.calls, bytes.len());
    // Far above what any case needs unoptimised: only a runaway loop gets there.
    assert!(took < Duration::from_secs(20), "{name}: {what}: took {took:?}");
    result
}

#[test]
fn malformed_files_are_errors() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut refused, mut accepted, mut panicked) = (0, Vec::new(), Vec::new());
    for format in formats() {
        open(&format, "valid", &format.valid).unwrap();
        for Case { what, bytes } in &format.cases {
            let before = PANICS.load(Relaxed);
            let result = open(&format, what, bytes);
            if PANICS.load(Relaxed) > before {
                panicked.push(format!("{}: {what}: {result:?}", format.name));
            }
            let Err(error) = result else {
                accepted.push(format!("{}: {what}", format.name));
                continue;
            };
            let length = error.to_string().len();
            assert!(length < 600, "{}: {what}: an unreadable message of {length} bytes", format.name);
            refused += 1;
        }
    }
    println!("{refused} malformed files were refused");
    assert!(accepted.is_empty(), "accepted: {accepted:#?}");
    assert!(panicked.is_empty(), "contained panics, which print: {panicked:#?}");
    assert!(refused >= 200, "only {refused} cases");
}

/// What the malformed ones of the second kind of tokenizer in GGUF files are made from.
#[cfg(feature = "tokenizer")]
#[test]
fn a_valid_vocabulary_with_scores_is_accepted() {
    gguf_tokenizer::open(&gguf_tokenizer::valid_sentencepiece()).unwrap();
}

#[test]
fn truncated_anywhere() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for format in formats() {
        for len in 0..format.valid.len() {
            let bytes = format.valid.get(..len).unwrap_or_default();
            assert!(open(&format, &format!("cut at {len}"), bytes).is_err(), "{}: cut at {len}", format.name);
        }
    }
}

/// Whatever a changed byte makes of the file, opening it ends well.
#[test]
fn changed_anywhere() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for format in formats() {
        let mut bytes = format.valid.clone();
        for at in 0..bytes.len() {
            let original = bytes[at];
            for new in
                [0, 1, 0x7f, 0x80, 0xff, b'"', b'\\', b'{', b'9', original ^ 1, original.wrapping_add(1)]
            {
                bytes[at] = new;
                let _ = open(&format, &format!("byte {at} = {new}"), &bytes);
            }
            bytes[at] = original;
        }
    }
}

#[test]
fn regressions() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/regressions");
    for format in formats() {
        let Ok(list) = fs::read_dir(root.join(format.name)) else { continue };
        for file in list {
            let path = file.unwrap().path();
            let _ = open(&format, &path.to_string_lossy(), &fs::read(&path).unwrap());
        }
    }
}

/// Writes the valid files where fuzzing starts from.
#[test]
#[ignore = "writes into the source tree"]
fn write_seeds() {
    for format in formats() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(format.name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("valid"), format.valid).unwrap();
    }
}
