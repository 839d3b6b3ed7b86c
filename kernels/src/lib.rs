//! Floor 0: slices in, slices out. Knows nothing of models, programs or files.
//!
//! `team`, `plan`, `tile`, `pages` and `words` own every unsafe line that concerns threads and shared memory, `simd`
//! those that concern instructions. What is exported is safe whatever the caller does with it.

pub mod dtype;
pub mod pages;
pub mod plan;
pub mod quant;
pub mod team;
mod tile;
mod words;

pub use dtype::DType;
pub use pages::{Pages, StateMut, StateRef};
pub use plan::{Access, Cell, Cut, Failed, Mems, Part, Plan, Span, Task, TileMut};
pub use team::Team;
pub use words::Words;
