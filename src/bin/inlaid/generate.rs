//! Floor 6: `inlaid generate`. Knows sessions, text and how long things took.

use crate::args::{Guessing, ModelArg, Run, Sampling, guesses, suggested, token_name};
use crate::beams::Searching;
use crate::interrupt::{self, Cancels};
use crate::output::{Failure, json, note, print, text_or_stdin};
use clap::Args;
use inlaid::Error;
use inlaid::chat::{RenderOptions, message};
use inlaid::generate::{Finish, GenerateConfig, Generated, generate};
use inlaid::model::Model;
use inlaid::sample::top_logprobs;
use inlaid::session::{Session, SessionConfig, Timings};
use serde_json::{Value, json};
use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

const AFTER: &str = "\
Examples:
  inlaid generate --prompt \"It was a bright morning, and\"
  inlaid generate model.gguf --chat --prompt \"Name three rivers.\" --temperature 0.7 --seed 1
  inlaid generate ./model --ids 504,3575,282 --max-tokens 16 --json
  inlaid generate ./model --draft ./small-model --prompt \"Once\" --max-tokens 100
  inlaid generate ./t5 --prompt \"translate English to German: That is good.\" --beams 4
  inlaid generate --prompt - --stop \"The end\" < story.txt

Ctrl-C ends the text; what was written stays, and the exit status is 0.";

/// Continue a prompt
///
/// Prints the new text as it is made (on a terminal after the prompt), and statistics on standard error. Without a prompt
/// the model begins a text. JSON: `prompt_ids`, `ids` of the new tokens (a closing end token included), `text`, `finish`,
/// `prefill_tokens_per_s`, `decode_tokens_per_s`, `drafted_tokens` (guessed ahead) and `accepted_tokens` (guessed right), and
/// `logprobs` where asked for.
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct Generate {
    #[command(flatten)]
    model: ModelArg,
    /// The text to continue; `-` reads standard input
    #[arg(long, short, value_name = "TEXT", conflicts_with = "ids", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// The token ids to continue, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    ids: Vec<u32>,
    /// The prompt is what a user says: apply the model's chat template
    #[arg(long, requires = "prompt")]
    chat: bool,
    /// With --chat: what the system says before
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true)]
    system: Option<String>,
    /// Most tokens to choose
    #[arg(long, short = 'n', value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// Text that ends the answer, and is not part of it; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true,
        value_parser = clap::builder::NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Go on after the model's own end tokens
    #[arg(long)]
    ignore_eos: bool,
    /// Log-probabilities of the N most likely tokens at every new position, with --json
    #[arg(long, value_name = "N", requires = "json")]
    logprobs: Option<usize>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    searching: Searching,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    guessing: Guessing,
    #[command(flatten)]
    run: Run,
}

/// Runs the command.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Generate) -> Result<(), Failure> {
    interrupt::install(|| {});
    let model = args.run.open(&args.model.model)?;
    let prompt = prompt(args, &model)?;
    let (source, first) = args.searching.split(&model, &prompt)?;
    if args.searching.beams(&model) > 1 {
        let ends = !args.ignore_eos;
        let answers = args.searching.search(&model, source, &first, args.max_tokens, ends)?;
        return args.searching.show(&model, &prompt, &answers, args.json);
    }
    let wanted = first.len().saturating_add(args.max_tokens);
    let sampler = args.sampling.over(suggested(&model).unwrap_or_default());
    let speculation = args.guessing.speculation(&args.run, &model)?;
    let rules = args.searching.rules(&model)?;
    let config = SessionConfig { sampler, speculation, rules, ..SessionConfig::default() };
    let mut session = args.run.session(&model, wanted, config)?;
    let _cancels = Cancels::new(session.cancel());
    if !args.json && io::stdout().is_terminal() {
        print(args.prompt.as_deref().filter(|text| *text != "-" && !args.chat).unwrap_or_default())?;
    }
    let start = Instant::now();
    if model.arch().reads_source() {
        session.set_source(source)?;
    }
    session.prefill(&first)?;
    let prefill = start.elapsed();
    let answer = answer(args, &model, &mut session)?;
    let (times, all) = (session.timings(), start.elapsed());
    let decoded = times.decode_tokens.saturating_sub(u64::from(first.len() == 1));
    let rates = [rate(prompt.len() as u64, prefill), rate(decoded, all.saturating_sub(prefill))];
    if args.json {
        let mut object = json!({
            "prompt_ids": prompt,
            "ids": answer.ids,
            "text": model.tokenizer().is_ok().then_some(&answer.text),
            "finish": finish(answer.finish),
            "prefill_tokens_per_s": rates[0],
            "decode_tokens_per_s": rates[1],
            "drafted_tokens": times.drafted_tokens,
            "accepted_tokens": times.accepted_tokens,
        });
        if let (Some(n), Some(object)) = (args.logprobs, object.as_object_mut()) {
            object.insert("logprobs".into(), logprobs(&model, &mut session, first.len(), n)?);
        }
        return json(&object);
    }
    if !answer.text.ends_with('\n') {
        print("\n")?;
    }
    let shown = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.1}"));
    note(&format!(
        "{} + {} tokens, {}; prefill {} tokens/s, decode {} tokens/s{}, load {} ms",
        prompt.len(),
        answer.ids.len(),
        finish(answer.finish),
        shown(rates[0]),
        shown(rates[1]),
        guesses(Timings::default(), times),
        (model.load_times().weights + model.load_times().tokenizer).as_millis(),
    ));
    Ok(())
}

/// The ids to continue.
fn prompt(args: &Generate, model: &Model) -> Result<Vec<u32>, Failure> {
    if !args.ids.is_empty() {
        return Ok(args.ids.clone());
    }
    let text = text_or_stdin(args.prompt.as_deref().unwrap_or_default())?;
    let ids = if args.chat {
        let system = args.system.as_deref().map(|text| message("system", text));
        let messages: Value = system.into_iter().chain([message("user", &text)]).collect();
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        // The template writes the BOS itself where the model wants one.
        model.tokenizer()?.encode(&model.template()?.render(&messages, &options)?, false, true)?
    } else {
        model.tokenizer()?.encode(&text, true, true)?
    };
    if !ids.is_empty() {
        return Ok(ids);
    }
    let first = model.tokenizer()?.bos().or(model.generation().bos_token_id);
    let none =
        || Failure::Usage("the prompt is empty, and this model has no token that begins a text".to_owned());
    Ok(vec![first.ok_or_else(none)?])
}

/// Chooses tokens, and prints their text as it comes unless the answer will be JSON.
fn answer(args: &Generate, model: &Model, session: &mut Session) -> Result<Generated, Failure> {
    let config = GenerateConfig {
        max_tokens: args.max_tokens,
        stop: args.stop.clone(),
        ignore_end: args.ignore_eos,
        ..GenerateConfig::default()
    };
    if model.tokenizer().is_err() {
        if !args.stop.is_empty() {
            return Err(Failure::Usage(
                "--stop: this model has no tokenizer, so there is no text".to_owned(),
            ));
        }
        return ids_only(args, model, session);
    }
    let mut printed = Ok(());
    let answer = generate(session, &config, |_, text| {
        if !args.json && !text.is_empty() {
            printed = print(text);
        }
        if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    printed.map(|()| answer)
}

/// The same for a model without a tokenizer: ids in place of text.
fn ids_only(args: &Generate, model: &Model, session: &mut Session) -> Result<Generated, Failure> {
    let mut out = Generated { ids: Vec::new(), text: String::new(), finish: Finish::Length };
    while out.ids.len() < args.max_tokens {
        let id = match session.step() {
            Ok(id) => id,
            Err(Error::Cancelled) => {
                out.finish = Finish::Cancelled;
                break;
            }
            Err(Error::ContextFull { .. }) => {
                out.finish = Finish::Context;
                break;
            }
            Err(e) => return Err(e.into()),
        };
        if !args.json {
            print(&format!("{}{id}", if out.ids.is_empty() { "" } else { "," }))?;
        }
        out.ids.push(id);
        if model.is_end(id) && !args.ignore_eos {
            out.finish = Finish::End;
            break;
        }
    }
    Ok(out)
}

/// The most likely tokens at every new position. The prompt's logits were not kept, so they are computed again: they
/// have the same bits.
fn logprobs(model: &Model, session: &mut Session, prompt: usize, n: usize) -> Result<Value, Failure> {
    let ids = session.tokens().to_vec();
    let (first, last) = (prompt.saturating_sub(1), ids.len().saturating_sub(1));
    let mut rows = Vec::new();
    session.rewind(first);
    let mut chosen = ids.iter().skip(prompt).copied();
    session.prefill_all(ids.get(first..last).unwrap_or_default(), |logits| {
        let entry = |(id, logprob)| json!({"id": id, "token": token_name(model, id), "logprob": logprob});
        let id = chosen.next().unwrap_or_default();
        let mut row = entry((id, inlaid::sample::logprob(logits, id)));
        row["top"] = top_logprobs(logits, n).into_iter().map(entry).collect();
        rows.push(row);
    })?;
    Ok(rows.into())
}

/// Tokens per second; `None` where there is nothing to divide.
pub fn rate(tokens: u64, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}

/// Why an answer ended, in one word.
pub fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "length",
        Finish::End => "end",
        Finish::Stop => "stop",
        Finish::Callback => "callback",
        Finish::Cancelled => "cancelled",
        Finish::Context => "context",
    }
}
