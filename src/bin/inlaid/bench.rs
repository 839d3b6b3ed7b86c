//! Floor 6: `inlaid bench`. Knows how often a weight is read and multiplied, and what the machine can do at most.

use crate::args::{ModelArg, Run, at_least_one, files};
use crate::generate::rate;
use crate::machine;
use crate::output::{Bar, Failure, Unit, json, print};
use clap::Args;
use inlaid::arch::Out;
use inlaid::engine::Engine;
use inlaid::format::files::Files;
use inlaid::model::Model;
use inlaid::session::batch::{self, Stepped};
use inlaid::session::{Session, SessionConfig};
use kernels::DType;
use kernels::linear::Pack;
use kernels::peak;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[path = "bench_texts.rs"]
mod texts;

const AFTER: &str = "\
Prefill runs --prompt-tokens at once in an empty session; decode runs --gen-tokens one by one after a first one. With
--depth, both find so many tokens in the cache; with --sessions, so many sessions decode together.
Of models with an encoder, all --texts of --tokens each are read at once: sentences are pooled to their mean; a decoder
answers each in --gen-tokens tokens, and the time of reading counts.
The shares say how much of the machine's arithmetic prefill used and of its memory bandwidth decode used; both peaks are
measured in the same run. Figures of a busy machine mean little.

Examples:
  inlaid bench
  inlaid bench ./model --threads 2 --repeat 5 --json
  inlaid bench ./model --depth 4096 --sessions 8
  inlaid bench ./all-MiniLM-L6-v2 --texts 32 --tokens 128
  inlaid bench ./opus-mt-en-de --texts 8 --tokens 32 --gen-tokens 64 --beams 4";

/// How long each peak is measured.
const PEAK_MS: u64 = 500;
/// Memory that the bandwidth is measured on: many times what any cache holds.
const READ_BYTES: usize = 256 << 20;

/// Measure speed and memory
///
/// JSON: `load_ms`, `prefill_tokens_per_s`, `decode_tokens_per_s` (of all sessions together), each with `min`, `median` and
/// `max`; `depth` and `sessions` as asked for; `peak_rss_bytes`,
/// `private_bytes` (resident and not mapped from a file; before any tokenizer), `isa`, `read_bandwidth_bytes_per_s`,
/// `peak_flops_per_s` and the shares of them that were reached. What the system does not tell is null. Of a model with an
/// encoder: `sentences_per_s`, or `tokens_per_s` of all answers together, `texts`, `tokens`, `gen_tokens`, `beams`, `isa`,
/// `threads`, `peak_flops_per_s`, `share_of_peak`.
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct Bench {
    #[command(flatten)]
    model: ModelArg,
    /// Tokens of a prefill [default: 512, or what the model takes]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    prompt_tokens: Option<usize>,
    /// Tokens of a decode [default: 128, of an answer 64, or what the model takes]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    gen_tokens: Option<usize>,
    /// Tokens that the cache holds before what is measured
    #[arg(long, value_name = "N", default_value_t = 0)]
    depth: usize,
    /// Sessions that decode together, each --gen-tokens
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    sessions: usize,
    /// Texts that an encoder reads at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    texts: usize,
    /// Tokens of each of them [default: 128, or what the model takes]
    #[arg(long, value_name = "L", value_parser = at_least_one)]
    tokens: Option<usize>,
    /// Beams of an encoder-decoder's answers; 1: the most likely token each time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = beams)]
    beams: usize,
    /// Measurements of each
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = at_least_one)]
    repeat: usize,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: Run,
}

/// The middle of several measurements, and how far they are apart.
#[derive(Serialize)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or(0.0);
        let (last, half) = (values.len().saturating_sub(1), values.len() / 2);
        let median = if values.len() % 2 == 1 {
            at(half)
        } else {
            f64::midpoint(at(half.saturating_sub(1)), at(half))
        };
        Spread { min: at(0), median, max: at(last) }
    }
}

/// What is printed.
#[derive(Serialize)]
struct Figures {
    load_ms: Spread,
    load_with_tokenizer_ms: Spread,
    prefill_tokens_per_s: Spread,
    decode_tokens_per_s: Spread,
    prompt_tokens: usize,
    gen_tokens: usize,
    depth: usize,
    sessions: usize,
    peak_rss_bytes: Option<u64>,
    private_bytes: Option<u64>,
    isa: &'static str,
    threads: usize,
    read_bandwidth_bytes_per_s: f64,
    peak_flops_per_s: f64,
    decode_share_of_bandwidth: f64,
    prefill_share_of_peak: f64,
}

/// Runs the command.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Bench) -> Result<(), Failure> {
    let (engine, files) = (args.run.engine()?, files(&args.model.model)?);
    // The first load warms the page cache; what is left of the others is what the engine does.
    let model = args.run.open_on(&engine, &files, false)?;
    if model.arch().encoder.is_some() {
        return texts::run(args, &model);
    }
    let (prompt, gen_tokens) = sizes(args, &model)?;
    let load_ms = Spread::of(loads(args, &engine, &files, false)?);
    let mut sessions = sessions(args, &model, prompt.max(gen_tokens + 2))?;
    let ids = ids(&model, 0, args.depth + prompt);
    let (mut prefills, mut decodes) = (Vec::new(), Vec::new());
    let (mut bar, total) = (Bar::new("measuring", Unit::Plain), 2 * args.repeat as u64 + 1);
    // One round more, for caches and clocks to settle.
    for round in 0..=args.repeat {
        let times =
            [prefill(&mut sessions, &ids, args.depth)?, decode(&mut sessions, args.depth, gen_tokens)?];
        bar.at(2 * round as u64, total);
        if round > 0 {
            prefills.extend(rate(prompt as u64, times[0]));
            decodes.extend(rate((gen_tokens * args.sessions) as u64, times[1]));
        }
    }
    let memory = machine::memory();
    drop((bar, sessions));
    let load_with_tokenizer_ms = Spread::of(loads(args, &engine, &files, true)?);
    let work = Work::of(&model, &args.run);
    let peak_flops_per_s = peak::peak_flops(engine.team(), work.pack, PEAK_MS);
    let read_bandwidth_bytes_per_s = peak::read_bandwidth(engine.team(), READ_BYTES, PEAK_MS);
    let (prefill, decode) = (Spread::of(prefills), Spread::of(decodes));
    let figures = Figures {
        decode_share_of_bandwidth: work.decode_bytes(args, gen_tokens) * decode.median
            / read_bandwidth_bytes_per_s,
        prefill_share_of_peak: work.prefill_flops(prompt, args.depth) / prompt as f64 * prefill.median
            / peak_flops_per_s,
        load_ms,
        load_with_tokenizer_ms,
        prefill_tokens_per_s: prefill,
        decode_tokens_per_s: decode,
        prompt_tokens: prompt,
        gen_tokens,
        depth: args.depth,
        sessions: args.sessions,
        peak_rss_bytes: memory.peak,
        private_bytes: memory.private,
        isa: engine.isa(),
        threads: engine.threads(),
        read_bandwidth_bytes_per_s,
        peak_flops_per_s,
    };
    if args.json { json(&figures) } else { print(&table(&figures)) }
}

/// A number of beams.
fn beams(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=64).contains(n)).ok_or_else(|| "expected 1 to 64".to_owned())
}

/// Tokens of a prefill and of a decode.
fn sizes(args: &Bench, model: &Model) -> Result<(usize, usize), Failure> {
    let most = args.run.context.unwrap_or(usize::MAX).min(model.arch().max_positions);
    if args.depth > most.saturating_sub(3) {
        let (most, found) = (most.saturating_sub(3), args.depth);
        return Err(Failure::Usage(format!("--depth: expected at most {most} here, found {found}")));
    }
    let most = most - args.depth;
    let fits = |name, asked: Option<usize>, usual: usize, most: usize| match asked {
        Some(n) if n > most => {
            Err(Failure::Usage(format!("{name}: expected at most {most} here, found {n}")))
        }
        asked => Ok(asked.unwrap_or(usual.min(most))),
    };
    let prompt = fits("--prompt-tokens", args.prompt_tokens, 512, most)?;
    Ok((prompt, fits("--gen-tokens", args.gen_tokens, 128, most.saturating_sub(2))?))
}

/// Milliseconds of opening the model, several times.
fn loads(args: &Bench, engine: &Arc<Engine>, files: &Files, tokenizer: bool) -> Result<Vec<f64>, Failure> {
    let one = |_| {
        let start = Instant::now();
        let model = args.run.open_on(engine, files, tokenizer)?;
        let time = start.elapsed();
        drop(model);
        Ok(time.as_secs_f64() * 1e3)
    };
    (0..args.repeat).map(one).collect()
}

/// Tokens of session number `of`: each begins with another one, so that none finds its keys and values in another's cache.
fn ids(model: &Model, of: usize, n: usize) -> Vec<u32> {
    let vocab = model.arch().vocab();
    (0..n).map(|i| (i.wrapping_mul(7919).wrapping_add(of) % vocab) as u32).collect()
}

/// Sessions that hold the tokens of the depth, with room for `more`.
fn sessions(args: &Bench, model: &Arc<Model>, more: usize) -> Result<Vec<Session>, Failure> {
    let one = |of: usize| {
        let wanted = args.depth + more;
        let mut session = args.run.session(model, wanted, SessionConfig::default())?;
        if args.depth > 0 {
            session.prefill(&ids(model, of, args.depth))?;
        }
        Ok(session)
    };
    (0..args.sessions).map(one).collect()
}

fn prefill(sessions: &mut [Session], ids: &[u32], depth: usize) -> Result<Duration, Failure> {
    let Some(session) = sessions.first_mut() else { return Ok(Duration::ZERO) };
    session.rewind(depth);
    let start = Instant::now();
    session.prefill(&ids[depth..])?;
    Ok(start.elapsed())
}

fn decode(sessions: &mut [Session], depth: usize, n: usize) -> Result<Duration, Failure> {
    let mut out: Vec<Stepped> = sessions.iter().map(|_| Ok(None)).collect();
    let mut seats: Vec<&mut Session> = sessions.iter_mut().collect();
    for (of, session) in seats.iter_mut().enumerate() {
        session.rewind(depth);
        let vocab = session.model().arch().vocab();
        session.prefill(&[(of % vocab) as u32])?;
    }
    let mut step = || -> Result<(), Failure> {
        batch::step(&mut seats, 0, &mut out)?;
        out.iter_mut().try_for_each(|out| Ok(std::mem::replace(out, Ok(None)).map(|_| ())?))
    };
    step()?; // chooses after the first token, which has run
    let start = Instant::now();
    for _ in 0..n {
        step()?;
    }
    Ok(start.elapsed())
}

/// What a token costs.
struct Work {
    /// Elements of the matrices of all blocks.
    block: f64,
    /// Elements of the head.
    head: f64,
    /// Bytes of both.
    bytes: f64,
    /// Multiplications of attention for one pair of positions.
    pair: f64,
    /// Bytes of keys and values of one token.
    kv: f64,
    /// How the largest matrix is multiplied.
    pack: Pack,
}

impl Work {
    fn of(model: &Model, args: &Run) -> Work {
        let arch = model.arch();
        let matrices = || model.tensors().iter().filter(|(_, tensor)| tensor.shape().len() == 2);
        // A family without such a tensor leaves its name empty.
        let is = |name: &str, part: &str| !part.is_empty() && name.ends_with(&format!("{part}.weight"));
        let names = &arch.last().names;
        let aside = |name: &str| is(name, names.positions) || is(name, names.tokens);
        let head_name = match arch.head.out {
            Out::Linear(linear) => linear.name,
            Out::Tied(_) => names.tokens,
            Out::None => "",
        };
        let (mut block, mut head, mut bytes, mut most) = (0.0, 0.0, 0.0, (0, DType::F32));
        for (name, tensor) in matrices() {
            if is(name, head_name) {
                head += tensor.elements() as f64;
            } else if aside(name) {
                continue;
            } else {
                block += tensor.elements() as f64;
            }
            bytes += tensor.bytes().len() as f64;
            if tensor.elements() > most.0 {
                most = (tensor.elements(), tensor.dtype());
            }
        }
        let mut pack = Pack::of(most.1);
        if let Some([blocks, heads]) = args.bits() {
            (bytes, pack) = ((block * blocks + head * heads) / 8.0, Pack::Bytes);
        }
        let pair = 2.0 * (arch.last().n_layers * arch.last().q_cols()) as f64;
        Work { block, head, bytes, pair, kv: model.memory_plan().kv_bytes_per_token as f64, pack }
    }

    /// Operations of `n` tokens after `depth`: a multiplication and an addition each; the head runs once.
    fn prefill_flops(&self, n: usize, depth: usize) -> f64 {
        let (n, depth) = (n as f64, depth as f64);
        2.0 * (self.block * n + self.head + self.pair * n * (depth + (n + 1.0) / 2.0))
    }

    /// Operations of the states of a text of `n` tokens, all of which see all.
    fn text_flops(&self, n: usize) -> f64 {
        let n = n as f64;
        2.0 * (self.block * n + self.pair * n * n)
    }

    /// Bytes read for one token, on average over the first `n`: sessions share the reading of weights.
    fn decode_bytes(&self, args: &Bench, n: usize) -> f64 {
        self.bytes / args.sessions as f64 + self.kv * (args.depth as f64 + (n as f64 + 3.0) / 2.0)
    }
}

fn table(f: &Figures) -> String {
    let line =
        |name: &str, s: &Spread| format!("{name:<24} {:>9.1}  ({:.1} to {:.1})\n", s.median, s.min, s.max);
    let bytes = |n: Option<u64>| n.map_or("unknown".to_owned(), |n| indicatif::HumanBytes(n).to_string());
    [
        format!(
            "{} kernels, {} threads, prompt {}, generated {}, depth {}, {} sessions\n",
            f.isa, f.threads, f.prompt_tokens, f.gen_tokens, f.depth, f.sessions
        ),
        line("prefill, tokens/s", &f.prefill_tokens_per_s),
        line("decode, tokens/s", &f.decode_tokens_per_s),
        line("load, ms", &f.load_ms),
        line("load with tokenizer, ms", &f.load_with_tokenizer_ms),
        format!("private memory           {:>9}\n", bytes(f.private_bytes)),
        format!("peak resident memory     {:>9}\n", bytes(f.peak_rss_bytes)),
        format!(
            "machine                  {:.1} GFLOP/s (prefill reached {:.0} %), reads {:.1} GB/s (decode reached {:.0} %)\n",
            f.peak_flops_per_s / 1e9,
            f.prefill_share_of_peak * 1e2,
            f.read_bandwidth_bytes_per_s / 1e9,
            f.decode_share_of_bandwidth * 1e2,
        ),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        let odd = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }
}
