//! Floor 6: options that several commands share, and opening a model as they say. Knows no command.

use crate::adapter::Adapters;
use crate::demo;
use crate::interrupt;
use crate::output::{Bar, Failure, Unit, note};
use clap::{Args, ValueEnum};
use inlaid::adapter::Adapter;
use inlaid::engine::{Engine, EngineConfig};
use inlaid::format::files::Files;
use inlaid::model::{Model, ModelConfig};
use inlaid::pack::Hold;
use inlaid::sample::SamplerConfig;
use inlaid::session::{Session, SessionConfig, Speculation, Timings};
use kernels::Isa;
use kernels::attention::Cache;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files that MODEL means.
///
/// # Errors
/// As [`Files::at`].
pub fn files(model: &Path) -> Result<Files, Failure> {
    Ok(if model == Path::new(demo::NAME) { demo::files()? } else { Files::at(model)? })
}

/// MODEL, where it may be left out.
#[derive(Args)]
pub struct ModelArg {
    /// Directory, .safetensors file with its config beside it, .gguf file, or `demo`
    #[arg(value_name = "MODEL", default_value = demo::NAME)]
    pub model: PathBuf,
}

/// Types of cached keys and values.
#[derive(Clone, Copy, ValueEnum)]
enum Kv {
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
    /// The upper halves of 32-bit floats
    Bf16,
    /// 8 bits, and a scale for each position of a head
    Q8,
}

impl Kv {
    /// The kernels' name for it.
    fn cache(self) -> Cache {
        match self {
            Kv::F32 => Cache::F32,
            Kv::F16 => Cache::F16,
            Kv::Bf16 => Cache::BF16,
            Kv::Q8 => Cache::Q8,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Instructions {
    /// Plain code
    Scalar,
    /// AVX2 with FMA and F16C
    Avx2,
    /// AVX-512
    Avx512,
}

/// How weights are held.
#[derive(Clone, Copy, ValueEnum)]
enum Weights {
    /// Quantised ones packed, and all of a model with an encoder or one that learns; the rest mapped
    Auto,
    /// Where they lie in their file, without a copy
    Mapped,
    /// Interleaved in memory, in the type they have
    Packed,
    /// Packed in 8 bits
    Q8,
    /// Packed in 4 bits, the head and tables of tokens in 6
    Q4,
}

/// Numbers of processors.
#[derive(Clone)]
struct Cores(Vec<usize>);

/// How a model runs.
#[derive(Args)]
#[command(next_help_heading = "How it runs")]
pub struct Run {
    /// Threads that compute [default: as many as this process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Processors that the engine's own threads may run on, as 0,2-5 (Linux) [default: wherever the system puts them]
    ///
    /// The program's first thread computes too, and is not moved: see taskset.
    #[arg(long, value_name = "LIST", value_parser = core_list)]
    cores: Option<Cores>,
    /// Kernels to use; the results have the same bits [default: the best of this machine]
    #[arg(long, value_enum, hide_possible_values = false)]
    isa: Option<Instructions>,
    /// Type of cached keys and values [default: f32]
    #[arg(long, value_enum, value_name = "TYPE")]
    kv: Option<Kv>,
    /// How weights are held
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto")]
    weights: Weights,
    /// Read weights into memory instead of mapping the file, and check the sums of packed ones
    #[arg(long)]
    copy: bool,
    /// Most tokens that prompt and answer have together [default: what is needed or the model was made for]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub context: Option<usize>,
    /// Say on standard error what the engine does
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    adapters: Adapters,
}

impl Run {
    /// An engine as the options say.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn engine(&self) -> Result<Arc<Engine>, Failure> {
        let isa = self.isa.map(|isa| match isa {
            Instructions::Scalar => Isa::Scalar,
            Instructions::Avx2 => Isa::Avx2,
            Instructions::Avx512 => Isa::Avx512,
        });
        let mut config = EngineConfig {
            threads: self.threads.map_or(0, usize::from),
            cores: self.cores.clone().map_or_else(Vec::new, |Cores(cores)| cores),
            isa,
            ..EngineConfig::default()
        };
        if self.verbose {
            config.log = Some(Box::new(|_, message| note(message)));
        }
        Ok(Engine::new(config)?)
    }

    /// Opens MODEL on an engine of its own.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open(&self, model: &Path) -> Result<Arc<Model>, Failure> {
        self.open_on(&self.engine()?, &files(model)?, true)
    }

    /// Opens a model's files, with its tokenizer or without, and with the adapters that the options name.
    ///
    /// # Errors
    /// As [`Model::open`] and [`Adapters::graft`].
    pub fn open_on(
        &self,
        engine: &Arc<Engine>,
        files: &Files,
        tokenizer: bool,
    ) -> Result<Arc<Model>, Failure> {
        let model = self.open_plain(engine, files, tokenizer)?;
        self.adapters.graft(&model)?;
        Ok(model)
    }

    /// The one adapter that is to be learnt on, where the options name one.
    ///
    /// # Errors
    /// `Usage` for several, or a weight; as [`Model::adapter`].
    pub fn adapter_to_learn(&self, model: &Model) -> Result<Option<Arc<Adapter>>, Failure> {
        self.adapters.one(model)
    }

    /// The same without adapters.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_plain(
        &self,
        engine: &Arc<Engine>,
        files: &Files,
        tokenizer: bool,
    ) -> Result<Arc<Model>, Failure> {
        self.open_held(engine, files, tokenizer, Hold::Auto)
    }

    /// The same for learning: packed where the options say nothing, since the weights that stay are read for every step.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_to_learn(&self, engine: &Arc<Engine>, files: &Files) -> Result<Arc<Model>, Failure> {
        self.open_held(engine, files, true, Hold::Packed)
    }

    fn open_held(
        &self,
        engine: &Arc<Engine>,
        files: &Files,
        tokenizer: bool,
        auto: Hold,
    ) -> Result<Arc<Model>, Failure> {
        let mut bar = Bar::new("loading", Unit::Bytes);
        let mut tell = |done, total| {
            bar.at(done, total);
            interrupt::flow()
        };
        let config = ModelConfig {
            cache: self.kv.map(Kv::cache),
            weights: match self.weights {
                Weights::Auto => auto,
                Weights::Mapped => Hold::Mapped,
                Weights::Packed => Hold::Packed,
                Weights::Q8 => Hold::Q8,
                Weights::Q4 => Hold::Q4,
            },
            importance: None,
            copy: self.copy,
            no_tokenizer: !tokenizer,
            progress: Some(&mut tell),
        };
        Ok(Model::open(engine, files, config)?)
    }

    /// Bits of a weight of a block and of the head, where they are packed in other types than they have.
    pub fn bits(&self) -> Option<[f64; 2]> {
        match self.weights {
            Weights::Q8 => Some([8.5, 8.5]),
            Weights::Q4 => Some([4.5, 6.5625]),
            Weights::Auto | Weights::Mapped | Weights::Packed => None,
        }
    }

    /// A session for `wanted` tokens behind what adapters put before them, or as many as the option says.
    ///
    /// # Errors
    /// `Usage` where the option is beyond the model; as [`Session::new`].
    pub fn session(
        &self,
        model: &Arc<Model>,
        wanted: usize,
        config: SessionConfig,
    ) -> Result<Session, Failure> {
        let most = model.arch().max_positions;
        if let Some(context) = self.context.filter(|context| *context > most) {
            return Err(Failure::Usage(format!(
                "--context: expected at most {most} for this model, found {context}"
            )));
        }
        let context = self.context.unwrap_or(wanted.saturating_add(model.lead()).clamp(1, most));
        Ok(Session::new(model, SessionConfig { context, ..config })?)
    }
}

/// How tokens are guessed ahead.
#[derive(Args)]
#[command(next_help_heading = "Guessing ahead (the text stays the same)")]
pub struct Guessing {
    /// Guess up to N tokens at once: what followed when the last tokens stood there before (1 to 16)
    #[arg(long, value_name = "N", conflicts_with = "draft", value_parser = clap::value_parser!(u8).range(1..=16))]
    lookup: Option<u8>,
    /// Guess with a smaller model that has the same tokens
    #[arg(long, value_name = "MODEL")]
    draft: Option<PathBuf>,
    /// With --draft: tokens guessed at once (1 to 16)
    #[arg(long, value_name = "N", requires = "draft", default_value_t = 4,
        value_parser = clap::value_parser!(u8).range(1..=16))]
    draft_tokens: u8,
}

impl Guessing {
    /// What the options say; a draft model is opened beside `model`.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn speculation(&self, run: &Run, model: &Model) -> Result<Speculation, Failure> {
        if let Some(tokens) = self.lookup {
            return Ok(Speculation::Lookup { tokens: usize::from(tokens) });
        }
        let Some(path) = &self.draft else { return Ok(Speculation::None) };
        let model = run.open_plain(model.engine(), &files(path)?, true)?;
        Ok(Speculation::Draft { model, tokens: usize::from(self.draft_tokens) })
    }
}

/// How many guesses were right, for people; nothing where none were made.
pub fn guesses(before: Timings, now: Timings) -> String {
    let (right, all) =
        (now.accepted_tokens - before.accepted_tokens, now.drafted_tokens - before.drafted_tokens);
    if all == 0 { String::new() } else { format!(", {right} of {all} guesses right") }
}

/// How tokens are chosen.
#[derive(Args)]
#[command(next_help_heading = "How tokens are chosen")]
pub struct Sampling {
    /// Divides the logits; 0 always takes the most likely token [default: the model's own setting, else 0; chat: 0.7]
    #[arg(long, value_name = "T", value_parser = not_negative)]
    pub temperature: Option<f32>,
    /// Only the K most likely tokens; 0: all
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Only the most likely tokens that have probability P together
    #[arg(long, value_name = "P", value_parser = mass)]
    pub top_p: Option<f32>,
    /// Only tokens with at least this share of the highest probability
    #[arg(long, value_name = "P", value_parser = share)]
    pub min_p: Option<f32>,
    /// Divides positive logits of tokens seen before, multiplies negative ones; 1: none
    #[arg(long, value_name = "X", value_parser = positive)]
    pub repetition_penalty: Option<f32>,
    /// Taken from a token's logit once for each time it was seen
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    pub frequency_penalty: Option<f32>,
    /// Taken from a token's logit if it was seen
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    pub presence_penalty: Option<f32>,
    /// Added to the logit of a token, as ID=X; `-inf` bans it; may be given several times
    #[arg(long, value_name = "ID=X", value_parser = bias)]
    pub logit_bias: Vec<(u32, f32)>,
    /// The same seed gives the same text
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

impl Sampling {
    /// `base` with what was given.
    pub fn over(&self, base: SamplerConfig) -> SamplerConfig {
        SamplerConfig {
            temperature: self.temperature.unwrap_or(base.temperature),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(base.repetition_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            logit_bias: self.logit_bias.clone(),
            seed: self.seed,
            ..base
        }
    }
}

/// What a token is called, where the model has a tokenizer that knows it.
pub fn token_name(model: &Model, id: u32) -> Option<String> {
    model.tokenizer().ok()?.id_to_token(id)
}

/// How `generation_config.json` says to sample, where it says `do_sample`.
pub fn suggested(model: &Model) -> Option<SamplerConfig> {
    let g = model.generation();
    (g.do_sample == Some(true)).then(|| SamplerConfig {
        temperature: g.temperature.unwrap_or(1.0),
        top_k: g.top_k.unwrap_or(0),
        top_p: g.top_p.unwrap_or(1.0),
        min_p: g.min_p.unwrap_or(0.0),
        repetition_penalty: g.repetition_penalty.unwrap_or(1.0),
        ..SamplerConfig::default()
    })
}

/// A count of one or more.
///
/// # Errors
/// A line for the user.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n >= 1).ok_or_else(|| "expected a whole number of 1 or more".to_owned())
}

/// Numbers and ranges of them, separated by commas.
fn core_list(text: &str) -> Result<Cores, String> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        (first <= last).then(|| usize::from(first)..=usize::from(last))
    };
    let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
    let ranges = ranges.ok_or_else(|| "expected numbers of processors, as 0,2-5".to_owned())?;
    Ok(Cores(ranges.into_iter().flatten().collect()))
}

fn number(text: &str, expected: &str, is: impl Fn(f32) -> bool) -> Result<f32, String> {
    let value: Option<f32> = text.parse().ok().filter(|value: &f32| value.is_finite() && is(*value));
    value.ok_or_else(|| format!("expected {expected}"))
}

fn not_negative(text: &str) -> Result<f32, String> {
    number(text, "a number of 0 or more", |x| x >= 0.0)
}

fn mass(text: &str) -> Result<f32, String> {
    number(text, "a number above 0 and at most 1", |x| x > 0.0 && x <= 1.0)
}

fn share(text: &str) -> Result<f32, String> {
    number(text, "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))
}

fn positive(text: &str) -> Result<f32, String> {
    number(text, "a number above 0", |x| x > 0.0)
}

fn finite(text: &str) -> Result<f32, String> {
    number(text, "a number", |_| true)
}

fn bias(text: &str) -> Result<(u32, f32), String> {
    let parsed = text.split_once('=').and_then(|(id, x)| Some((id.parse().ok()?, x.parse::<f32>().ok()?)));
    parsed
        .filter(|(_, x)| *x < f32::INFINITY)
        .ok_or_else(|| "expected a token id, `=` and a number".to_owned())
}
