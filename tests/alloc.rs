//! After its first token a session takes no memory: counted, not believed.

mod common;

use common::{Random, configs, engine, open, write_model};
use inlaid::kernels::DType;
use inlaid::model::Model;
use inlaid::sample::SamplerConfig;
use inlaid::session::batch::{self, Stepped};
use inlaid::session::{Session, SessionConfig, Speculation};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// The thread that took memory first: the one that runs tests and prints what became of them meanwhile.
static RUNNER: AtomicUsize = AtomicUsize::new(0);

/// An address that is this thread's own.
fn here() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

fn count() {
    if RUNNER.compare_exchange(0, here(), Relaxed, Relaxed).is_err_and(|runner| runner != here()) {
        CALLS.fetch_add(1, Relaxed);
    }
}

// SAFETY: everything goes to the system's allocator; counting touches nothing else.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller's.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn samplers() -> [SamplerConfig; 3] {
    let varied = SamplerConfig { temperature: 0.8, ..SamplerConfig::default() };
    let all = SamplerConfig {
        top_k: 20,
        top_p: 0.9,
        min_p: 0.01,
        repetition_penalty: 1.1,
        frequency_penalty: 0.1,
        ..varied.clone()
    };
    [SamplerConfig::default(), varied, all]
}

fn begin(model: &Arc<Model>, sampler: SamplerConfig, speculation: Speculation, prompt: &[u32]) -> Session {
    let config = SessionConfig { sampler, speculation, ..SessionConfig::default() };
    let mut session = Session::new(model, config).expect("a session");
    session.prefill(prompt).expect("prefill");
    session
}

fn a_step_allocates_nothing_after_the_first() {
    for (family, config) in configs() {
        for sampler in samplers() {
            let dir = write_model(&config, DType::BF16);
            let model = open(&engine(2, None), dir.path(), None);
            let mut session = begin(&model, sampler, Speculation::None, &Random(1).ids(50, 77));
            session.step().expect("a step");
            session.step().expect("a step");
            let before = CALLS.load(Relaxed);
            for _ in 0..200 {
                session.step().expect("a step"); // over four page boundaries
            }
            assert_eq!(CALLS.load(Relaxed) - before, 0, "{family}");
        }
    }
}

fn a_batch_allocates_nothing_once_its_size_was_seen() {
    let dir = write_model(&configs()[0].1, DType::BF16);
    let model = open(&engine(2, None), dir.path(), None);
    let mut sessions: Vec<Session> = (0..6)
        .map(|i| {
            begin(&model, samplers()[i % 3].clone(), Speculation::None, &Random(i as u64).ids(20 + 9 * i, 77))
        })
        .collect();
    let mut out: Vec<Stepped> = (0..6).map(|_| Ok(None)).collect();
    let [a, b, c, d, e, f] = &mut sessions[..] else { panic!("six sessions") };
    let mut seats = [a, b, c, d, e, f];
    let mut step = |n: usize| {
        batch::step(&mut seats[..n], 0, &mut out[..n]).expect("a batch");
        assert!(out[..n].iter().all(|out| matches!(out, Ok(Some(_)))));
    };
    [6, 6, 5, 4, 3, 2, 1].into_iter().for_each(&mut step);
    let before = CALLS.load(Relaxed);
    for round in 0..200 {
        step(6 - round % 6); // sessions come and go
    }
    assert_eq!(CALLS.load(Relaxed) - before, 0);
}

fn guessing_allocates_nothing_once_its_lengths_were_seen() {
    let dir = write_model(&configs()[0].1, DType::BF16);
    let model = open(&engine(2, None), dir.path(), None);
    let draft = Speculation::Draft { model: open(&engine(1, None), dir.path(), None), tokens: 5 };
    for speculation in [Speculation::Lookup { tokens: 8 }, draft] {
        let mut session =
            begin(&model, SamplerConfig::default(), speculation, &Random(1).ids(10, 77).repeat(3));
        for _ in 0..300 {
            session.step().expect("a step");
        }
        let before = CALLS.load(Relaxed);
        for _ in 0..100 {
            session.step().expect("a step");
        }
        assert_eq!(CALLS.load(Relaxed) - before, 0);
        assert!(session.timings().accepted_tokens > 0);
    }
}

/// One test, so that no other one begins or ends meanwhile: its thread would take memory.
#[test]
fn a_session_takes_no_memory_after_its_first_token() {
    // Where the runner runs tests itself, it does nothing else.
    let _ = RUNNER.compare_exchange(here(), usize::MAX, Relaxed, Relaxed);
    a_step_allocates_nothing_after_the_first();
    a_batch_allocates_nothing_once_its_size_was_seen();
    guessing_allocates_nothing_once_its_lengths_were_seen();
}
