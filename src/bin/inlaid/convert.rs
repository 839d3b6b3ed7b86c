//! Floor 6: `inlaid convert`. Knows what the library's converter asks for.

use crate::args::files;
use crate::interrupt;
use crate::output::{Bar, Failure, Unit, json, note};
use clap::{Args, ValueEnum};
use inlaid::convert::{Target, convert};
use inlaid::pack::Hold;
use kernels::DType;
use serde_json::json;
use std::path::PathBuf;

const AFTER: &str = "\
Examples:
  inlaid convert model.gguf ./model --to bf16
  inlaid convert ./model ./model-f32 --to f32 --force
  inlaid convert ./model ./model-q4 --packed --to q4

The directory takes its name when all of it is written; where something fails, nothing is left.";

/// Turn a model into a Hugging Face directory
///
/// Writes config, tokenizer, chat template and weights (in one dense type, in several files beyond 4 GB) of a GGUF file
/// or another directory. With --packed the weights are interleaved as the kernels read them, and may be quantised: the
/// file is mapped as it is, in no time, and runs at full speed; only Inlaid reads it. JSON: `out`, `dtype`, `packed`,
/// `files`, `bytes`.
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct Convert {
    /// Directory, .safetensors file with its config beside it, .gguf file, or `demo`
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The directory to write
    out: PathBuf,
    /// Type of the written weights [default with --packed: the types they have]
    #[arg(long, value_enum, value_name = "TYPE", required_unless_present = "packed")]
    to: Option<To>,
    /// Write packed panels, which are mapped and used as they are
    #[arg(long)]
    packed: bool,
    /// Replace a model that is at OUT
    #[arg(long)]
    force: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Types of written weights.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum To {
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
    /// The upper halves of 32-bit floats
    Bf16,
    /// 8 bits with a scale for each 32; --packed only
    Q8,
    /// 4 bits with scales and minima, 4.5 bits in all; --packed only
    Q4,
}

impl Convert {
    /// What the options ask for, and its name.
    fn target(&self) -> Result<(Target<'static>, &'static str), Failure> {
        let dense = |dtype: DType| {
            (if self.packed { Target::PackedDense(dtype) } else { Target::Dense(dtype) }, dtype.name())
        };
        match self.to {
            Some(To::F32) => Ok(dense(DType::F32)),
            Some(To::F16) => Ok(dense(DType::F16)),
            Some(To::Bf16) => Ok(dense(DType::BF16)),
            Some(To::Q8 | To::Q4) if !self.packed => Err(Failure::Usage(
                "--to q8 and --to q4 need --packed: other programs cannot read them".into(),
            )),
            Some(To::Q8) => Ok((Target::Packed(Hold::Q8, None), "q8")),
            Some(To::Q4) => Ok((Target::Packed(Hold::Q4, None), "q4")),
            None => Ok((Target::Packed(Hold::Packed, None), "as it was")),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Convert) -> Result<(), Failure> {
    let (target, dtype) = args.target()?;
    interrupt::install(|| {});
    let files = files(&args.source)?;
    let mut bar = Bar::new("converting", Unit::Bytes);
    let mut tell = |done, total| {
        bar.at(done, total);
        interrupt::flow()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let written = convert(&files, &args.out, target, threads, args.force, Some(&mut tell))?;
    drop(bar);
    if args.json {
        let out = args.out.to_string_lossy();
        return json(&json!({
            "out": out, "dtype": dtype, "packed": args.packed, "files": written.files, "bytes": written.bytes,
        }));
    }
    note(&format!(
        "{}: {}, {} files",
        args.out.display(),
        indicatif::HumanBytes(written.bytes),
        written.files.len()
    ));
    Ok(())
}
