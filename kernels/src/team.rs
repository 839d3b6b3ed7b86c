//! Floor 0: a team of threads that belongs to one engine, and the barrier it meets at. Knows nothing of what it runs.
//!
//! The caller is worker 0. One barrier serves for start, stages and end: a worker between two
//! regions is simply one that waits at the barrier (it spins briefly, then sleeps).

use crate::affinity::restrict;
use crate::plan::Failed;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Looks at the flag this often before sleeping: some tens of microseconds, longer than any stage
/// of a decode step keeps one worker ahead of another.
const SPINS: usize = 4000;

/// The same where there are more workers than processors: whoever spins then keeps from working the one it waits for.
const CROWDED_SPINS: usize = 100;

#[repr(align(128))] // two cache lines: the prefetcher pulls them in pairs
struct Padded<T>(T);

/// All `n` workers wait here for each other. Writes made before it are seen after it.
pub(crate) struct Barrier {
    n: usize,
    spins: usize,
    arrived: Padded<AtomicUsize>,
    round: Padded<AtomicUsize>,
    asleep: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Barrier {
    fn new(n: usize, cores: &[usize]) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        // The caller's thread is not restricted to the cores.
        let crowded = if cores.is_empty() { n > processors } else { n > cores.len() + 1 };
        Barrier {
            n,
            spins: if crowded { CROWDED_SPINS } else { SPINS },
            arrived: Padded(AtomicUsize::new(0)),
            round: Padded(AtomicUsize::new(0)),
            asleep: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    pub(crate) fn wait(&self) {
        if self.n == 1 {
            return;
        }
        let round = self.round.0.load(Relaxed);
        if self.arrived.0.fetch_add(1, AcqRel) + 1 == self.n {
            self.arrived.0.store(0, Relaxed);
            // SeqCst on both sides: either the sleeper sees the new round or we see the sleeper.
            self.round.0.store(round.wrapping_add(1), SeqCst);
            if self.asleep.load(SeqCst) > 0 {
                drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
                self.wake.notify_all();
            }
            return;
        }
        for i in 0..self.spins {
            if self.round.0.load(Acquire) != round {
                return;
            }
            if i > 64 {
                spin_loop();
            }
        }
        self.asleep.fetch_add(1, SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.round.0.load(SeqCst) == round {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.asleep.fetch_sub(1, SeqCst);
    }
}

type Job = *const (dyn Fn(usize, &Barrier) + Sync);

struct Shared {
    barrier: Barrier,
    job: UnsafeCell<Option<Job>>,
}

// SAFETY: `job` is written by the caller of `region` alone while every worker waits at the start
// barrier, and read by the workers only after it; the barrier orders the two.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in `job` is to a `Sync` closure that outlives its use.
unsafe impl Send for Shared {}

/// A fixed set of threads. One region at a time; a second caller queues.
pub struct Team {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    turn: Mutex<()>,
}

impl Team {
    /// `n` workers (at least 1): the caller's thread and `n - 1` of the team's own. Fails where the system gives no
    /// thread; none is left behind then.
    pub fn new(n: usize) -> std::io::Result<Team> {
        Team::on(n, &[])
    }

    /// The same, with the team's own threads restricted to the processors `cores` (empty: to none). The caller's thread
    /// is its owner's: it stays where it is.
    ///
    /// # Errors
    /// As [`Team::new`]; `Unsupported` where the system cannot do that, `InvalidInput` for a processor that cannot be used.
    pub fn on(n: usize, cores: &[usize]) -> std::io::Result<Team> {
        let n = n.max(1);
        if !cores.is_empty() {
            // Tried on a thread that ends at once: so it is known before any worker exists, and where there is none.
            let tried = cores.to_vec();
            let tried = std::thread::Builder::new().spawn(move || restrict(&tried))?.join();
            tried.map_err(|_| std::io::Error::other("a worker thread died at birth"))??;
        }
        let shared = Arc::new(Shared { barrier: Barrier::new(n, cores), job: UnsafeCell::new(None) });
        let mut team = Team { shared, threads: Vec::new(), turn: Mutex::new(()) };
        // The barrier counts all workers, so none may reach it before the last one exists.
        let mut starts = Vec::new();
        for worker in 1..n {
            let (start, started) = channel::<Arc<Shared>>();
            let name = format!("inlaid-{worker}");
            let cores = cores.to_vec();
            let body = move || {
                if !cores.is_empty() {
                    let _ = restrict(&cores); // it worked a moment ago; where not, the numbers are the same elsewhere
                }
                started.recv().into_iter().for_each(|shared| follow(&shared, worker));
            };
            match std::thread::Builder::new().name(name).spawn(body) {
                Ok(thread) => team.threads.push(thread),
                Err(e) => return Err(e),
            }
            starts.push(start);
        }
        for start in starts {
            start
                .send(team.shared.clone())
                .map_err(|_| std::io::Error::other("a worker thread died at birth"))?;
        }
        Ok(team)
    }

    /// Workers, the caller included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.shared.barrier.n
    }

    /// Runs `f(worker)` on every worker at once and returns when all have returned. A panic of `f` on any worker is
    /// caught there and comes back as an error.
    pub fn each(&self, f: &(dyn Fn(usize) + Sync)) -> Result<(), Failed> {
        let panicked = AtomicBool::new(false);
        self.region(&|worker, _| {
            if catch_unwind(AssertUnwindSafe(|| f(worker))).is_err() {
                panicked.store(true, Relaxed);
            }
        });
        if panicked.load(Relaxed) { Err(Failed::Panicked) } else { Ok(()) }
    }

    /// Runs `f(worker, barrier)` on every worker at once and returns when all have returned.
    /// `f` must not panic and must call the barrier equally often on every worker; it is private
    /// to this crate for that reason (see `Plan::run`).
    pub(crate) fn region(&self, f: &(dyn Fn(usize, &Barrier) + Sync)) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let job: *const (dyn Fn(usize, &Barrier) + Sync + '_) = f;
        // SAFETY: this only erases the lifetime. The workers use `f` between the two barriers
        // below, both of which are passed before this function returns.
        let job: Job = unsafe { std::mem::transmute(job) };
        // SAFETY: all workers wait at the start barrier, so nobody reads `job` now.
        unsafe { *self.shared.job.get() = Some(job) };
        self.shared.barrier.wait();
        f(0, &self.shared.barrier);
        self.shared.barrier.wait();
    }
}

fn follow(shared: &Shared, worker: usize) {
    loop {
        shared.barrier.wait();
        // SAFETY: written before the barrier we just passed, not written again before the next.
        let Some(job) = (unsafe { *shared.job.get() }) else {
            return;
        };
        // SAFETY: `region` keeps the closure alive until the barrier below.
        unsafe { (*job)(worker, &shared.barrier) };
        shared.barrier.wait();
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if self.threads.len() + 1 == self.shared.barrier.n {
            // SAFETY: `&mut self`: no region runs, so all workers wait at the start barrier.
            unsafe { *self.shared.job.get() = None };
            self.shared.barrier.wait();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
