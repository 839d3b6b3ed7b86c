//! After its first token a session takes no memory: counted, not believed.

mod common;

use common::{Random, configs, engine, open, write_model};
use inlaid::kernels::DType;
use inlaid::sample::SamplerConfig;
use inlaid::session::{Session, SessionConfig};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything goes to the system's allocator; counting touches nothing else.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_step_allocates_nothing_after_the_first() {
    for (family, config) in configs() {
        for sampler in [
            SamplerConfig { temperature: 0.0, ..SamplerConfig::default() },
            SamplerConfig {
                temperature: 0.8,
                top_k: 20,
                top_p: 0.9,
                min_p: 0.01,
                repetition_penalty: 1.1,
                frequency_penalty: 0.1,
                ..SamplerConfig::default()
            },
        ] {
            let dir = write_model(&config, DType::BF16);
            let model = open(&engine(2, None), dir.path(), None);
            let mut session = Session::new(&model, SessionConfig { sampler, ..SessionConfig::default() })
                .expect("a session");
            session.prefill(&Random(1).ids(50, 77)).expect("prefill");
            session.step().expect("a step");
            session.step().expect("a step");
            let before = CALLS.load(Relaxed);
            for _ in 0..100 {
                session.step().expect("a step"); // over two page boundaries
            }
            assert_eq!(CALLS.load(Relaxed) - before, 0, "{family}");
        }
    }
}
