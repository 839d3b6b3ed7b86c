//! Floor 6: `inlaid convert`. Knows what the library's converter asks for.

use crate::args::{Dense, files};
use crate::interrupt;
use crate::output::{Bar, Failure, Unit, json, note};
use clap::Args;
use inlaid::convert::convert;
use serde_json::json;
use std::path::PathBuf;

const AFTER: &str = "\
Examples:
  inlaid convert model.gguf ./model --to bf16
  inlaid convert ./model ./model-f32 --to f32 --force

The directory takes its name when all of it is written; where something fails, nothing is left.";

/// Turn a model into a Hugging Face directory
///
/// Writes config, tokenizer, chat template and weights (in one dense type, in several files beyond 4 GB) of a GGUF file
/// or another directory. JSON: `out`, `dtype`, `files`, `bytes`.
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct Convert {
    /// Directory, .safetensors file with its config beside it, .gguf file, or `demo`
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The directory to write
    out: PathBuf,
    /// Type of the written weights
    #[arg(long, value_enum, value_name = "TYPE")]
    to: Dense,
    /// Replace a model that is at OUT
    #[arg(long)]
    force: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Convert) -> Result<(), Failure> {
    interrupt::install(|| {});
    let files = files(&args.source)?;
    let mut bar = Bar::new("converting", Unit::Bytes);
    let mut tell = |done, total| {
        bar.at(done, total);
        interrupt::flow()
    };
    let written = convert(&files, &args.out, args.to.dtype(), args.force, Some(&mut tell))?;
    drop(bar);
    if args.json {
        let (out, dtype) = (args.out.to_string_lossy(), args.to.dtype().name());
        return json(&json!({"out": out, "dtype": dtype, "files": written.files, "bytes": written.bytes}));
    }
    note(&format!(
        "{}: {}, {} files",
        args.out.display(),
        indicatif::HumanBytes(written.bytes),
        written.files.len()
    ));
    Ok(())
}
