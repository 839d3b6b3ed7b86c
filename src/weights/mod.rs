//! Floor 3: a model's tensors, bound to the places of its family. Matrices stay in their file, as they are (`pack` may
//! bring them into panels later); norms and biases, which are small, are read into f32. Knows no maths.

mod bind;
mod param;
mod sites;

#[cfg(feature = "train")]
pub use param::LearnedParam;
#[cfg(feature = "train")]
pub use param::matrix_rows;
pub use param::{MatrixParam, Origin, Param, VectorParam, matrix_row};
#[cfg(feature = "train")]
pub use sites::End;
pub use sites::{Role, Site, Sites, Slice};

#[cfg(feature = "train")]
pub use bind::{Fill, Wish};

use crate::arch::Side;
use crate::format::tensors::{TensorRef, Tensors};
#[cfg(feature = "train")]
use crate::{arch::Arch, positions::by_distance};
use kernels::DType;
use kernels::act::Act;
use std::collections::HashSet;

/// A parameter of a model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct P(pub u32);

/// A norm's parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormW {
    /// `[width]`
    pub gain: P,
    /// `[width]`, of a LayerNorm.
    pub bias: Option<P>,
    /// Elements that are normed together.
    pub width: usize,
}

/// A linear's parameters.
#[derive(Clone, Copy, Debug)]
pub struct LinearW {
    /// The matrix.
    pub w: P,
    /// `[n]`
    pub bias: Option<P>,
    /// Outputs.
    pub n: usize,
    /// Type of the matrix.
    pub dtype: DType,
    /// What an adapter that learns adds.
    pub added: AddedW,
}

/// What an adapter that learns adds to a linear.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AddedW {
    /// A narrow product.
    pub lora: Option<LoraW>,
    /// `[k]`: what inputs are multiplied by (Liu et al. 2022).
    pub inputs: Option<P>,
    /// `[n]`: what outputs are multiplied by.
    pub outputs: Option<P>,
    /// A small MLP behind it.
    pub neck: Option<NeckW>,
}

/// A small MLP `up act(down x + down_bias) + up_bias` behind the linear that ends a half of a block (Houlsby et al. 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NeckW {
    /// `[width, d_model]`
    pub down: P,
    /// `[width]`
    pub down_bias: P,
    /// `[d_model, width]`
    pub up: P,
    /// `[d_model]`
    pub up_bias: P,
    /// Its inner width.
    pub width: usize,
    /// Between the matrices.
    pub act: Act,
    /// Whether it reads the half's sum with the residual, not what comes before.
    pub sum: bool,
    /// The norm of the sum that it reads then.
    pub after: Option<NormW>,
}

/// A low-rank addition to a linear that learns: `scale B A x` (Hu et al. 2021, eq. 3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraW {
    /// `[rank, k]`
    pub a: P,
    /// `[n, rank]`
    pub b: P,
    /// Rows of the first and columns of the second.
    pub rank: usize,
    /// What the addition is multiplied by.
    pub scale: f32,
    /// Magnitudes apart from directions, where they are.
    pub dora: Option<DoraW>,
}

/// Magnitudes of the rows of a matrix and its addition (Liu et al. 2024, eq. 5). Only they learn; the others follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DoraW {
    /// `[n]`
    pub magnitude: P,
    /// `[n]`: the lengths that the rows have.
    pub lengths: P,
    /// `[n]`: magnitudes over them.
    pub gains: P,
    /// `[n]`: what is added to outputs times gains, so that the bias is not multiplied.
    pub shifts: Option<P>,
}

/// Norms around half a block.
#[derive(Clone, Copy, Debug)]
pub struct AroundW {
    /// Of what the half reads.
    pub before: Option<NormW>,
    /// Of what it returns, before the residual is added.
    pub inner: Option<NormW>,
    /// Of the sum with the residual.
    pub after: Option<NormW>,
}

/// Attention's parameters.
#[derive(Clone)]
pub struct AttentionW {
    /// Norms around it.
    pub around: AroundW,
    /// Queries.
    pub q: LinearW,
    /// Keys.
    pub k: LinearW,
    /// Values.
    pub v: LinearW,
    /// Norms of queries and keys.
    pub qk_norm: Option<[NormW; 2]>,
    /// Keys and values `[tokens, kv]` of the first positions, of a prefix that learns (Li and Liang 2021).
    pub prefix: Option<[P; 2]>,
    /// Out of attention.
    pub o: LinearW,
}

/// A block's parameters.
#[derive(Clone)]
pub struct Layer {
    /// Attention to its own positions.
    pub attn: AttentionW,
    /// Attention to an encoder's output.
    pub cross: Option<AttentionW>,
    /// Norms around the MLP.
    pub mlp: AroundW,
    /// Gate, of a gated MLP.
    pub gate: Option<LinearW>,
    /// Into the MLP.
    pub up: LinearW,
    /// Out of the MLP.
    pub down: LinearW,
}

/// A stack's parameters.
#[derive(Clone)]
pub struct StackW {
    /// Embedding table `[vocab, width]`.
    pub tokens: P,
    /// Positions `[max_positions + offset, width]`.
    pub positions: Option<P>,
    /// Token types `[types, width]`.
    pub types: Option<P>,
    /// Vectors `[tokens, width]` of the first positions, of a prompt that learns (Lester et al. 2021).
    pub prompt: Option<P>,
    /// Of the embeddings.
    pub embed_norm: Option<NormW>,
    /// From the table's width to the stream's.
    pub project: Option<LinearW>,
    /// And back, after the last norm.
    pub project_out: Option<LinearW>,
    /// What is added to scores: ALiBi's slopes, or a table of distances or positions.
    pub bias: Option<P>,
    /// The biases that a table of distances is made of, `[ranges, heads]`: see [`Weights::follow`].
    pub distances: Option<P>,
    /// Blocks.
    pub layers: Vec<Layer>,
    /// After the last block.
    pub norm: Option<NormW>,
}

/// A head's parameters.
#[derive(Clone)]
pub struct HeadW {
    /// The linear before the last.
    pub dense: Option<LinearW>,
    /// The norm after it.
    pub norm: Option<NormW>,
    /// What gives the logits.
    pub out: Option<LinearW>,
}

/// A family's places, filled.
#[derive(Clone)]
pub struct Weights {
    /// All parameters.
    pub params: Vec<Param>,
    /// Of the encoder.
    pub encoder: Option<StackW>,
    /// Of the decoder.
    pub decoder: Option<StackW>,
    /// Of the head; `None` where files may lack it and do.
    pub head: Option<HeadW>,
    /// Of the head that says what a state is worth (Schulman et al. 2017), of a model that learns by reward.
    pub value: Option<LinearW>,
    /// Where adapters can be grafted.
    pub sites: Sites,
    /// Names of the tensors that matrices were bound to.
    matrices: HashSet<String>,
}

impl Weights {
    /// Of one of the stacks.
    pub fn side(&self, side: Side) -> Option<&StackW> {
        match side {
            Side::Encoder => self.encoder.as_ref(),
            Side::Decoder => self.decoder.as_ref(),
        }
    }

    /// The logits' matrix.
    pub fn logits(&self) -> Option<P> {
        Some(self.head.as_ref()?.out?.w)
    }

    /// The tables of tokens.
    pub fn tables(&self) -> impl Iterator<Item = P> + '_ {
        [&self.encoder, &self.decoder].into_iter().flatten().map(|stack| stack.tokens)
    }

    /// Every linear, in the order of the program; the head last.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut LinearW> {
        let stacks = [&mut self.encoder, &mut self.decoder].into_iter().flatten();
        let head = self.head.iter_mut().flat_map(|head| head.dense.iter_mut().chain(&mut head.out));
        stacks.flat_map(StackW::linears_mut).chain(head)
    }

    /// The same, to be looked at.
    #[cfg(feature = "train")]
    pub fn linears(&self) -> impl Iterator<Item = &LinearW> {
        let stacks = [&self.encoder, &self.decoder].into_iter().flatten();
        let head = self.head.iter().flat_map(|head| head.dense.iter().chain(&head.out));
        stacks.flat_map(StackW::linears).chain(head)
    }

    /// Tells every linear the type that its matrix has now.
    pub fn retype(&mut self) {
        let types: Vec<DType> = self.params.iter().map(|p| p.k_dtype().1).collect();
        for linear in self.linears_mut() {
            linear.dtype = types[linear.w.0 as usize];
        }
    }

    /// Makes the tables that attention reads anew, of biases that may have learned.
    #[cfg(feature = "train")]
    pub fn follow(&mut self, arch: &Arch) {
        for side in [Side::Encoder, Side::Decoder] {
            let (Some(stack), Some(own)) = (arch.side(side), self.side(side)) else { continue };
            let (Some(bias), Some(distances)) = (own.bias, own.distances) else { continue };
            let values = by_distance(stack, self.params[distances.0 as usize].vector());
            self.params[bias.0 as usize] = Param::Vector(VectorParam::computed(values));
        }
    }

    /// Every tensor of the model as a file of packed panels has it: matrices as they are held now, by their own names
    /// there, and what `tensors` has beside them.
    pub fn tensors<'a>(&'a self, tensors: &'a Tensors) -> Vec<(String, &'a TensorRef)> {
        let own = self.params.iter().filter_map(|p| match p {
            Param::Matrix(m) if !m.name.is_empty() => Some((m.name.clone(), &m.tensor)),
            _ => None,
        });
        let rest = tensors.iter().filter(|(name, _)| !self.matrices.contains(*name));
        own.chain(rest.map(|(name, tensor)| (name.to_owned(), tensor))).collect()
    }

    /// Bytes of the parameters that were read into private memory.
    pub fn private_bytes(&self) -> u64 {
        let bytes = |p: &Param| match p {
            Param::Vector(v) => v.values.len() as u64 * 4,
            Param::Learned(m) => m.values.len() as u64 * 4,
            Param::Matrix(m) if m.tensor.source().is_anonymous() => m.tensor.bytes().len() as u64,
            Param::Matrix(_) => 0,
        };
        self.params.iter().map(bytes).sum()
    }
}

impl StackW {
    #[cfg(feature = "train")]
    fn linears(&self) -> impl Iterator<Item = &LinearW> {
        let layers = self.layers.iter().flat_map(|layer| {
            let Layer { attn, cross, gate, up, down, .. } = layer;
            let attentions = [attn].into_iter().chain(cross);
            let attentions = attentions.flat_map(|a| [&a.q, &a.k, &a.v, &a.o]);
            attentions.chain(gate).chain([up, down])
        });
        self.project.iter().chain(layers).chain(&self.project_out)
    }

    fn linears_mut(&mut self) -> impl Iterator<Item = &mut LinearW> {
        let layers = self.layers.iter_mut().flat_map(|layer| {
            let Layer { attn, cross, gate, up, down, .. } = layer;
            let attentions = [attn].into_iter().chain(cross);
            let attentions = attentions.flat_map(|a| [&mut a.q, &mut a.k, &mut a.v, &mut a.o]);
            attentions.chain(gate).chain([up, down])
        });
        self.project.iter_mut().chain(layers).chain(&mut self.project_out)
    }
}
