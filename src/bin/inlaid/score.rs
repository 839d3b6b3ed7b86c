//! Floor 6: `inlaid score`. Knows how likely texts are.

use crate::args::{ModelArg, Run, token_name};
use crate::output::{Failure, json, print, text_or_stdin};
use clap::Args;
use inlaid::task;
use serde_json::json;
use std::fmt::Write;

const AFTER: &str = "\
Examples:
  inlaid score demo --text \"It was a bright morning.\"
  inlaid score model.gguf --prompt \"The capital of France is\" --text \" Paris\" --json
  inlaid score ./t5 --prompt \"translate English to German: Good.\" --text \"Gut.\"";

/// Say how likely a text is, token by token
///
/// With --prompt: how likely it is after that, or of a model with an encoder as the answer to it. JSON: `ids`, `logprobs`
/// (natural), `total` (their sum), `tokens`.
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct Score {
    #[command(flatten)]
    model: ModelArg,
    /// The text; `-` reads standard input
    #[arg(long, value_name = "TEXT", required_unless_present = "ids", allow_hyphen_values = true)]
    text: Option<String>,
    /// What comes before it, and is not scored
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Token ids in place of the text, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "IDS", conflicts_with = "text")]
    ids: Vec<u32>,
    /// Token ids in place of the prompt
    #[arg(long, value_delimiter = ',', value_name = "IDS", conflicts_with = "prompt")]
    prompt_ids: Vec<u32>,
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
pub fn run(args: &Score) -> Result<(), Failure> {
    let model = args.run.open(&args.model.model)?;
    let seq2seq = model.arch().reads_source();
    let before = match &args.prompt {
        Some(text) => model.tokenizer()?.encode(&text_or_stdin(text)?, true, true)?,
        None => args.prompt_ids.clone(),
    };
    let ids = match &args.text {
        // What begins a text belongs to the prompt, where there is one; what ends one belongs to an answer.
        Some(text) => model.tokenizer()?.encode(&text_or_stdin(text)?, before.is_empty() || seq2seq, true)?,
        None => args.ids.clone(),
    };
    let found = task::score(&model, &before, &ids)?;
    if args.json {
        let tokens = found.ids.len();
        return json(
            &json!({"ids": found.ids, "logprobs": found.logprobs, "total": found.total, "tokens": tokens}),
        );
    }
    let mut out = String::new();
    for (id, logprob) in found.ids.iter().zip(&found.logprobs) {
        let name = token_name(&model, *id).unwrap_or_default();
        let _ = writeln!(out, "{id:>7}  {:<20} {logprob:.4}", name.escape_debug()); // a String takes everything
    }
    let _ = writeln!(out, "total {:.4} over {} tokens", found.total, found.ids.len());
    print(&out)
}
