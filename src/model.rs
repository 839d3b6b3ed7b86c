//! Floor 5: an open model: its files, family, weights and tokenizer, immutable, and the one runner that its sessions
//! share. Knows no conversation.

mod adapters;

use crate::adapter::Grafts;
use crate::arch::{Arch, Position, Rows, Side};
use crate::engine::{Charge, Engine, Level};
use crate::error::{Error, Result};
use crate::exec::{Shape, Want};
use crate::format::config::Config;
use crate::format::files::{Files, Load};
use crate::format::generation::GenerationConfig;
use crate::format::source::{Progress, Reading};
use crate::format::task::{Pooling, TaskConfig};
use crate::format::tensors::Tensors;
use crate::pack::{self, Hold, Importance};
use crate::run::bias;
use crate::runner::{Parts, Runner};
use crate::state::pages_for;
use crate::weights::{P, Param, Weights};
use kernels::attention::{Cache, PAGE};
use kernels::rope::Rope;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

#[cfg(feature = "chat-template")]
use crate::chat::ChatTemplate;
#[cfg(feature = "tokenizer")]
use crate::tokenizer::Tokenizer;

/// Tokens of a prompt that run at once unless the host says otherwise: enough rows to be bound by arithmetic, few
/// enough that a cancel is answered soon.
pub const CHUNK: usize = 512;

/// How a model is opened.
#[derive(Default)]
pub struct ModelConfig<'a> {
    /// Type of cached keys and values. `None`: F32, the most exact one.
    pub cache: Option<Cache>,
    /// Read the weights into private memory instead of mapping the file: for files that may be truncated or replaced
    /// while they are in use, which a mapping cannot survive.
    pub copy: bool,
    /// How weights are held.
    pub weights: Hold,
    /// How much the squared error of each input counts where weights are quantised, by the name of the matrix.
    pub importance: Option<&'a Importance>,
    /// Leave the tokenizer out: for hosts that feed ids.
    pub no_tokenizer: bool,
    /// Called while loading with bytes done and bytes in all; `Break` cancels.
    pub progress: Option<crate::format::source::Progress<'a>>,
}

/// What opening a model and talking to it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Bytes of files that are mapped: shared with other processes, dropped by the system when memory is short.
    pub mapped_bytes: u64,
    /// Private bytes: parameters that are read, buffers of one prefill chunk, a copying load's weights.
    pub private_bytes: u64,
    /// Bytes of keys and values of one token.
    pub kv_bytes_per_token: u64,
    /// A session's context is a multiple of this many tokens.
    pub kv_page_tokens: u64,
}

/// How long opening took.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadTimes {
    /// Files, config and weights.
    pub weights: Duration,
    /// The tokenizer and the chat template.
    pub tokenizer: Duration,
}

/// An open model. Immutable; may be used from many threads at once, whose runs take turns.
pub struct Model {
    engine: Arc<Engine>,
    arch: Arch,
    tensors: Tensors,
    weights: Weights,
    inv_freq: [Vec<f32>; 2],
    cache: Cache,
    generation: GenerationConfig,
    task: TaskConfig,
    plan: MemoryPlan,
    times: LoadTimes,
    runner: Mutex<Runner>,
    /// Adapters of whoever names none.
    attached: Mutex<Option<Arc<Grafts>>>,
    _charge: Charge,
    #[cfg(feature = "tokenizer")]
    tokenizer: Option<Tokenizer>,
    #[cfg(feature = "chat-template")]
    template: Option<ChatTemplate>,
}

impl Model {
    /// Opens the model in `files`. Dense weights are mapped, not copied, unless the config says so.
    ///
    /// # Errors
    /// `Io`, `Format`, `Tensor`, `Unsupported` for files that cannot be run rightly; `Budget`; `Cancelled`.
    pub fn open(engine: &Arc<Engine>, files: &Files, mut config: ModelConfig) -> Result<Arc<Model>> {
        let start = Instant::now();
        let load = if config.copy { Load::Copy } else { Load::Map };
        let mut bound = Bound::new(files, load, config.cache, &mut config.progress)?;
        let (hold, charge) = bound.hold(engine, config.weights, load)?;
        let mut reading = Reading::new(load, &mut config.progress);
        pack::pack(&mut bound.weights, hold, engine.threads(), config.importance, &mut reading)?;
        // What is packed is counted as the panels it has become.
        let plan = bound.memory_plan(engine, Hold::Mapped, load)?;
        let Bound { arch, tensors, weights, inv_freq, cache } = bound;
        let (generation, task) = (files.generation_config()?, TaskConfig::open(files)?);
        let times = LoadTimes { weights: start.elapsed(), ..LoadTimes::default() };
        let mut model = Model {
            engine: engine.clone(),
            runner: Mutex::new(Runner::new(&arch, cache)),
            attached: Mutex::default(),
            arch,
            tensors,
            weights,
            inv_freq,
            cache,
            generation,
            task,
            plan,
            times,
            _charge: charge,
            #[cfg(feature = "tokenizer")]
            tokenizer: None,
            #[cfg(feature = "chat-template")]
            template: None,
        };
        if !config.no_tokenizer {
            model.open_text(files)?;
        }
        engine.log(Level::Info, || {
            let family = model.arch.family;
            format!("opened {} ({family}) in {:?}", model.tensors.file(), start.elapsed())
        });
        Ok(Arc::new(model))
    }

    /// What opening `files` with this config would take; nothing stays open.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn plan(engine: &Arc<Engine>, files: &Files, config: &ModelConfig) -> Result<MemoryPlan> {
        let mut bound = Bound::new(files, Load::Map, config.cache, &mut None)?;
        let load = if config.copy { Load::Copy } else { Load::Map };
        bound.memory_plan(engine, config.weights, load)
    }

    #[cfg_attr(not(feature = "tokenizer"), allow(unused_variables, clippy::unnecessary_wraps))] // nothing to open
    fn open_text(&mut self, files: &Files) -> Result<()> {
        let start = Instant::now();
        #[cfg(feature = "tokenizer")]
        {
            self.tokenizer = Tokenizer::open(files)?;
        }
        #[cfg(feature = "chat-template")]
        {
            self.template = ChatTemplate::open(files)?;
        }
        self.times.tokenizer = start.elapsed();
        Ok(())
    }

    /// The engine it belongs to.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The family as data.
    pub fn arch(&self) -> &Arch {
        &self.arch
    }

    /// The tensors it was opened from.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// Type of cached keys and values.
    pub fn cache(&self) -> Cache {
        self.cache
    }

    /// `generation_config.json`, or what `config.json` says of stop tokens.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// Names of its classes, and how its states are pooled.
    pub fn task(&self) -> &TaskConfig {
        &self.task
    }

    /// Which states make a text's vector, and whether it is divided by its length: as the files say, else the mean, and of
    /// a decoder the last one.
    pub fn pooling(&self) -> Pooling {
        let rows = if self.arch.encoder.is_some() { Rows::Mean } else { Rows::Last };
        self.task.pooling.unwrap_or(Pooling { rows, normalize: false })
    }

    /// The name of a class; `LABEL_3` where it has none.
    pub fn label(&self, class: usize) -> String {
        let own = self.task.labels.get(class).filter(|name| !name.is_empty());
        own.cloned().unwrap_or_else(|| format!("LABEL_{class}"))
    }

    /// What it takes.
    pub fn memory_plan(&self) -> MemoryPlan {
        self.plan
    }

    /// How long opening took.
    pub fn load_times(&self) -> LoadTimes {
        self.times
    }

    /// Parameters in all.
    pub fn parameters(&self) -> u64 {
        self.tensors.elements()
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// `Tokenizer` where the model has none, or was opened without.
    #[cfg(feature = "tokenizer")]
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let none = || Error::Tokenizer(format!("{} was opened without a tokenizer", self.tensors.file()));
        self.tokenizer.as_ref().ok_or_else(none)
    }

    /// Its chat template.
    ///
    /// # Errors
    /// `Template` where the model has none, or was opened without a tokenizer.
    #[cfg(feature = "chat-template")]
    pub fn template(&self) -> Result<&ChatTemplate> {
        let none = || Error::Template(format!("{} has no chat template", self.tensors.file()));
        self.template.as_ref().ok_or_else(none)
    }

    /// The token that a decoder beside an encoder begins every answer with.
    ///
    /// # Errors
    /// `Unsupported` where neither the config nor `generation_config.json` names one.
    pub fn first_token(&self) -> Result<u32> {
        let g = &self.generation;
        g.decoder_start_token_id.or(g.bos_token_id).ok_or_else(|| Error::Unsupported {
            file: self.tensors.file().to_owned(),
            what: "a config without `decoder_start_token_id`".to_owned(),
        })
    }

    /// Whether generation ends at this token.
    pub fn is_end(&self, id: u32) -> bool {
        self.generation.eos_token_ids.contains(&id)
    }

    /// Whether its files hold the head that the family has.
    pub fn has_head(&self) -> bool {
        self.weights.head.is_some()
    }

    /// What the encoder's (or the decoder's) attention adds to the score of the key at `key`, for a query at `pos`.
    pub(crate) fn bias(&self, encoder: bool, head: usize, pos: usize, key: usize) -> f32 {
        let side = if encoder { Side::Encoder } else { Side::Decoder };
        let of = self.arch.side(side).zip(self.weights.side(side));
        of.map_or(0.0, |(stack, own)| bias(stack, own, &self.weights).at(head, pos, key))
    }

    /// What a file of packed panels calls a matrix.
    pub(crate) fn matrix_name(&self, w: P) -> Option<&str> {
        match &self.weights.params[w.0 as usize] {
            Param::Matrix(m) => Some(&m.name),
            Param::Vector(_) | Param::Learned(_) => None,
        }
    }

    /// Its parameters.
    #[cfg(feature = "train")]
    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts { engine: &self.engine, arch: &self.arch, weights: &self.weights, inv_freq: &self.inv_freq }
    }

    /// The runner, once the runs before have ended.
    ///
    /// # Errors
    /// `Poisoned` after an internal error within a run.
    pub(crate) fn runner(&self) -> Result<MutexGuard<'_, Runner>> {
        self.runner.lock().map_err(|_| Error::Poisoned)
    }

    /// The runner for giving things back, which must work even after an internal error.
    pub(crate) fn runner_anyhow(&self) -> MutexGuard<'_, Runner> {
        self.runner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Bytes of keys and values that a session of so many tokens sets aside.
    pub(crate) fn kv_bytes(&self, tokens: usize) -> u64 {
        (pages_for(tokens) as u64 * PAGE as u64).saturating_mul(self.plan.kv_bytes_per_token)
    }
}

/// A model's files, read and bound.
struct Bound {
    arch: Arch,
    tensors: Tensors,
    weights: Weights,
    inv_freq: [Vec<f32>; 2],
    cache: Cache,
}

impl Bound {
    fn new(
        files: &Files,
        load: Load,
        cache: Option<Cache>,
        progress: &mut Option<Progress>,
    ) -> Result<Bound> {
        let config: Config = files.config()?;
        let arch = Arch::read(&config)?;
        let tensors = files.tensors(load, progress)?;
        if load == Load::Copy {
            // All bytes were read anyway.
            tensors.verify()?;
        }
        let weights = Weights::bind(&arch, &tensors)?;
        let cache = cache.unwrap_or(Cache::F32);
        let inv_freq = match &arch.last().position {
            Position::Rope { all, local } => {
                [Some(all), local.as_ref()].map(|of| of.map_or(Vec::new(), Rope::inv_freq))
            }
            _ => Default::default(),
        };
        Ok(Bound { arch, tensors, weights, inv_freq, cache })
    }

    /// Private bytes of the weights, those that packing as `hold` wants takes among them.
    fn private_bytes(&mut self, hold: Hold, load: Load) -> u64 {
        let copied = if load == Load::Copy { self.tensors.bytes() } else { 0 };
        self.weights.private_bytes() + copied + pack::bytes(&mut self.weights, hold)
    }

    /// How the weights will be held, and what that takes of the budget: who leaves the choice to the engine gets a model
    /// that runs where its weights lie rather than none.
    fn hold(&mut self, engine: &Arc<Engine>, hold: Hold, load: Load) -> Result<(Hold, Charge)> {
        let charged = engine.charge("the model", self.private_bytes(hold, load));
        match charged {
            Err(Error::Budget { .. }) if hold == Hold::Auto => {
                engine.log(Level::Warn, || "the budget has no room to pack the weights".to_owned());
                let charge = engine.charge("the model", self.private_bytes(Hold::Mapped, load))?;
                Ok((Hold::Mapped, charge))
            }
            charged => Ok((hold, charged?)),
        }
    }

    fn memory_plan(&mut self, engine: &Arc<Engine>, hold: Hold, load: Load) -> Result<MemoryPlan> {
        let private = self.private_bytes(hold, load);
        let mut runner = Runner::new(&self.arch, self.cache);
        let rows = CHUNK.min(self.arch.max_positions);
        let parts = Parts { engine, arch: &self.arch, weights: &self.weights, inv_freq: &Default::default() };
        let mut buffers = 0;
        for side in [Side::Encoder, Side::Decoder].into_iter().filter(|side| self.arch.side(*side).is_some())
        {
            let shape = Shape { side, want: Want::Head, ..Shape::decode(rows, 1) };
            buffers = runner.run_bytes(parts, shape)?.max(buffers);
        }
        Ok(MemoryPlan {
            mapped_bytes: if load == Load::Copy { 0 } else { self.tensors.bytes() },
            private_bytes: buffers.saturating_add(private),
            kv_bytes_per_token: runner.pool.page_bytes() / PAGE as u64,
            kv_page_tokens: PAGE as u64,
        })
    }
}
