//! Floor 6: `inlaid bench` of models with an encoder: many texts at once. Knows what a text costs, and how fast it went.

use super::{Bench, PEAK_MS, Spread, Work};
use crate::generate::rate;
use crate::interrupt;
use crate::output::{Bar, Failure, Unit, json, print};
use inlaid::arch::{Rows, Side};
use inlaid::beam::{self, BeamConfig, Prompt};
use inlaid::encode::{self, Ask, Text};
use inlaid::model::Model;
use inlaid::rules::{EarlyStopping, Rules};
use inlaid::session::batch::{self, Stepped};
use inlaid::session::{Session, SessionConfig};
use kernels::peak;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// What is printed; what a model has no part in is left out.
#[derive(Serialize)]
struct Figures {
    #[serde(skip_serializing_if = "Option::is_none")]
    sentences_per_s: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_s: Option<Spread>,
    texts: usize,
    tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    gen_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beams: Option<usize>,
    isa: &'static str,
    threads: usize,
    peak_flops_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    share_of_peak: Option<f64>,
}

/// What is measured.
struct Job<'a> {
    args: &'a Bench,
    model: &'a Arc<Model>,
    texts: Vec<Vec<u32>>,
    /// Tokens of each answer, where the model answers.
    answer: usize,
}

/// Measures the model, which has an encoder.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Bench, model: &Arc<Model>) -> Result<(), Failure> {
    let most = model.arch().max_positions;
    let fits = |name: &str, asked: Option<usize>, usual: usize, most: usize| match asked {
        Some(n) if n > most => {
            Err(Failure::Usage(format!("{name}: expected at most {most} here, found {n}")))
        }
        asked => Ok(asked.unwrap_or(usual.min(most))),
    };
    let tokens = fits("--tokens", args.tokens, 128, most)?;
    let answers = model.arch().decoder.is_some();
    let answer = if answers { fits("--gen-tokens", args.gen_tokens, 64, most.saturating_sub(1))? } else { 0 };
    let vocab = model.arch().side(Side::Encoder).map_or(1, |stack| stack.embed.vocab).max(1);
    let id = |i: usize| (i.wrapping_mul(7919) % vocab) as u32;
    let texts = (0..args.texts).map(|text| (0..tokens).map(|i| id(text * tokens + i)).collect());
    let job = Job { args, model, texts: texts.collect(), answer };
    let (mut bar, mut rates) = (Bar::new("measuring", Unit::Plain), Vec::new());
    // One round more, for caches and clocks to settle.
    for round in 0..=args.repeat {
        let time = if !answers {
            job.states()?
        } else if args.beams == 1 {
            job.greedy()?
        } else {
            job.search()?
        };
        bar.at(round as u64, args.repeat as u64);
        if round > 0 {
            rates.extend(rate((args.texts * answer.max(1)) as u64, time));
        }
    }
    drop(bar);
    let (rates, engine, work) = (Spread::of(rates), model.engine(), Work::of(model, &args.run));
    let peak_flops_per_s = peak::peak_flops(engine.team(), work.pack, PEAK_MS);
    let share = (!answers).then(|| work.text_flops(tokens) * rates.median / peak_flops_per_s);
    let (sentences_per_s, tokens_per_s) = if answers { (None, Some(rates)) } else { (Some(rates), None) };
    let figures = Figures {
        sentences_per_s,
        tokens_per_s,
        texts: args.texts,
        tokens,
        gen_tokens: answers.then_some(answer),
        beams: answers.then_some(args.beams),
        isa: engine.isa(),
        threads: engine.threads(),
        peak_flops_per_s,
        share_of_peak: share,
    };
    if args.json { json(&figures) } else { print(&table(&figures)) }
}

impl Job<'_> {
    /// Time of the mean states of all texts.
    fn states(&self) -> Result<Duration, Failure> {
        let texts: Vec<Text> = self.texts.iter().map(|ids| Text { ids, types: &[] }).collect();
        let (start, mut sum) = (Instant::now(), 0.0);
        let mut each = |_: usize, row: &[f32], _: usize| sum += row.first().copied().unwrap_or(0.0);
        let mut tell = |_, _| interrupt::flow();
        let ask = Ask::Pooled(Rows::Mean);
        encode::run(self.model, &texts, ask, &AtomicBool::new(false), &mut Some(&mut tell), &mut each)?;
        std::hint::black_box(sum);
        Ok(start.elapsed())
    }

    /// Time of reading all texts and answering them together, each time with the most likely token.
    fn greedy(&self) -> Result<Duration, Failure> {
        let (start, first) = (Instant::now(), self.first());
        let open = |ids: &Vec<u32>| -> Result<Session, Failure> {
            let mut session = self.args.run.session(self.model, self.answer + 1, SessionConfig::default())?;
            session.set_source(ids)?;
            session.prefill(&[first])?;
            Ok(session)
        };
        let mut sessions: Vec<Session> = self.texts.iter().map(open).collect::<Result<_, _>>()?;
        let mut out: Vec<Stepped> = sessions.iter().map(|_| Ok(None)).collect();
        let mut seats: Vec<&mut Session> = sessions.iter_mut().collect();
        for _ in 0..self.answer {
            batch::step(&mut seats, 0, &mut out)?;
            for out in &mut out {
                std::mem::replace(out, Ok(None))?;
            }
        }
        Ok(start.elapsed())
    }

    /// Time of reading all texts and searching for their answers together.
    fn search(&self) -> Result<Duration, Failure> {
        let (start, first) = (Instant::now(), [self.first()]);
        let prompts: Vec<Prompt> = self.texts.iter().map(|source| Prompt { source, ids: &first }).collect();
        // Nothing ends an answer early.
        let config = BeamConfig {
            beams: self.args.beams,
            max_tokens: self.answer,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Never,
            rules: Rules::default(),
        };
        let mut tell = |_, _| interrupt::flow();
        beam::search(self.model, &prompts, &config, &AtomicBool::new(false), &mut Some(&mut tell))?;
        Ok(start.elapsed())
    }

    /// What answers begin with.
    fn first(&self) -> u32 {
        self.model.first_token().unwrap_or(0)
    }
}

fn table(f: &Figures) -> String {
    let line = |name: &str, s: &Option<Spread>| {
        s.as_ref().map_or(String::new(), |s| {
            format!("{name:<24} {:>9.1}  ({:.1} to {:.1})\n", s.median, s.min, s.max)
        })
    };
    let answers = f
        .gen_tokens
        .zip(f.beams)
        .map_or(String::new(), |(n, beams)| format!(", answers of {n}, {beams} beams"));
    let share = f.share_of_peak.map_or(String::new(), |share| format!(" (reached {:.0} %)", share * 1e2));
    [
        format!(
            "{} kernels, {} threads, {} texts of {} tokens{answers}\n",
            f.isa, f.threads, f.texts, f.tokens
        ),
        line("sentences/s", &f.sentences_per_s),
        line("tokens/s", &f.tokens_per_s),
        format!("machine                  {:.1} GFLOP/s{share}\n", f.peak_flops_per_s / 1e9),
    ]
    .concat()
}
