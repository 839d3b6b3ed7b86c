//! Floor 5: learning: gradients of a model that is being served, and what is done with them. Knows no C.
//!
//! A [`Learner`] runs batches forward and backward; a loss ([`loss`]) is host code between the two halves, over one number per
//! row. What learns (all, named tensors, or an adapter) is a private copy in f32; the model that sessions use is never touched.

mod adapt;
pub mod before;
mod bias;
pub mod data;
mod dora;
pub mod draw;
pub mod ia3;
pub mod init;
pub mod learner;
pub mod lora;
pub mod loss;
pub mod mask;
mod neck;
pub mod optim;
pub mod order;
mod own;
pub mod ppo;
pub mod reference;
pub mod run;
pub mod save;
pub mod schedule;
mod seats;
pub mod task;
pub mod trainer;
mod what;

pub use crate::adapter::{BottleneckConfig, Width};
pub use learner::{Learned, Learner};
pub use optim::{Optimizer, Rule};
pub use schedule::Schedule;
pub use what::{LearnConfig, Sample, What};
