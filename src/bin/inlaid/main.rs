//! Floor 6: the command line, a client of the library like any other. Knows its public API only.
//!
//! Data goes to standard output, everything else to standard error. Exit status: 0 done (also where the reader of the
//! output went away), 1 failed, with one line that says why, 2 bad usage.

mod adapter;
mod args;
mod attention;
mod beams;
mod bench;
mod chat;
mod convert;
mod demo;
mod generate;
mod info;
mod interrupt;
mod logits;
mod machine;
mod output;
mod perplexity;
mod score;
mod texts;
mod tokenize;
mod train;

use clap::{Parser, Subcommand};
use output::Failure;
use std::process::ExitCode;

const AFTER: &str = "\
MODEL is a Hugging Face directory, a .safetensors file with its config.json beside it, a .gguf file, or `demo`, the \
small model that is part of this program.

Examples:
  inlaid generate --prompt \"It was a bright morning, and\"
  inlaid chat ./SmolLM2-135M-Instruct
  inlaid info model.gguf --json
  inlaid convert model.gguf ./model --to bf16";

/// Runs language models: text, chat, logits, conversion and measurements.
#[derive(Parser)]
#[command(name = "inlaid", version, about, after_help = AFTER, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Info(info::Info),
    #[command(visible_alias = "translate")]
    Generate(generate::Generate),
    Chat(chat::Chat),
    Logits(logits::Logits),
    Hidden(logits::Hidden),
    Embed(texts::Embed),
    Classify(texts::Classify),
    Fill(texts::Fill),
    Tag(texts::Tag),
    Answer(texts::Answer),
    Score(score::Score),
    Attention(attention::Attention),
    Tokenize(tokenize::Tokenize),
    Perplexity(perplexity::Perplexity),
    Convert(convert::Convert),
    Adapter(adapter::Adapter),
    Bench(bench::Bench),
    Train(train::Train),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Info(args) => info::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Logits(args) => logits::run(&args),
        Command::Hidden(args) => logits::hidden(&args),
        Command::Embed(args) => texts::embed(&args),
        Command::Classify(args) => texts::classify(&args),
        Command::Fill(args) => texts::fill(&args),
        Command::Tag(args) => texts::tag(&args),
        Command::Answer(args) => texts::answer(&args),
        Command::Score(args) => score::run(&args),
        Command::Attention(args) => attention::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Adapter(args) => adapter::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Train(args) => train::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    let code = match failure {
        // The reader has what it wanted.
        Failure::Output(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        Failure::Usage(_) => 2,
        _ => 1,
    };
    output::note(&format!("inlaid: {}", failure.to_string().replace(['\n', '\r'], " ")));
    ExitCode::from(code)
}
