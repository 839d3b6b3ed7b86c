//! Floor 2: an engine: the threads, the kernels of this machine, the memory budget and the log that its models share.
//! Knows no models.

use crate::error::{Error, Result};
use crate::order::sorted;
use kernels::{Isa, Ops, Team};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How much a message matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Something the host should know of.
    Warn,
    /// What was done and how long it took.
    Info,
}

/// Where messages go. Called on the thread that works, holding no lock.
pub type Log = Box<dyn Fn(Level, &str) + Send + Sync>;

/// What an engine is made with.
#[derive(Default)]
pub struct EngineConfig {
    /// Threads that compute, the calling one included; 0: as many as the process may use, or as there are `cores`.
    pub threads: usize,
    /// Numbers of the processors that the engine's own threads may run on (Linux); empty: wherever the system puts them.
    /// The calling thread computes too, and is the host's: its affinity is never changed. A host that wants all of the
    /// work on `cores` restricts its own thread itself.
    pub cores: Vec<usize>,
    /// Kernels to use; `None`: the best of this machine (or what `INLAID_ISA` names; the bits are the same).
    pub isa: Option<Isa>,
    /// Most private bytes that models and sessions of this engine may take in all; `None`: no limit.
    pub budget: Option<u64>,
    /// Where messages go; `None`: nowhere.
    pub log: Option<Log>,
}

/// Threads, kernels, budget and log. Shared by its models; may be used from many threads at once.
pub struct Engine {
    team: Team,
    ops: &'static Ops,
    budget: Option<u64>,
    used: AtomicU64,
    log: Option<Log>,
}

impl Engine {
    /// An engine with threads of its own.
    ///
    /// # Errors
    /// `Argument` for a thread count beyond 1,024, an instruction set this machine lacks, or a processor that this process
    /// may not use; `Unsupported` for `cores` where the system cannot restrict threads; `Internal` where it gives none.
    pub fn new(mut config: EngineConfig) -> Result<Arc<Engine>> {
        const MOST: usize = 1024;
        config.cores = sorted(config.cores, Ord::cmp);
        config.cores.dedup();
        if config.threads > MOST {
            let what = format!("expected at most {MOST}, found {}", config.threads);
            return Err(Error::Argument { name: "threads", what });
        }
        let threads = match config.threads {
            0 if !config.cores.is_empty() => config.cores.len().min(MOST),
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(MOST),
            n => n,
        };
        let ops = Ops::from_env_or(config.isa)
            .map_err(|what| Error::Argument { name: "isa", what: what.to_string() })?;
        let team = Team::on(threads, &config.cores).map_err(|e| match e.kind() {
            ErrorKind::InvalidInput => Error::Argument { name: "cores", what: e.to_string() },
            ErrorKind::Unsupported => Error::Unsupported {
                file: "cores".to_owned(),
                what: "restricting threads to processors on this system".to_owned(),
            },
            _ => Error::Internal(format!("{threads} threads: {e}")),
        })?;
        let engine = Engine { team, ops, budget: config.budget, used: AtomicU64::new(0), log: config.log };
        engine.log(Level::Info, || format!("{threads} threads, {} kernels", engine.isa()));
        Ok(Arc::new(engine))
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.team.size()
    }

    /// Name of the kernels in use.
    pub fn isa(&self) -> &'static str {
        self.ops.name()
    }

    /// The threads, for measurements.
    pub fn team(&self) -> &Team {
        &self.team
    }

    /// The kernels.
    pub fn ops(&self) -> &'static Ops {
        self.ops
    }

    /// Private bytes that models and sessions hold or have set aside.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Sends a message to the host's log, where there is one.
    pub(crate) fn log(&self, level: Level, message: impl FnOnce() -> String) {
        if let Some(log) = &self.log {
            log(level, &message());
        }
    }

    /// Takes `bytes` from the budget until the charge is dropped.
    ///
    /// # Errors
    /// `Budget` where that is more than is left.
    pub(crate) fn charge(self: &Arc<Engine>, what: &'static str, bytes: u64) -> Result<Charge> {
        let budget = self.budget.unwrap_or(u64::MAX);
        let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= budget);
        match self.used.fetch_update(Relaxed, Relaxed, add) {
            Ok(_) => Ok(Charge { engine: self.clone(), bytes }),
            Err(used) => {
                Err(Error::Budget { what, needed: bytes, left: budget.saturating_sub(used), budget })
            }
        }
    }
}

/// A part of the budget, given back on drop.
pub(crate) struct Charge {
    engine: Arc<Engine>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.engine.used.fetch_sub(self.bytes, Relaxed);
    }
}
