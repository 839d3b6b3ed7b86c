//! Floor 5: learning: gradients of a model that is being served, and what is done with them. Knows no C.
//!
//! A [`Learner`] runs batches forward and backward; a loss ([`loss`]) is host code between the two halves, over one number per
//! row. What learns (all, named tensors, or an adapter) is a private copy in f32; the model that sessions use is never touched.

pub mod data;
pub mod draw;
pub mod init;
pub mod learner;
pub mod lora;
pub mod loss;
pub mod optim;
pub mod order;
pub mod ppo;
pub mod reference;
pub mod run;
pub mod save;
pub mod schedule;
mod seats;
pub mod task;
pub mod trainer;

pub use learner::{LearnConfig, Learned, Learner, Sample, What};
pub use optim::{Optimizer, Rule};
pub use schedule::Schedule;
