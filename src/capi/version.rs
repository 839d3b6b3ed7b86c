//! Floor 6: what this library is: its version and the features it was built with.

use std::ffi::{CStr, c_char};

/// The version of this header: major.
pub const INLAID_VERSION_MAJOR: u32 = 0;
/// The version of this header: minor.
pub const INLAID_VERSION_MINOR: u32 = 1;
/// The version of this header: patch.
pub const INLAID_VERSION_PATCH: u32 = 0;

/// `inlaid_features`: text in and out (tokenize, detokenize, generate).
pub const INLAID_FEATURE_TOKENIZER: u32 = 1;
/// `inlaid_features`: chat templates (render, chat).
pub const INLAID_FEATURE_CHAT_TEMPLATE: u32 = 2;
/// `inlaid_features`: learning (trainers).
pub const INLAID_FEATURE_TRAIN: u32 = 4;

/// The version of the library that is loaded, "major.minor.patch". Static, NUL-terminated. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn inlaid_version() -> *const c_char {
    const TEXT: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a version has no NUL"),
    };
    TEXT.as_ptr()
}

/// The features of the library that is loaded: `INLAID_FEATURE_...` bits. Functions of a feature that was left out are
/// there, and answer `INLAID_ERROR_UNSUPPORTED`. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn inlaid_features() -> u32 {
    let tokenizer = if cfg!(feature = "tokenizer") { INLAID_FEATURE_TOKENIZER } else { 0 };
    let template = if cfg!(feature = "chat-template") { INLAID_FEATURE_CHAT_TEMPLATE } else { 0 };
    let train = if cfg!(feature = "train") { INLAID_FEATURE_TRAIN } else { 0 };
    tokenizer | template | train
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_the_version_of_the_crate() {
        let header = format!("{INLAID_VERSION_MAJOR}.{INLAID_VERSION_MINOR}.{INLAID_VERSION_PATCH}");
        assert_eq!(header, env!("CARGO_PKG_VERSION"));
    }
}
