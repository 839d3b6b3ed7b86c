//! Floor 3: adapters: small parameters that change what a model computes while its own stay as they are, in the form of the
//! peft library. Knows the places of a model and no programs.
//!
//! An adapter is a list of modules, by the names that they have in the library that trained it, each with what the adapter
//! adds there. What several adapters do together is a `Grafts`.

mod bottleneck;
mod config;
mod dora;
mod files;
#[cfg(feature = "train")]
mod made;
mod merge;
#[cfg(feature = "train")]
mod necks;
mod pattern;
mod read;
mod save;
mod set;
mod whole;
#[cfg(feature = "tokenizer")]
mod write;

pub use bottleneck::NeckConfig;
pub use config::{AdapterConfig, Kind};
pub use files::{AdapterInfo, info};
pub(crate) use merge::merge;
#[cfg(feature = "train")]
pub use necks::{BottleneckConfig, Width};
pub(crate) use set::{Grafts, Need, lead_of};
#[cfg(feature = "tokenizer")]
pub(crate) use write::write;
#[cfg(feature = "train")]
pub(crate) use {
    dora::{gains, length},
    made::{Before, Biases, Factors, LowRank, Made},
    necks::beginning,
};

use crate::engine::Charge;
use crate::weights::{Role, Site, Slice};
use kernels::act::Act;
use kernels::{DType, Matrix, Order};

/// An adapter in memory, made for one model. Immutable; may be used by any number of sessions and threads at once.
pub struct Adapter {
    id: u64,
    name: String,
    config: AdapterConfig,
    pub(crate) modules: Vec<Module>,
    /// In the order of places.
    pub(crate) places: Vec<Place>,
    /// Of prompts `[tokens, width]`, of prefixes `[tokens, layers, 2, kv_heads, head_dim]`.
    pub(crate) prompt: Vec<f32>,
    /// The number of the places that it was read for.
    model: u64,
    _charge: Charge,
}

/// A place of the model that an adapter changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Number of the place.
    pub site: u32,
    /// Which module.
    pub module: usize,
    /// Which of the module's outputs.
    pub rows: Slice,
    /// How many.
    pub n: usize,
}

/// What an adapter has of one module. All numbers are f32, a row per output.
pub struct Module {
    /// Its path in the model.
    pub path: String,
    pub(crate) role: Role,
    /// Outputs; rows of a table; elements of a norm.
    pub n: usize,
    /// Inputs; the width of a table; 1 of a norm.
    pub k: usize,
    /// Whether the model's own tensor has a row per input.
    pub(crate) by_input: bool,
    /// A narrow product beside the module's own.
    pub lora: Option<Lora>,
    /// `[n]`: what outputs are multiplied by.
    pub outputs: Option<Vec<f32>>,
    /// `[k]`: what inputs are multiplied by.
    pub inputs: Option<Vec<f32>>,
    /// `[n, k]`, in place of the module's own.
    pub weight: Option<Vec<f32>>,
    /// `[n]`, in place of the module's own.
    pub bias: Option<Vec<f32>>,
    /// A small MLP behind the half of a block that the module ends.
    pub neck: Option<Neck>,
}

/// A small MLP that is added to a half of a block: `scale * (up act(down x + down_bias) + up_bias)`.
pub struct Neck {
    /// What its tensors' names begin with.
    pub(crate) origin: String,
    /// Its inner width.
    pub width: usize,
    /// Between the matrices.
    pub act: Act,
    /// What it is multiplied by.
    pub scale: f32,
    /// Whether it reads the half's sum with the residual (normed, where a norm follows), not what comes before.
    pub sum: bool,
    /// `[width, d_model]`
    pub down: Vec<f32>,
    /// `[width]`
    pub down_bias: Vec<f32>,
    /// `[d_model, width]`
    pub up: Vec<f32>,
    /// `[d_model]`
    pub up_bias: Vec<f32>,
}

/// A narrow product: `scale * B A x`. Of a table `A x` is the column of `A` that a token's number names.
pub struct Lora {
    /// Rows of A.
    pub rank: usize,
    /// What the product is multiplied by.
    pub scale: f32,
    /// `[rank, inputs]`
    pub a: Vec<f32>,
    /// `[outputs, rank]`
    pub b: Vec<f32>,
    /// `[outputs]`, added to `B A x`.
    pub bias: Option<Vec<f32>>,
    /// `[outputs]`: lengths of the rows of the sum, as they were trained.
    pub magnitude: Option<Vec<f32>>,
    /// `[outputs]`: the same over the lengths that the rows have.
    pub(crate) gains: Option<Vec<f32>>,
}

/// Those of some rows of `k` numbers that a place has, `n` in all.
pub(crate) fn part(rows: &[f32], k: usize, slice: Slice, n: usize) -> Matrix<'_> {
    let bytes = bytemuck::cast_slice(&rows[slice.first * k..]);
    let whole = Matrix::new(bytes, DType::F32, Order::Nk, n, k, 4 * k);
    let own = match slice.runs {
        None => whole,
        Some((run, skip)) => whole.and_then(|whole| whole.in_runs(run, skip)),
    };
    own.expect("sizes that were checked")
}

impl Adapter {
    /// A number that no other adapter of this process has.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its settings.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// Its modules, in the order of their paths.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// Numbers that it has.
    pub fn parameters(&self) -> u64 {
        self.modules.iter().map(Module::parameters).sum::<u64>() + self.prompt.len() as u64
    }

    /// The largest rank of its narrow products; 0 without any.
    pub fn rank(&self) -> usize {
        self.modules.iter().filter_map(|m| m.lora.as_ref()).map(|lora| lora.rank).max().unwrap_or(0)
    }

    /// The model that it was read for.
    pub(crate) fn model(&self) -> u64 {
        self.model
    }
}

impl Module {
    /// `[n, k]`: the rows of the adapter's own matrix that a place has. Panics where there is none.
    pub(crate) fn weight_of(&self, place: Place) -> Matrix<'_> {
        part(self.weight.as_deref().expect("a module that is there whole"), self.k, place.rows, place.n)
    }

    /// One of a place's module, in which nothing is changed yet.
    pub(crate) fn new(path: String, site: &Site) -> Module {
        Module {
            path,
            role: site.role,
            n: site.rows.whole,
            k: site.k,
            by_input: site.by_input,
            lora: None,
            outputs: None,
            inputs: None,
            weight: None,
            bias: None,
            neck: None,
        }
    }

    fn parameters(&self) -> u64 {
        let neck = self.neck.iter().flat_map(|n| [&n.down, &n.down_bias, &n.up, &n.up_bias]);
        let lora = self.lora.iter().flat_map(|l| {
            [Some(&l.a), Some(&l.b), l.bias.as_ref(), l.magnitude.as_ref()].into_iter().flatten()
        });
        let own = [&self.outputs, &self.inputs, &self.weight, &self.bias].into_iter().flatten();
        lora.chain(own).chain(neck).map(|v| v.len() as u64).sum()
    }
}

impl Neck {
    /// `[width, d_model]` and `[d_model, width]`.
    pub(crate) fn matrices(&self) -> [Matrix<'_>; 2] {
        let (w, d) = (self.width, self.up_bias.len());
        [part(&self.down, d, Slice::all(w), w), part(&self.up, w, Slice::all(d), d)]
    }
}

impl Lora {
    /// `[rank, inputs]`
    pub(crate) fn down(&self) -> Matrix<'_> {
        part(&self.a, self.a.len() / self.rank, Slice::all(self.rank), self.rank)
    }

    /// `[n, rank]`: the outputs that a place has.
    pub(crate) fn up(&self, rows: Slice, n: usize) -> Matrix<'_> {
        part(&self.b, self.rank, rows, n)
    }
}
