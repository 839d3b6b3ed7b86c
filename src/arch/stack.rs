//! Floor 3: a stack of transformer blocks as data: sizes, wiring, and where order comes from. Knows no names and no maths.

use kernels::act::Act;
use kernels::norm::Norm;
use kernels::rope::Rope;

use super::names::Names;

/// A stack of blocks that are alike: an encoder or a decoder.
///
/// How norms and residuals are wired is a matter of which norms a block has, see [`super::Around`].
#[derive(Clone, Debug, PartialEq)]
pub struct Stack {
    /// Blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Inner width of the MLP.
    pub d_ff: usize,
    /// How tokens become the stream's first state.
    pub embed: Embed,
    /// Where order comes from.
    pub position: Position,
    /// All norms.
    pub norm: Norms,
    /// The mixer of every block.
    pub mixer: Mixer,
    /// The MLP of every block.
    pub mlp: Mlp,
    /// Whether the MLP reads what attention reads, not what attention returns (Wang and Komatsuzaki 2021). Without a norm
    /// of its own it shares attention's.
    pub parallel: bool,
    /// What the tensors are called.
    pub names: Names,
}

/// How tokens become vectors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Embed {
    /// Rows of the table.
    pub vocab: usize,
    /// Its width; where it is not `d_model`, a linear widens it. Positions are added before it where a norm follows them
    /// (ELECTRA), else after it (OPT, whose last states a linear narrows again).
    pub width: usize,
    /// What its rows are multiplied by.
    pub scale: f32,
    /// Rows of the table of token types; 0 without one.
    pub types: usize,
}

/// Where a stack takes the order of its tokens from.
#[derive(Clone, Debug, PartialEq)]
pub enum Position {
    /// Queries and keys are rotated (Su et al. 2021).
    Rope {
        /// By these angles,
        all: Rope,
        /// or, in blocks with a window, by these.
        local: Option<Rope>,
    },
    /// A table is added to the token embeddings.
    Table {
        /// Which one.
        table: Table,
        /// Its row for the first token.
        offset: usize,
        /// A token that takes row `offset - 1` and counts for no position.
        pad: Option<u32>,
    },
    /// A slope for each head, times the distance, is added to scores (Press et al. 2022, ALiBi).
    Alibi {
        /// What the paper's slopes are multiplied by.
        scale: f32,
        /// Whether slopes, positions and their products are bf16, whatever the model is in (Falcon).
        coarse: bool,
    },
    /// A learned bias for each head and range of distances is added to scores (Raffel et al. 2020).
    Relative {
        /// Ranges of distances.
        buckets: usize,
        /// Distances from here on are one range.
        far: usize,
        /// Of a learned table that is added to the token embeddings as well (MPNet), the row that this token takes; the
        /// first position has the one after.
        pad: Option<u32>,
    },
}

/// A table of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Of parameters.
    Learned,
    /// Sines of all frequencies, then cosines; `2 i / d` is the exponent of frequency `i` (Marian).
    Sinusoidal,
    /// The same with `i / (d / 2 - 1)`, in which the highest frequency is reached (tensor2tensor, fairseq).
    Tensor2Tensor,
    /// Sines and cosines in turn (Vaswani et al. 2017, section 3.5).
    Interleaved,
}

/// What all norms of a stack are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norms {
    /// Which norm.
    pub kind: Norm,
    /// Its epsilon.
    pub eps: f32,
    /// Whether there are biases.
    pub bias: bool,
    /// What is added to gains as they are stored.
    pub gain: f32,
    /// Whether there are no parameters at all: gains are 1.
    pub plain: bool,
}

impl Norms {
    /// `RMSNorm` (Zhang and Sennrich 2019).
    #[must_use]
    pub fn rms(eps: f32) -> Norms {
        Norms { kind: Norm::Rms, eps, bias: false, gain: 0.0, plain: false }
    }

    /// `LayerNorm` (Ba et al. 2016).
    #[must_use]
    pub fn layer(eps: f32) -> Norms {
        Norms { kind: Norm::Layer, eps, bias: true, gain: 0.0, plain: false }
    }
}

/// How a block mixes positions. Recurrent mixers will be further variants.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    /// Softmax attention (Vaswani et al. 2017, eq. 1), grouped queries.
    Attention(Attention),
}

/// Softmax attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// What scores are multiplied by, usually 1 / sqrt(head_dim).
    pub scale: f32,
    /// Whether a position sees only itself and those before.
    pub causal: bool,
    /// A position sees the `window - 1` before it and, where it sees what follows, as many after it.
    pub window: Option<u32>,
    /// Which blocks have the window; empty: all.
    pub local: Vec<bool>,
    /// Scores become `cap * tanh(score / cap)` (Gemma 2).
    pub cap: Option<f32>,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Whether each block attends to an encoder's output as well.
    pub cross: bool,
}

impl Attention {
    /// Plain causal attention over heads of `head_dim`.
    #[must_use]
    pub fn causal(head_dim: usize) -> Attention {
        Attention {
            scale: (head_dim as f32).sqrt().recip(),
            causal: true,
            window: None,
            local: Vec::new(),
            cap: None,
            qk_norm: QkNorm::None,
            cross: false,
        }
    }

    /// Plain attention to all positions.
    #[must_use]
    pub fn full(head_dim: usize) -> Attention {
        Attention { causal: false, ..Attention::causal(head_dim) }
    }

    /// The window of a block.
    #[must_use]
    pub fn window_of(&self, layer: usize) -> Option<u32> {
        self.window.filter(|_| self.local.get(layer).copied().unwrap_or(self.local.is_empty()))
    }
}

/// Norms of queries and keys before they turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// Each head by itself (Qwen3).
    Head,
    /// All heads of a row together (OLMo 2).
    Row,
}

/// The position-wise half of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mlp {
    /// `down(act(gate x) * up x)` (Shazeer 2020).
    Gated(Act),
    /// `down(act(up x))`.
    Plain(Act),
}

impl Stack {
    /// Whether positions are added to the stream itself, after the table of tokens was widened.
    #[must_use]
    pub fn places_stream(&self) -> bool {
        self.embed.width != self.d_model && self.names.embed_norm.is_empty()
    }

    /// Columns of what the stack returns.
    #[must_use]
    pub fn state_cols(&self) -> usize {
        if self.names.project_out.name.is_empty() { self.d_model } else { self.embed.width }
    }

    /// Columns of the queries of one row.
    #[must_use]
    pub fn q_cols(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Columns of the keys (or the values) of one row.
    #[must_use]
    pub fn kv_cols(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// The table that is added to token embeddings: which one, its row for the first token, and the token that takes the
    /// row before that one.
    #[must_use]
    pub fn table(&self) -> Option<(Table, usize, Option<u32>)> {
        match self.position {
            Position::Table { table, offset, pad } => Some((table, offset, pad)),
            Position::Relative { pad: Some(pad), .. } => Some((Table::Learned, pad as usize + 1, Some(pad))),
            _ => None,
        }
    }

    /// Its attention.
    #[must_use]
    pub fn attention(&self) -> &Attention {
        let Mixer::Attention(attention) = &self.mixer;
        attention
    }
}
