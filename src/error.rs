//! Floor 1: the reasons a call can fail. Messages name the file, tensor or option, what was expected and what
//! was found.

use std::path::PathBuf;

/// Shorthand of the whole crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Each variant maps to one pinned status of the C header.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is not what its format says.
    #[error("{file}: {what}")]
    Format {
        /// The file (or "memory").
        file: String,
        /// What is wrong: expected and found.
        what: String,
    },
    /// A tensor that is missing, misshapen, of the wrong type or unexpected.
    #[error("{file}: tensor `{tensor}`: {what}")]
    Tensor {
        /// The file that should hold it.
        file: String,
        /// Its full name.
        tensor: String,
        /// What is wrong: expected and found.
        what: String,
    },
    /// A valid file that asks for something this engine does not do.
    #[error("{file}: {what} is not supported")]
    Unsupported {
        /// The file.
        file: String,
        /// The key, family, type or feature.
        what: String,
    },
    /// An argument that cannot be right.
    #[error("{name}: {what}")]
    Argument {
        /// The argument.
        name: &'static str,
        /// What is wrong: expected and found.
        what: String,
    },
    /// Text or ids that the tokenizer refuses.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A chat template that does not parse or render.
    #[error("chat template: {0}")]
    Template(String),
    /// The context is full and the session's policy is to stop.
    #[error("context is full: {used} tokens are held, {wanted} more are wanted, {limit} fit")]
    ContextFull {
        /// Tokens held.
        used: usize,
        /// Tokens wanted on top.
        wanted: usize,
        /// Capacity in tokens.
        limit: usize,
    },
    /// The plan does not fit the budget.
    #[error("memory budget: {what} needs {needed} bytes, {left} of {budget} are left")]
    Budget {
        /// What asked.
        what: &'static str,
        /// Bytes it needs.
        needed: u64,
        /// Bytes left.
        left: u64,
        /// The whole budget.
        budget: u64,
    },
    /// The system has no more memory.
    #[error("out of memory: {what} needs {bytes} bytes")]
    Memory {
        /// What asked.
        what: &'static str,
        /// Bytes it needs.
        bytes: u64,
    },
    /// The caller's buffer is too small.
    #[error("{name}: the buffer has room for {capacity}, {needed} are needed")]
    Buffer {
        /// The argument.
        name: &'static str,
        /// Elements that are needed (bytes of text, with the closing NUL).
        needed: usize,
        /// Elements that fit.
        capacity: usize,
    },
    /// Somebody called cancel, or a progress callback said stop.
    #[error("cancelled")]
    Cancelled,
    /// The session is in use on another thread.
    #[error("the session is in use by another thread")]
    Busy,
    /// An earlier internal error left this handle unusable; free it.
    #[error("the handle was poisoned by an earlier internal error: free it")]
    Poisoned,
    /// A bug of the engine. The call had no effect that lasts.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// An `Io` error about `path`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { path: path.into(), source }
    }
}
