//! Floor 6: `inlaid perplexity`. Knows sessions and the sliding window.

use crate::args::{Run, at_least_one};
use crate::output::{Bar, Failure, Unit, json, print, read_text};
use clap::Args;
use inlaid::session::{Session, SessionConfig};
use serde_json::json;
use std::path::PathBuf;

const AFTER: &str = "\
A text that fits the context is one window: every token after the first counts, with all before it as its past. A
longer one is cut into windows that begin --stride tokens apart; each token counts once, in the first window that has it.

Examples:
  inlaid perplexity demo story.txt
  inlaid perplexity model.gguf story.txt --context 1024 --stride 512 --json";

/// Tokens scored between two looks at the progress bar.
const PIECE: usize = 512;

/// Measure how well a model predicts a text
///
/// JSON: `tokens` that count, `nll` (their negative log-likelihoods summed, natural logs), `perplexity` = exp(nll / tokens).
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct Perplexity {
    /// Directory, .safetensors file with its config beside it, .gguf file, or `demo`
    model: PathBuf,
    /// The text, UTF-8; `-` reads standard input
    file: PathBuf,
    /// Tokens from one window's beginning to the next's [default: the context]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    stride: Option<usize>,
    /// Only the first N tokens of the text
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_tokens: Option<usize>,
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
pub fn run(args: &Perplexity) -> Result<(), Failure> {
    let text = read_text(&args.file)?;
    let model = args.run.open(&args.model)?;
    let mut ids = model.tokenizer()?.encode(&text, true, true)?;
    ids.truncate(args.max_tokens.unwrap_or(usize::MAX));
    let mut session = args.run.session(&model, ids.len(), SessionConfig::default())?;
    let context = session.context();
    let stride = args.stride.unwrap_or(context);
    if stride > context {
        return Err(Failure::Usage(format!(
            "--stride: expected at most the context of {context}, found {stride}"
        )));
    }
    let scored = score(&mut session, &ids, stride)?;
    if scored.tokens == 0 {
        let what =
            format!("{}: expected at least 2 tokens of text, found {}", args.file.display(), ids.len());
        return Err(Failure::Cannot(what));
    }
    let perplexity = (scored.nll / scored.tokens as f64).exp();
    if args.json {
        let (tokens, nll) = (scored.tokens, scored.nll);
        return json(
            &json!({"tokens": tokens, "nll": nll, "perplexity": perplexity, "context": context, "stride": stride}),
        );
    }
    print(&format!("perplexity {perplexity:.4} ({} tokens, nll {:.3})\n", scored.tokens, scored.nll))
}

struct Scored {
    tokens: usize,
    nll: f64,
}

/// Scores `ids` in windows of the session's context. The `begin`s are those of the sliding-window method in the manual of
/// transformers; what a token is worth is summed here exactly, where that text averages over windows.
fn score(session: &mut Session, ids: &[u32], stride: usize) -> Result<Scored, Failure> {
    let (mut bar, mut out) = (Bar::new("scoring", Unit::Plain), Scored { tokens: 0, nll: 0.0 });
    let (mut begin, mut counted) = (0, 0);
    while counted < ids.len() {
        let end = (begin + session.context()).min(ids.len());
        session.rewind(0);
        // Tokens whose log-probability comes next: a window's first has no past.
        let mut at = begin + 1;
        for piece in ids.get(begin..end).unwrap_or_default().chunks(PIECE) {
            for logprob in session.score(piece)? {
                if at >= counted {
                    out.nll -= f64::from(logprob);
                    out.tokens += 1;
                }
                at += 1;
            }
            bar.at(at.max(counted) as u64, ids.len() as u64);
        }
        counted = end;
        begin += stride;
    }
    Ok(out)
}
