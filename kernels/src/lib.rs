//! Floor 0: slices in, slices out. Knows nothing of models, programs or files.
//!
//! `team`, `plan`, `tile`, `pages` and `words` own every unsafe line that concerns threads and shared memory, `simd` and
//! `ops` those that concern instructions. What is exported is safe whatever the caller does with it.

pub mod act;
pub mod affine;
pub mod affinity;
pub mod attention;
#[cfg(feature = "train")]
pub mod back;
pub mod dtype;
pub mod embed;
pub mod graft;
pub mod linear;
pub mod logprob;
pub mod math;
pub mod norm;
pub mod ops;
#[cfg(feature = "train")]
pub mod optim;
pub mod pages;
pub mod peak;
pub mod plan;
pub mod quant;
pub mod reference;
pub mod rope;
pub mod sample;
pub mod simd;
pub mod softmax;
pub mod team;
mod tile;
mod words;

pub use dtype::DType;
pub use linear::{Matrix, MatrixError, Order};
pub use ops::{Isa, Ops};
pub use pages::{Pages, StateMut, StateRef};
pub use plan::{Access, Cell, Cut, Failed, Mems, Part, Plan, Span, Task, TileMut};
pub use team::Team;
pub use words::Words;
