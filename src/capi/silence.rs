//! Floor 6: no word on the host's standard error. The runtime prints a line about every panic before anybody can catch it;
//! here that line is kept back for panics that a C call catches, and goes into its error instead. Knows no handles.
//!
//! The hook that does it is the runtime's, and a shared or static library has a runtime of its own, which no host sees. In
//! a Rust program that links this crate, and calls its C functions, the hook is the program's: the one that was there is
//! called for all other panics.

use std::cell::{Cell, RefCell};
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

thread_local! {
    /// Calls of ours that this thread is in.
    static CALLS: Cell<usize> = const { Cell::new(0) };
    /// Where the last panic within them was.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What the names of the engine's own threads begin with: nobody else panics there.
const OWN: &str = "inlaid";

/// While this lives, panics of this thread print nothing.
pub(super) struct Silence;

impl Silence {
    /// From now on.
    pub fn new() -> Silence {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                if !keep_back(info) {
                    before(info);
                }
            }));
        });
        CALLS.set(CALLS.get() + 1);
        Silence
    }

    /// Where the panic was that ended what ran meanwhile.
    pub fn place(&self) -> Option<String> {
        PLACE.try_with(RefCell::take).ok().flatten()
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        CALLS.set(CALLS.get() - 1);
    }
}

/// Notes a panic that is ours. Threads that are ending have no memory of their own left: those are not ours.
fn keep_back(info: &PanicHookInfo) -> bool {
    if CALLS.try_with(Cell::get).is_ok_and(|calls| calls > 0) {
        let place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
        let _ = PLACE.try_with(|last| last.replace(place));
        return true;
    }
    std::thread::current().name().is_some_and(|name| name.starts_with(OWN))
}
