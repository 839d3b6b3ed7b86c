//! Floor 3: what a stack's tensors are called. Knows no files.

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
    /// Which outputs, where one tensor holds several layers.
    pub part: Part,
}

/// A part of a fused tensor's outputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The queries of a tensor that holds keys and values too.
    Q(Fused),
    /// The keys.
    K(Fused),
    /// The values.
    V(Fused),
    /// The first half: the gate of an MLP.
    Gate,
    /// The second half.
    Up,
}

/// How queries, keys and values share a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fused {
    /// All queries, then all keys, then all values.
    Concat,
    /// For each head of keys and values: its queries, its keys, its values.
    Groups,
}

impl Part {
    /// What a file of packed panels adds to the tensor's name: there every part is a tensor of its own.
    pub fn suffix(self) -> &'static str {
        match self {
            Part::Whole => "",
            Part::Q(_) => ".q",
            Part::K(_) => ".k",
            Part::V(_) => ".v",
            Part::Gate => ".gate",
            Part::Up => ".up",
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

    /// A part of the same.
    #[must_use]
    pub const fn part(self, part: Part) -> Linear {
        Linear { part, ..self }
    }
}

/// Norms around half a block, by name; "" where there is none. These say how a block is wired: `before` alone is pre-norm,
/// `after` alone the post-norm of 2017, `before` and `inner` the sandwich of Gemma 2, `inner` alone OLMo 2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Around {
    /// Of what the half reads.
    pub before: &'static str,
    /// Of what it returns, before the residual is added.
    pub inner: &'static str,
    /// Of the sum with the residual.
    pub after: &'static str,
}

impl Around {
    /// Without norms.
    pub const NONE: Around = Around { before: "", inner: "", after: "" };

    /// Pre-norm.
    pub const fn before(name: &'static str) -> Around {
        Around { before: name, ..Around::NONE }
    }

    /// Post-norm.
    pub const fn after(name: &'static str) -> Around {
        Around { after: name, ..Around::NONE }
    }
}

/// What the tensors of a stack are called; "" for what it does not have. Norms have `.weight`, and `.bias` where the
/// stack's norms have biases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Names {
    /// The embedding table.
    pub tokens: &'static str,
    /// The table of learned positions.
    pub positions: &'static str,
    /// The table of token types.
    pub types: &'static str,
    /// The norm of the embeddings.
    pub embed_norm: &'static str,
    /// From the table's width to the stream's.
    pub project: Linear,
    /// From the stream's width back to the table's, after the last norm.
    pub project_out: Linear,
    /// Biases of relative positions `[buckets, n_heads]`.
    pub relative: &'static str,
    /// Before the names of a block, with `{}` for its number.
    pub block: &'static str,
    /// Norms around attention.
    pub attn: Around,
    /// Queries.
    pub q: Linear,
    /// Keys.
    pub k: Linear,
    /// Values.
    pub v: Linear,
    /// Norms of queries and keys.
    pub qk_norm: [&'static str; 2],
    /// Attention's output.
    pub o: Linear,
    /// Norms around attention to the encoder's output.
    pub cross: Around,
    /// Its queries, keys, values and output.
    pub cross_qkvo: [Linear; 4],
    /// Norms around the MLP.
    pub mlp: Around,
    /// The gate, of a gated MLP.
    pub gate: Linear,
    /// Into the MLP.
    pub up: Linear,
    /// Out of the MLP.
    pub down: Linear,
    /// The norm after the last block.
    pub norm: &'static str,
    /// A norm that the first block lacks (ModernBERT).
    pub not_in_first: &'static str,
}

const NONE: Linear = Linear::new("");

impl Names {
    /// Nothing has a name.
    pub const NONE: Names = Names {
        tokens: "",
        positions: "",
        types: "",
        embed_norm: "",
        project: NONE,
        project_out: NONE,
        relative: "",
        block: "",
        attn: Around::NONE,
        q: NONE,
        k: NONE,
        v: NONE,
        qk_norm: ["", ""],
        o: NONE,
        cross: Around::NONE,
        cross_qkvo: [NONE; 4],
        mlp: Around::NONE,
        gate: NONE,
        up: NONE,
        down: NONE,
        norm: "",
        not_in_first: "",
    };

    /// Names whose queries, keys and values are parts of one tensor.
    #[must_use]
    pub const fn fused(self, qkv: Linear, how: Fused) -> Names {
        Names { q: qkv.part(Part::Q(how)), k: qkv.part(Part::K(how)), v: qkv.part(Part::V(how)), ..self }
    }

    /// Names whose attention has biases, where `qkv`, and at its output, where `o`.
    #[must_use]
    pub const fn attn_bias(self, qkv: bool, o: bool) -> Names {
        Names { q: self.q.bias(qkv), k: self.k.bias(qkv), v: self.v.bias(qkv), o: self.o.bias(o), ..self }
    }

    /// Names whose MLP has biases, where `bias`.
    #[must_use]
    pub const fn mlp_bias(self, bias: bool) -> Names {
        Names { gate: self.gate.bias(bias), up: self.up.bias(bias), down: self.down.bias(bias), ..self }
    }
}
