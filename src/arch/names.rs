//! Floor 3: what a family's tensors are called. Knows no files.

use kernels::Order;

/// A linear layer's tensors: `{name}.weight` and, where `bias`, `{name}.bias`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    /// Name without `.weight`; inside a block relative to the block's prefix.
    pub name: &'static str,
    /// Whether it has a bias.
    pub bias: bool,
    /// How the weight lies in a safetensors file. (GGUF always has a row of bytes per output.)
    pub order: Order,
    /// Which slice of the outputs, where one tensor holds several layers.
    pub part: Part,
}

/// A slice of a fused tensor's outputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// All of it.
    Whole,
    /// Queries, keys and values one after the other; this is the first.
    Q,
    /// The second.
    K,
    /// The third.
    V,
}

impl Part {
    /// What a file of packed panels adds to the tensor's name: there every slice is a tensor of its own.
    pub fn suffix(self) -> &'static str {
        match self {
            Part::Whole => "",
            Part::Q => ".q",
            Part::K => ".k",
            Part::V => ".v",
        }
    }
}

impl Linear {
    /// A plain `torch.nn.Linear` without bias.
    pub const fn new(name: &'static str) -> Linear {
        Linear { name, bias: false, order: Order::Nk, part: Part::Whole }
    }

    /// The same with a bias, where `bias`.
    #[must_use]
    pub const fn bias(self, bias: bool) -> Linear {
        Linear { bias, ..self }
    }

    /// The same as `Conv1D` of GPT-2: a row of the file per input.
    #[must_use]
    pub const fn conv1d(self) -> Linear {
        Linear { order: Order::Kn, ..self }
    }

    /// The same, a slice of it.
    #[must_use]
    pub const fn part(self, part: Part) -> Linear {
        Linear { part, ..self }
    }
}

/// What the tensors of a family are called. Norms have `.weight`, and `.bias` where they are LayerNorms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Names {
    /// Before all names but the head's; a file saved from the bare model lacks it.
    pub prefix: &'static str,
    /// The embedding table.
    pub tokens: &'static str,
    /// The table of learned positions.
    pub positions: &'static str,
    /// Before the names of a block, with `{}` for its number.
    pub block: &'static str,
    /// The norm before attention.
    pub attn_norm: &'static str,
    /// Queries.
    pub q: Linear,
    /// Keys.
    pub k: Linear,
    /// Values.
    pub v: Linear,
    /// Attention's output.
    pub o: Linear,
    /// The norm before the MLP.
    pub mlp_norm: &'static str,
    /// The gate, of a gated MLP.
    pub gate: Option<Linear>,
    /// Into the MLP.
    pub up: Linear,
    /// Out of the MLP.
    pub down: Linear,
    /// The norm before the head.
    pub norm: &'static str,
    /// The head, where it is not the embedding table.
    pub head: Linear,
    /// Endings of tensors that hold nothing a run needs.
    pub ignored: &'static [&'static str],
}
