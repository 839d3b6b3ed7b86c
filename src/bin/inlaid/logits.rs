//! Floor 6: `inlaid logits`. Knows sessions and no text beyond the names of tokens.

use crate::args::{ModelArg, Run};
use crate::output::Failure;
use clap::Args;
use inlaid::sample::{SamplerConfig, top_logprobs};
use inlaid::session::{Session, Speculation};
use std::io::{self, BufWriter, Write};

const AFTER: &str = "\
Examples:
  inlaid logits demo --ids 1,2,3 --json
  inlaid logits model.gguf --ids 504,3575,282";

/// Print the logits after every token
///
/// Prints the five most likely next tokens of every position. JSON: `shape` (positions, vocabulary) and `logits`, one
/// row per position; a logit that is not finite is null.
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct Logits {
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

/// Runs the command.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Logits) -> Result<(), Failure> {
    let engine = args.run.engine()?;
    let model = args.run.open_on(&engine, &crate::args::files(&args.model.model)?, !args.json)?;
    let mut session =
        args.run.session(&model, args.ids.len(), SamplerConfig::default(), Speculation::None)?;
    let vocab = model.arch().vocab();
    let mut out = BufWriter::new(io::stdout().lock());
    if !args.json {
        let name =
            |id| model.tokenizer().ok().and_then(|tokenizer| tokenizer.id_to_token(id)).unwrap_or_default();
        each_row(&mut session, &args.ids, |at, row| {
            let id = args.ids.get(at).copied().unwrap_or_default();
            write!(out, "{at:>5} {id:>7} {:?} ->", name(id))?;
            for (id, logprob) in top_logprobs(row, 5) {
                write!(out, "  {id} {:?} {logprob:.3}", name(id))?;
            }
            writeln!(out)
        })?;
        return Ok(out.flush()?);
    }
    each_row(&mut session, &args.ids, |at, row| {
        // The head is written with the first row: until then the run may fail.
        let before = if at == 0 {
            format!("{{\"shape\":[{},{vocab}],\"logits\":[", args.ids.len())
        } else {
            ",".into()
        };
        out.write_all(before.as_bytes())?;
        serde_json::to_writer(&mut out, row).map_err(io::Error::from)
    })?;
    writeln!(out, "]}}")?;
    Ok(out.flush()?)
}

/// Hands `each` the position and logits of every token, until it fails.
fn each_row(
    session: &mut Session,
    ids: &[u32],
    mut each: impl FnMut(usize, &[f32]) -> io::Result<()>,
) -> Result<(), Failure> {
    let (mut at, mut wrote) = (0, Ok(()));
    session.prefill_all(ids, |row| {
        if wrote.is_ok() {
            wrote = each(at, row);
        }
        at += 1;
    })?;
    Ok(wrote?)
}
