//! Inlaid: a language-model engine that lives inside other people's programs.
#![deny(unsafe_code)]

pub mod error;
pub mod format;
pub mod rng;
pub mod sample;
#[cfg(feature = "tokenizer")]
pub mod tokenizer;
pub mod utf8;

pub use error::{Error, Result};
