//! Floor 6: `inlaid tokenize`. Knows the tokenizer and no weights.

use crate::args::files;
use crate::output::{Failure, json, print, text_or_stdin};
use clap::Args;
use inlaid::tokenizer::Tokenizer;
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;

const AFTER: &str = "\
Examples:
  inlaid tokenize demo \"Once upon a time\"
  inlaid tokenize model.gguf --json - < story.txt";

/// Turn text into token ids
///
/// Prints one line per token: its id and its name in the vocabulary. JSON: `ids`.
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct Tokenize {
    /// Directory, .safetensors file with its tokenizer beside it, .gguf file, or `demo`
    model: PathBuf,
    /// The text; `-` reads standard input
    #[arg(allow_hyphen_values = true)]
    text: String,
    /// Leave out the tokens that the model wants around a text
    #[arg(long)]
    bare: bool,
    /// Read the names of special tokens as plain text
    #[arg(long)]
    plain: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Tokenize) -> Result<(), Failure> {
    let files = files(&args.model)?;
    let none = || Failure::Cannot(format!("{} has no tokenizer", files.name()));
    let tokenizer = Tokenizer::open(&files)?.ok_or_else(none)?;
    let ids = tokenizer.encode(&text_or_stdin(&args.text)?, !args.bare, !args.plain)?;
    if args.json {
        return json(&json!({"ids": ids}));
    }
    let mut lines = String::new();
    for id in ids {
        let name = tokenizer.id_to_token(id).unwrap_or_default();
        let _ = writeln!(lines, "{id:>7}  {}", name.escape_debug()); // a String takes everything
    }
    print(&lines)
}
