//! Floor 3: the files a model comes in: where their bytes are, what their headers say. Knows no kernels beyond the
//! element types, no families and no devices. Whatever a file holds, the answer is a value or an error, within bounded
//! work and memory.

#[cfg(feature = "checkpoints")]
pub mod checkpoint;
pub mod config;
pub mod convert;
pub mod files;
pub mod generation;
pub mod gguf;
pub mod json;
pub mod safetensors;
pub mod source;
pub mod task;
pub mod tensors;
pub mod write;

use crate::error::Error;

/// A tensor file with more tensors than this is refused. (The largest published models have some ninety thousand.)
pub const MAX_TENSORS: usize = 1 << 17;

/// A `Format` error about `file`.
pub(crate) fn bad(file: &str, what: impl Into<String>) -> Error {
    Error::Format { file: file.to_owned(), what: what.into() }
}

/// `text` for a message: cut to a readable length, control characters escaped.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let mut out: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        out.push('…');
    }
    out
}
