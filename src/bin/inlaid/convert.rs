//! Floor 6: `inlaid convert`. Knows what the library's converter asks for.

use crate::args::files;
use crate::interrupt;
use crate::output::{Bar, Failure, Unit, json, note};
use clap::{Args, ValueEnum};
use inlaid::Error;
use inlaid::calibrate::importance;
use inlaid::convert::{Target, convert};
use inlaid::engine::{Engine, EngineConfig};
use inlaid::model::{Model, ModelConfig};
use inlaid::pack::{Hold, Importance};
use kernels::DType;
use serde_json::json;
use std::path::PathBuf;

const AFTER: &str = "\
Examples:
  inlaid convert model.gguf ./model --to bf16
  inlaid convert ./model ./model-f32 --to f32 --force
  inlaid convert ./model ./model-q4 --packed --to q4 --calibrate book.txt

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
    /// With --to q8 or q4: a text like those the model will see, by which to weigh what quantising costs
    #[arg(long, value_name = "FILE", requires = "packed")]
    calibrate: Option<PathBuf>,
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
    fn target<'a>(&self, importance: Option<&'a Importance>) -> Result<(Target<'a>, &'static str), Failure> {
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
            Some(To::Q8) => Ok((Target::Packed(Hold::Q8, importance), "q8")),
            Some(To::Q4) => Ok((Target::Packed(Hold::Q4, importance), "q4")),
            None => Ok((Target::Packed(Hold::Packed, None), "as it was")),
        }
    }

    /// What the text of --calibrate says about the model's inputs.
    fn importance(&self) -> Result<Option<Importance>, Failure> {
        let Some(path) = &self.calibrate else { return Ok(None) };
        if !matches!(self.to, Some(To::Q8 | To::Q4)) {
            return Err(Failure::Usage("--calibrate needs --to q8 or --to q4".into()));
        }
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let model = Model::open(
            &Engine::new(EngineConfig::default())?,
            &files(&self.source)?,
            ModelConfig { weights: Hold::Packed, ..ModelConfig::default() },
        )?;
        let mut ids = model.tokenizer()?.encode(&text, false, false)?;
        ids.truncate(CALIBRATE);
        let mut bar = Bar::new("calibrating", Unit::Plain);
        let mut tell = |done, total| {
            bar.at(done, total);
            interrupt::flow()
        };
        Ok(Some(importance(&model, &ids, &mut Some(&mut tell))?))
    }
}

/// Tokens to calibrate on at most: more adds little.
const CALIBRATE: usize = 32_768;

/// Runs the command.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Convert) -> Result<(), Failure> {
    args.target(None)?;
    interrupt::install(|| {});
    let learned = args.importance()?;
    let (target, dtype) = args.target(learned.as_ref())?;
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
