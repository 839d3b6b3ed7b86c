//! Floor 6: the commands that read whole texts: `embed`, `classify`, `fill`, `tag`, `answer`. Knows tasks and how they are
//! printed.

use crate::args::{Run, at_least_one};
use crate::interrupt;
use crate::output::{Bar, Failure, Unit, json, print, read_text};
use clap::{Args, ValueEnum};
use inlaid::arch::Rows;
use inlaid::model::Model;
use inlaid::task::{self, Call, EmbedConfig, Input};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// Which texts, and how they are read.
#[derive(Args)]
pub struct Texts {
    /// Directory, .safetensors file with its config beside it, or .gguf file
    model: PathBuf,
    /// The texts
    #[arg(value_name = "TEXT", required_unless_present = "file")]
    texts: Vec<String>,
    /// Texts from a file, one per line; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    file: Option<PathBuf>,
    /// What belongs to each text: the second sentence of a pair, or where an answer stands
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    second: Option<String>,
    /// Cut texts that are longer than the model takes; without, they are an error
    #[arg(long)]
    truncate: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: Run,
}

impl Texts {
    fn read(&self) -> Result<Vec<String>, Failure> {
        let Some(file) = &self.file else { return Ok(self.texts.clone()) };
        let lines: Vec<String> = read_text(file)?.lines().map(str::to_owned).collect();
        if lines.is_empty() {
            return Err(Failure::Cannot(format!("{}: expected at least one line of text", file.display())));
        }
        Ok(lines)
    }

    /// Opens the model and does `what` with all texts, behind a progress bar.
    fn with<T>(
        &self,
        what: impl FnOnce(&Arc<Model>, &[Input], Call) -> inlaid::Result<T>,
    ) -> Result<(Vec<String>, T), Failure> {
        interrupt::install(|| {});
        let texts = self.read()?;
        let model = self.run.open(&self.model)?;
        let second = self.second.as_deref();
        let inputs: Vec<Input> = texts.iter().map(|text| Input { text, second }).collect();
        let mut bar = Bar::new("reading", Unit::Plain);
        let mut tell = |done, total| {
            bar.at(done, total);
            interrupt::flow()
        };
        let call = Call { truncate: self.truncate, cancel: None, progress: Some(&mut tell) };
        let done = what(&model, &inputs, call)?;
        Ok((texts, done))
    }
}

/// Which states make a text's vector.
#[derive(Clone, Copy, ValueEnum)]
enum Pooling {
    /// The mean of all tokens' states
    Mean,
    /// The first token's
    First,
    /// The last token's
    Last,
}

const EMBED: &str = "\
Examples:
  inlaid embed ./all-MiniLM-L6-v2 \"A man is eating food.\" \"A man is eating bread.\" --similarity
  inlaid embed ./all-MiniLM-L6-v2 --file lines.txt --json";

/// Turn texts into vectors
///
/// Prints one vector per text, or with --similarity the cosine of every two. JSON: `dim`, `embeddings` (one list per
/// text), and `similarity` where asked for.
#[derive(Args)]
#[command(after_help = EMBED)]
pub struct Embed {
    #[command(flatten)]
    texts: Texts,
    /// Which states make the vector [default: as the model's files say, else mean; last for decoders]
    #[arg(long, value_name = "WHICH")]
    pooling: Option<Pooling>,
    /// Divide vectors by their length [default: as the model's files say, else no]
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    normalize: Option<bool>,
    /// Print the cosine of every two texts
    #[arg(long)]
    similarity: bool,
}

/// Runs `inlaid embed`.
///
/// # Errors
/// Why it could not.
pub fn embed(args: &Embed) -> Result<(), Failure> {
    let rows = args.pooling.map(|pooling| match pooling {
        Pooling::Mean => Rows::Mean,
        Pooling::First => Rows::First,
        Pooling::Last => Rows::Last,
    });
    let config = EmbedConfig { rows, normalize: args.normalize };
    let (_, found) = args.texts.with(|model, inputs, call| task::embed(model, inputs, &config, call))?;
    let rows: Vec<&[f32]> = found.values.chunks_exact(found.dim.max(1)).collect();
    let similarity: Vec<Vec<f64>> =
        rows.iter().map(|a| rows.iter().map(|b| cosine(a, b)).collect()).collect();
    if args.texts.json {
        let mut object = json!({"dim": found.dim, "embeddings": rows});
        if args.similarity {
            object["similarity"] = json!(similarity);
        }
        return json(&object);
    }
    let mut out = String::new();
    let mut line = |numbers: &mut dyn Iterator<Item = f64>| {
        let words: Vec<String> = numbers.map(|x| format!("{x:.4}")).collect();
        let _ = writeln!(out, "{}", words.join(" ")); // a String takes everything
    };
    if args.similarity {
        similarity.iter().for_each(|row| line(&mut row.iter().copied()));
    } else {
        rows.iter().for_each(|row| line(&mut row.iter().map(|x| f64::from(*x))));
    }
    print(&out)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}

const CLASSIFY: &str = "\
Examples:
  inlaid classify ./sentiment \"I liked it.\" \"Never again.\"
  inlaid classify ./nli \"A man eats.\" --second \"Somebody eats.\" --json";

/// Say what kind of text each text is
///
/// Prints the classes of each text, most likely first. JSON: `texts`, one list of {`label`, `id`, `logit`, `probability`}
/// per text.
#[derive(Args)]
#[command(after_help = CLASSIFY)]
pub struct Classify {
    #[command(flatten)]
    texts: Texts,
    /// Only the N most likely classes
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    top: Option<usize>,
}

/// Runs `inlaid classify`.
///
/// # Errors
/// Why it could not.
pub fn classify(args: &Classify) -> Result<(), Failure> {
    let (texts, mut found) = args.texts.with(|model, inputs, call| task::classify(model, inputs, call))?;
    found.iter_mut().for_each(|classes| classes.truncate(args.top.unwrap_or(usize::MAX)));
    if args.texts.json {
        let class = |c: &task::Class| json!({"label": c.label, "id": c.id, "logit": c.logit, "probability": c.probability});
        let all: Vec<Vec<Value>> = found.iter().map(|classes| classes.iter().map(class).collect()).collect();
        return json(&json!({"texts": all}));
    }
    let mut out = String::new();
    for (text, classes) in texts.iter().zip(&found) {
        let _ = writeln!(out, "{text}");
        for c in classes {
            let _ = writeln!(out, "  {:<24} {:.4}  (logit {:.4})", c.label, c.probability, c.logit);
        }
    }
    print(&out)
}

const FILL: &str = "\
Examples:
  inlaid fill ./bert-base-uncased \"The capital of France is [MASK].\" --top 3";

/// Guess the hidden tokens of texts
///
/// Prints the most likely tokens for each mask. JSON: `texts`, for each text a list per mask of {`id`, `text`,
/// `probability`}.
#[derive(Args)]
#[command(after_help = FILL)]
pub struct Fill {
    #[command(flatten)]
    texts: Texts,
    /// How many guesses for each mask
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = at_least_one)]
    top: usize,
}

/// Runs `inlaid fill`.
///
/// # Errors
/// Why it could not.
pub fn fill(args: &Fill) -> Result<(), Failure> {
    let (texts, found) = args.texts.with(|model, inputs, call| task::fill(model, inputs, args.top, call))?;
    let guess = |f: &task::Filled| json!({"id": f.id, "text": f.text, "probability": f.probability});
    if args.texts.json {
        let masks = |masks: &Vec<Vec<task::Filled>>| -> Vec<Vec<Value>> {
            masks.iter().map(|mask| mask.iter().map(guess).collect()).collect()
        };
        return json(&json!({"texts": found.iter().map(masks).collect::<Vec<_>>()}));
    }
    let mut out = String::new();
    for (text, masks) in texts.iter().zip(&found) {
        let _ = writeln!(out, "{text}");
        for guesses in masks {
            let words: Vec<String> =
                guesses.iter().map(|f| format!("{} {:.4}", f.text, f.probability)).collect();
            let _ = writeln!(out, "  {}", words.join("  "));
        }
    }
    print(&out)
}

const TAG: &str = "\
Examples:
  inlaid tag ./ner \"Jane lives in Bath.\" --json";

/// Say what kind of token each token of the texts is
///
/// Prints each token with where it stands. JSON: `texts`, one list of {`id`, `text`, `start`, `end` (characters), `label`,
/// `probability`} per text.
#[derive(Args)]
#[command(after_help = TAG)]
pub struct Tag {
    #[command(flatten)]
    texts: Texts,
}

/// Runs `inlaid tag`.
///
/// # Errors
/// Why it could not.
pub fn tag(args: &Tag) -> Result<(), Failure> {
    let (texts, found) = args.texts.with(|model, inputs, call| task::tag(model, inputs, call))?;
    if args.texts.json {
        let object = |t: &task::Tag| {
            let (start, end) = t.span;
            json!({"id": t.id, "text": t.text, "start": start, "end": end, "second": t.second,
                "label": t.label, "probability": t.probability})
        };
        let all: Vec<Vec<Value>> = found.iter().map(|tags| tags.iter().map(object).collect()).collect();
        return json(&json!({"texts": all}));
    }
    let mut out = String::new();
    for (text, tags) in texts.iter().zip(&found) {
        let _ = writeln!(out, "{text}");
        for t in tags {
            let (start, end) = t.span;
            let _ =
                writeln!(out, "  {start:>5}..{end:<5} {:<20} {:<16} {:.4}", t.text, t.label, t.probability);
        }
    }
    print(&out)
}

const ANSWER: &str = "\
Examples:
  inlaid answer ./squad \"Who lives in Bath?\" --second \"Jane lives in Bath, and her sister too.\"";

/// Find answers to questions in a text
///
/// The questions are the texts; --second is the text that the answers stand in. JSON: `texts`, for each question
/// {`text`, `start`, `end` (characters), `probability`}, or null.
#[derive(Args)]
#[command(after_help = ANSWER)]
pub struct Answer {
    #[command(flatten)]
    texts: Texts,
}

/// Runs `inlaid answer`.
///
/// # Errors
/// Why it could not.
pub fn answer(args: &Answer) -> Result<(), Failure> {
    if args.texts.second.is_none() {
        return Err(Failure::Usage("--second: the text that answers stand in is missing".to_owned()));
    }
    let (texts, found) = args.texts.with(|model, inputs, call| task::answer(model, inputs, call))?;
    if args.texts.json {
        let object = |a: &Option<task::Answer>| {
            a.as_ref().map(|a| {
                let (start, end) = a.span;
                json!({"text": a.text, "start": start, "end": end, "probability": a.probability})
            })
        };
        return json(&json!({"texts": found.iter().map(object).collect::<Vec<_>>()}));
    }
    let mut out = String::new();
    for (text, answer) in texts.iter().zip(&found) {
        let shown = answer.as_ref().map_or("-".to_owned(), |a| format!("{}  ({:.4})", a.text, a.probability));
        let _ = writeln!(out, "{text}\n  {shown}");
    }
    print(&out)
}
