//! Inlaid: a language-model engine that lives inside other people's programs.
#![deny(unsafe_code)]

pub mod error;
pub mod format;

pub use error::{Error, Result};
