//! Floor 6: Ctrl-C. Knows that a running call can be cancelled, and nothing of what it does.

use inlaid::session::Cancel;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

static ASKED: AtomicBool = AtomicBool::new(false);
static RUNNING: Mutex<Option<Cancel>> = Mutex::new(None);

/// What a second Ctrl-C ends the program with: 128 and the number of SIGINT, as shells have it.
const STATUS: i32 = 130;

/// From now on the first Ctrl-C asks the work to end, and a second one ends the program. `idle` is called (on a thread of
/// its own) for a first one that finds no work running.
pub fn install(idle: impl Fn() + Send + 'static) {
    let handler = move || {
        if ASKED.swap(true, SeqCst) {
            std::process::exit(STATUS);
        }
        match &*RUNNING.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(cancel) => cancel.cancel(),
            None => idle(),
        }
    };
    // Without a handler Ctrl-C ends the program at once, which is still an answer.
    let _ = ctrlc::set_handler(handler);
}

/// Whether somebody asked; for loops that look themselves.
pub fn flow() -> ControlFlow<()> {
    if ASKED.load(SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Forgets that somebody asked.
pub fn clear() {
    ASKED.store(false, SeqCst);
}

/// While this lives, Ctrl-C cancels a session's call.
pub struct Cancels;

impl Cancels {
    /// For the session that `cancel` belongs to.
    pub fn new(cancel: Cancel) -> Cancels {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some(cancel);
        Cancels
    }
}

impl Drop for Cancels {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
