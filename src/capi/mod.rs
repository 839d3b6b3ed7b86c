//! Floor 6: the C ABI: opaque counted handles, pinned statuses, structs that grow. Every call passes `guard`, where panics
//! stop. Knows the public Rust interface of the engine and nothing beneath it; `include/inlaid.h` is generated from here.
#![allow(unsafe_code)] // pointers of C callers
#![allow(non_camel_case_types)] // the names are C's
#![allow(clippy::missing_safety_doc)] // the header states the rules of pointers once, for all calls

mod adapter;
mod args;
mod batch;
mod beams;
mod encode;
mod engine;
mod error;
mod feed;
mod generate;
mod guard;
mod info;
mod learning;
mod logits;
mod model;
mod parts;
mod ppo;
mod sampler;
mod session;
mod silence;
mod status;
mod tokens;
mod train;
mod version;
mod versioned;

#[cfg_attr(not(feature = "tokenizer"), path = "no_reading.rs")]
mod reading;
#[cfg_attr(not(feature = "tokenizer"), path = "no_speech.rs")]
mod speech;
#[cfg_attr(not(feature = "train"), path = "no_teaching.rs")]
mod teaching;
#[cfg_attr(not(feature = "chat-template"), path = "no_template.rs")]
mod template;

pub use adapter::*;
pub use batch::{INLAID_NO_TOKEN, inlaid_batch_step};
pub use beams::*;
pub use encode::*;
pub use engine::*;
pub use error::{inlaid_error, inlaid_error_init};
pub use feed::*;
pub use generate::*;
pub use info::*;
pub use learning::*;
pub use logits::*;
pub use model::*;
pub use parts::*;
pub use ppo::*;
pub use sampler::*;
pub use session::*;
pub use status::*;
pub use tokens::*;
pub use train::*;
pub use version::*;
