//! Inlaid: a language-model engine that lives inside other people's programs.
//!
//! The way in is an [`Engine`](engine::Engine) (threads, budget, log), a [`Model`](model::Model) opened in it, and a
//! [`Session`](session::Session) with that model. C programs use `include/inlaid.h`, which says the same in C.
#![deny(unsafe_code)]

pub mod adapter;
pub mod align;
pub mod arch;
#[cfg(feature = "train")]
mod backward;
pub mod beam;
mod block;
pub mod calibrate;
pub mod capi;
#[cfg(feature = "chat-template")]
pub mod chat;
#[cfg(feature = "tokenizer")]
pub mod convert;
mod crossing;
pub mod encode;
pub mod engine;
pub mod error;
mod exec;
mod fit;
pub mod format;
mod fuse;
#[cfg(feature = "tokenizer")]
pub mod generate;
mod graft;
mod layout;
mod learns;
pub mod model;
mod order;
pub mod pack;
mod positions;
mod prefix;
mod program;
pub mod rng;
pub mod rules;
mod run;
mod runner;
pub mod sample;
mod seats;
pub mod session;
mod state;
mod tables;
#[cfg(feature = "tokenizer")]
pub mod task;
#[cfg(feature = "tokenizer")]
pub mod tokenizer;
#[cfg(feature = "train")]
pub mod train;
pub mod utf8;
mod verb;
mod weights;

pub use error::{Error, Result};
/// The floor below: kernels, and the types that name them.
pub use kernels;
