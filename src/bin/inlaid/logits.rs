//! Floor 6: `inlaid logits` and `inlaid hidden`. Knows what a model says of ids, and no text beyond the names of tokens.

use crate::args::{ModelArg, Run, token_name};
use crate::output::Failure;
use clap::Args;
use inlaid::arch::{Rows, Task};
use inlaid::encode::{self, Ask, Text};
use inlaid::model::Model;
use inlaid::sample::top_logprobs;
use inlaid::session::SessionConfig;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const AFTER: &str = "\
Examples:
  inlaid logits demo --ids 1,2,3 --json
  inlaid logits model.gguf --ids 504,3575,282
  inlaid logits ./bert --ids 101,7592,103,102
  inlaid logits ./t5 --ids 37,1782,1 --decoder-ids 0,644 --json";

/// Print what a model's head says of every token
///
/// Of a language model: the five most likely next tokens of every position (of the decoder, where there is an encoder). Of
/// a masked language model: those at every position. Of a classifier: its logits, one row. JSON: `shape` (rows, columns)
/// and `logits`, one list per row; a number that is not finite is null.
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct Logits {
    #[command(flatten)]
    model: ModelArg,
    /// Token ids, separated by commas
    #[arg(long, required = true, value_delimiter = ',', value_name = "IDS")]
    ids: Vec<u32>,
    /// The decoder's ids, of a model with an encoder [default: the token it begins with]
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    decoder_ids: Vec<u32>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: Run,
}

const AFTER_HIDDEN: &str = "\
Examples:
  inlaid hidden demo --ids 1,2,3 --json
  inlaid hidden ./bert --ids 101,7592,102 --json";

/// Print the last hidden states of a text
///
/// One row per token, as the last norm leaves them; of a model with an encoder, the encoder's. JSON: `shape` (rows,
/// columns) and `hidden`, one list per row; a number that is not finite is null.
#[derive(Args)]
#[command(after_help = AFTER_HIDDEN)]
pub struct Hidden {
    #[command(flatten)]
    model: ModelArg,
    /// Token ids, separated by commas
    #[arg(long, required = true, value_delimiter = ',', value_name = "IDS")]
    ids: Vec<u32>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: Run,
}

/// Runs `inlaid logits`.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Logits) -> Result<(), Failure> {
    let engine = args.run.engine()?;
    let model = args.run.open_on(&engine, &crate::args::files(&args.model.model)?, !args.json)?;
    let head = model.arch().head;
    let seen = match (head.task, args.decoder_ids.is_empty()) {
        (Task::LanguageModel, _) => continued(args, &model)?,
        (_, true) => args.ids.clone(),
        (_, false) => {
            return Err(Failure::Usage("--decoder-ids: this model is no encoder-decoder".to_owned()));
        }
    };
    let n = if head.rows == Rows::All { seen.len() } else { 1 };
    let tokens = matches!(head.task, Task::LanguageModel | Task::MaskedLm);
    let mut out = BufWriter::new(io::stdout().lock());
    let name = |id| token_name(&model, id).unwrap_or_default();
    let mut json = Json::new("logits", n);
    let each = |at: usize, row: &[f32]| {
        if args.json {
            return json.row(&mut out, row);
        }
        if n == seen.len() {
            let id = seen.get(at).copied().unwrap_or_default();
            write!(out, "{at:>5} {id:>7} {:?} ->", name(id))?;
        }
        if !tokens {
            return numbers(&mut out, row);
        }
        for (id, logprob) in top_logprobs(row, 5) {
            write!(out, "  {id} {:?} {logprob:.3}", name(id))?;
        }
        writeln!(out)
    };
    if head.task == Task::LanguageModel {
        of_session(args, &model, &seen, each)?;
    } else {
        of_texts(&model, &args.ids, Ask::Head, each)?;
    }
    if args.json {
        json.end(&mut out)?;
    }
    Ok(out.flush()?)
}

/// Runs `inlaid hidden`.
///
/// # Errors
/// Why it could not.
pub fn hidden(args: &Hidden) -> Result<(), Failure> {
    let engine = args.run.engine()?;
    let model = args.run.open_on(&engine, &crate::args::files(&args.model.model)?, false)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut json = Json::new("hidden", args.ids.len());
    let each =
        |_: usize, row: &[f32]| if args.json { json.row(&mut out, row) } else { numbers(&mut out, row) };
    of_texts(&model, &args.ids, Ask::Hidden, each)?;
    if args.json {
        json.end(&mut out)?;
    }
    Ok(out.flush()?)
}

fn numbers(out: &mut impl Write, row: &[f32]) -> io::Result<()> {
    for x in row {
        write!(out, " {x:>10.5}")?;
    }
    writeln!(out)
}

/// The ids after which a language model's logits are wanted.
fn continued(args: &Logits, model: &Model) -> Result<Vec<u32>, Failure> {
    match (model.arch().reads_source(), args.decoder_ids.is_empty()) {
        (false, true) => Ok(args.ids.clone()),
        (false, false) => Err(Failure::Usage("--decoder-ids: this model has no encoder".to_owned())),
        (true, true) => Ok(vec![model.first_token()?]),
        (true, false) => Ok(args.decoder_ids.clone()),
    }
}

/// Hands `each` a language model's logits after each of `ids`, until it fails.
fn of_session(
    args: &Logits,
    model: &Arc<Model>,
    ids: &[u32],
    mut each: impl FnMut(usize, &[f32]) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut session = args.run.session(model, ids.len(), SessionConfig::default())?;
    if model.arch().reads_source() {
        session.set_source(&args.ids)?;
    }
    let (mut at, mut wrote) = (0, Ok(()));
    session.prefill_all(ids, |row| {
        if wrote.is_ok() {
            wrote = each(at, row);
        }
        at += 1;
    })?;
    Ok(wrote?)
}

/// Hands `each` what is asked of a text, row by row, until it fails.
fn of_texts(
    model: &Model,
    ids: &[u32],
    ask: Ask,
    mut each: impl FnMut(usize, &[f32]) -> io::Result<()>,
) -> Result<(), Failure> {
    let (text, never, mut wrote) = (Text { ids, types: &[] }, AtomicBool::new(false), Ok(()));
    encode::run(model, &[text], ask, &never, &mut None, &mut |_, rows, cols| {
        for (at, row) in rows.chunks_exact(cols.max(1)).enumerate() {
            if wrote.is_ok() {
                wrote = each(at, row);
            }
        }
    })?;
    Ok(wrote?)
}

/// A JSON object of rows, written as they come; its head is written with the first row, since until then the run may fail.
struct Json {
    name: &'static str,
    rows: usize,
    written: usize,
}

impl Json {
    fn new(name: &'static str, rows: usize) -> Json {
        Json { name, rows, written: 0 }
    }

    fn row(&mut self, out: &mut impl Write, row: &[f32]) -> io::Result<()> {
        match self.written {
            0 => write!(out, "{{\"shape\":[{},{}],\"{}\":[", self.rows, row.len(), self.name)?,
            _ => write!(out, ",")?,
        }
        self.written += 1;
        serde_json::to_writer(out, row).map_err(io::Error::from)
    }

    fn end(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "]}}")
    }
}
