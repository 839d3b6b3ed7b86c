//! Floor 6: the pinned statuses of the C header, and the status of each error. Knows no handles.

use crate::error::Error;
use std::ffi::{CStr, c_char};

/// The call did what it says.
pub const INLAID_OK: i32 = 0;
/// An argument that cannot be right: NULL, a number out of range, text that is not UTF-8, a wrong `struct_size`.
pub const INLAID_ERROR_ARGUMENT: i32 = 1;
/// The file system said no.
pub const INLAID_ERROR_IO: i32 = 2;
/// A file that is not what its format says.
pub const INLAID_ERROR_FORMAT: i32 = 3;
/// A tensor that is missing, misshapen, of the wrong type or unexpected.
pub const INLAID_ERROR_TENSOR: i32 = 4;
/// A valid file, or a valid wish, that this build of the engine cannot serve.
pub const INLAID_ERROR_UNSUPPORTED: i32 = 5;
/// The model has no tokenizer, or it refuses the text or the ids.
pub const INLAID_ERROR_TOKENIZER: i32 = 6;
/// The model has no chat template, or it refuses the messages.
pub const INLAID_ERROR_TEMPLATE: i32 = 7;
/// The context is full and the session's policy is to stop.
pub const INLAID_ERROR_CONTEXT_FULL: i32 = 8;
/// The engine's memory budget has not enough left.
pub const INLAID_ERROR_BUDGET: i32 = 9;
/// The system has not enough memory. The handle still works.
pub const INLAID_ERROR_MEMORY: i32 = 10;
/// Somebody called cancel, or a progress callback said stop.
pub const INLAID_ERROR_CANCELLED: i32 = 11;
/// The session is in use by another thread, or by the call whose callback is running.
pub const INLAID_ERROR_BUSY: i32 = 12;
/// An earlier internal error left this handle unusable: free it.
pub const INLAID_ERROR_POISONED: i32 = 13;
/// A bug of the engine. Please report the message.
pub const INLAID_ERROR_INTERNAL: i32 = 14;
/// The caller's buffer is too small; the call says what it needs and has changed nothing.
pub const INLAID_ERROR_BUFFER: i32 = 15;

/// Every status and its name, in the order of their numbers.
const NAMES: &[&CStr] = &[
    c"INLAID_OK",
    c"INLAID_ERROR_ARGUMENT",
    c"INLAID_ERROR_IO",
    c"INLAID_ERROR_FORMAT",
    c"INLAID_ERROR_TENSOR",
    c"INLAID_ERROR_UNSUPPORTED",
    c"INLAID_ERROR_TOKENIZER",
    c"INLAID_ERROR_TEMPLATE",
    c"INLAID_ERROR_CONTEXT_FULL",
    c"INLAID_ERROR_BUDGET",
    c"INLAID_ERROR_MEMORY",
    c"INLAID_ERROR_CANCELLED",
    c"INLAID_ERROR_BUSY",
    c"INLAID_ERROR_POISONED",
    c"INLAID_ERROR_INTERNAL",
    c"INLAID_ERROR_BUFFER",
];

/// The name of a status as this header spells it ("INLAID_ERROR_BUSY"); "INLAID_UNKNOWN" for a number that is none.
/// Static, NUL-terminated. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn inlaid_status_name(status: i32) -> *const c_char {
    let known = usize::try_from(status).ok().and_then(|at| NAMES.get(at));
    known.copied().unwrap_or(c"INLAID_UNKNOWN").as_ptr()
}

/// The status of an error.
pub(super) fn status(e: &Error) -> i32 {
    match e {
        Error::Io { .. } => INLAID_ERROR_IO,
        Error::Format { .. } => INLAID_ERROR_FORMAT,
        Error::Tensor { .. } => INLAID_ERROR_TENSOR,
        Error::Unsupported { .. } => INLAID_ERROR_UNSUPPORTED,
        Error::Argument { .. } => INLAID_ERROR_ARGUMENT,
        Error::Tokenizer(_) => INLAID_ERROR_TOKENIZER,
        Error::Template(_) => INLAID_ERROR_TEMPLATE,
        Error::ContextFull { .. } => INLAID_ERROR_CONTEXT_FULL,
        Error::Budget { .. } => INLAID_ERROR_BUDGET,
        Error::Memory { .. } => INLAID_ERROR_MEMORY,
        Error::Cancelled => INLAID_ERROR_CANCELLED,
        Error::Busy => INLAID_ERROR_BUSY,
        Error::Poisoned => INLAID_ERROR_POISONED,
        Error::Internal(_) => INLAID_ERROR_INTERNAL,
        Error::Buffer { .. } => INLAID_ERROR_BUFFER,
    }
}
