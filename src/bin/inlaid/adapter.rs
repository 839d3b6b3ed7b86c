//! Floor 6: adapters on the command line: the option that grafts them onto a model, and `inlaid adapter`. Knows no command
//! that runs models.

use crate::args::files;
use crate::interrupt;
use crate::output::{Bar, Failure, Unit, json, note, print};
use clap::{Args, Subcommand};
use inlaid::Error;
use inlaid::adapter::{self, AdapterInfo, info};
use inlaid::convert::merge;
use inlaid::engine::{Engine, EngineConfig};
use inlaid::format::files::Files;
use inlaid::model::Model;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which adapters a model gets.
#[derive(Args)]
pub struct Adapters {
    /// An adapter of the model, a directory as peft writes it, and its weight [default: 1]; may be given several times
    ///
    /// What an adapter changes counts as often as its weight says. Where the model's weights are dense, adapters are merged
    /// into private copies of those that they change, which costs no time per token (16-bit weights are rounded once more);
    /// onto quantised weights they are grafted.
    #[arg(long = "adapter", value_name = "DIR[:WEIGHT]", value_parser = with_weight)]
    list: Vec<(PathBuf, f32)>,
    /// Graft adapters onto dense weights too: nothing is copied or rounded, each token takes a little longer
    #[arg(long, requires = "list")]
    unmerged: bool,
}

impl Adapters {
    /// Grafts them onto `model`.
    ///
    /// # Errors
    /// As [`Model::adapter`] and [`Model::merge`].
    pub fn graft(&self, model: &Model) -> Result<(), Failure> {
        if self.list.is_empty() {
            return Ok(());
        }
        let open = |(path, weight): &(PathBuf, f32)| Ok((model.adapter(&Files::at(path)?)?, *weight));
        let list = self.list.iter().map(open).collect::<Result<Vec<_>, Error>>()?;
        if !self.unmerged {
            match model.merge(&list) {
                // Quantised weights, or an adapter that is no change of weights.
                Err(Error::Unsupported { .. }) => {}
                done => return Ok(done?),
            }
        }
        Ok(model.attach(&list)?)
    }
}

impl Adapters {
    /// The only one, whole.
    ///
    /// # Errors
    /// `Usage` for several, or a weight; as [`Model::adapter`].
    pub fn one(&self, model: &Model) -> Result<Option<Arc<adapter::Adapter>>, Failure> {
        match &self.list[..] {
            [] => Ok(None),
            [(path, 1.0)] => Ok(Some(model.adapter(&Files::at(path)?)?)),
            _ => Err(Failure::Usage(
                "--adapter: expected one adapter without a weight, to learn on with".into(),
            )),
        }
    }
}

/// A path, and the number behind its last colon, unless there is a file of the whole name.
fn with_weight(text: &str) -> Result<(PathBuf, f32), String> {
    if let Some((path, weight)) = text.rsplit_once(':')
        && !Path::new(text).exists()
        && let Ok(weight) = weight.parse::<f32>()
    {
        if !weight.is_finite() {
            return Err("expected a finite weight".to_owned());
        }
        return Ok((path.into(), weight));
    }
    Ok((text.into(), 1.0))
}

const AFTER: &str = "\
Examples:
  inlaid adapter info ./adapter --json
  inlaid adapter merge ./model ./adapter ./merged
  inlaid generate ./model --adapter ./adapter --adapter ./other:0.5 --prompt \"Once\"";

/// Look at adapters, or write a model that has one in its weights
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct Adapter {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Info(Info),
    Merge(Merge),
}

/// Say what an adapter is
///
/// Prints its type, what it changes, and how large it is.
#[derive(Args)]
struct Info {
    /// The adapter's directory
    dir: PathBuf,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Adapter) -> Result<(), Failure> {
    match &args.command {
        Command::Info(args) => show(args, &info(&Files::at(&args.dir)?)?),
        Command::Merge(args) => write(args),
    }
}

/// Write a model that has an adapter in its weights
///
/// Writes a Hugging Face directory in the types that the weights have. JSON: `out`, `files`, `bytes`.
#[derive(Args)]
struct Merge {
    /// Directory, .safetensors file with its config beside it, or `demo`
    model: PathBuf,
    /// The adapter's directory, and its weight [default: 1]
    #[arg(value_name = "DIR[:WEIGHT]", value_parser = with_weight)]
    adapter: (PathBuf, f32),
    /// The directory to write
    out: PathBuf,
    /// Replace a model that is at OUT
    #[arg(long)]
    force: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

fn write(args: &Merge) -> Result<(), Failure> {
    interrupt::install(|| {});
    let mut bar = Bar::new("merging", Unit::Bytes);
    let mut tell = |done, total| {
        bar.at(done, total);
        interrupt::flow()
    };
    let engine = Engine::new(EngineConfig::default())?;
    let adapters = [(Files::at(&args.adapter.0)?, args.adapter.1)];
    let written = merge(&engine, &files(&args.model)?, &adapters, &args.out, args.force, Some(&mut tell))?;
    drop(bar);
    let out = args.out.to_string_lossy();
    if args.json {
        return json(&json!({"out": out, "files": written.files, "bytes": written.bytes}));
    }
    note(&format!("{out}: {}, {} files", indicatif::HumanBytes(written.bytes), written.files.len()));
    Ok(())
}

fn show(args: &Info, found: &AdapterInfo) -> Result<(), Failure> {
    let object = json!({
        "adapter": args.dir.to_string_lossy(),
        "type": found.kind.name(),
        "dora": found.dora,
        "rank": (found.rank > 0).then_some(found.rank),
        "target_modules": found.targets,
        "modules_to_save": found.modules_to_save,
        "virtual_tokens": (found.virtual_tokens > 0).then_some(found.virtual_tokens),
        "base_model": found.base,
        "tensors": found.tensors,
        "parameters": found.parameters,
        "bytes": found.bytes,
    });
    if args.json {
        return json(&object);
    }
    let mut text = String::new();
    crate::info::lines("", &object, &mut text);
    print(&text)
}
