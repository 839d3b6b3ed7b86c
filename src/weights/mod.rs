//! Floor 3: a model's tensors, bound to the places of its family. Matrices stay in their file, as they are (`pack` may
//! bring them into panels later); norms and biases, which are small, are read into f32. Knows no maths.

mod bind;
mod sites;

pub use sites::{End, Role, Site, Sites, Slice};

#[cfg(feature = "train")]
pub use bind::{Fill, Wish};

use crate::arch::Side;
use crate::format::tensors::{TensorRef, Tensors};
#[cfg(feature = "train")]
use crate::{arch::Arch, positions::by_distance};
use kernels::linear::embed_row;
use kernels::quant::dequantize_row;
use kernels::{DType, Matrix, Order};
use std::collections::HashSet;

/// A parameter of a model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct P(pub u32);

/// What a parameter holds.
#[derive(Clone)]
pub enum Param {
    /// A matrix, or a slice of a fused one, in its file.
    Matrix(MatrixParam),
    /// A norm's gain, a bias, or a table that was computed.
    Vector(VectorParam),
    /// A matrix that learns: a private copy, a row of f32 per output.
    Learned(LearnedParam),
}

/// Numbers that were read into private memory.
#[derive(Clone)]
pub struct VectorParam {
    /// As kernels read them.
    pub values: Vec<f32>,
    /// Rows, where they are a table; else 1.
    pub rows: usize,
    /// Where the files have them; nowhere, if they were computed.
    pub origin: Option<Origin>,
}

impl VectorParam {
    /// Numbers that no file has.
    pub fn computed(values: Vec<f32>) -> VectorParam {
        VectorParam { values, rows: 1, origin: None }
    }
}

/// Which elements of a file's tensor a vector is.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The tensor's name in its file.
    pub tensor: String,
    /// Their numbers, where they are not all, in order.
    pub places: Option<Vec<usize>>,
    /// What was added to each.
    pub shift: f32,
}

/// A matrix in the type and order that learning wants.
#[derive(Clone)]
pub struct LearnedParam {
    /// Its name among all that learn.
    pub name: String,
    /// Where it was read from; nowhere, if it was made to learn.
    pub origin: Option<MatrixParam>,
    /// `[n, k]`
    pub values: Vec<f32>,
    /// Outputs and inputs.
    pub shape: [usize; 2],
}

/// Where a matrix lies and how.
#[derive(Clone)]
pub struct MatrixParam {
    /// What a file of packed panels calls it.
    pub name: String,
    /// What its file calls the tensor that holds it.
    pub of: String,
    /// What holds the bytes.
    pub tensor: TensorRef,
    offset: usize,
    dtype: DType,
    order: Order,
    n: usize,
    k: usize,
    stride: usize,
    /// Rows that follow each other, and rows of others between such runs.
    runs: Option<(usize, usize)>,
}

impl MatrixParam {
    /// The matrix.
    pub fn matrix(&self) -> Matrix<'_> {
        let bytes = &self.tensor.bytes()[self.offset..];
        let whole = Matrix::new(bytes, self.dtype, self.order, self.n, self.k, self.stride);
        let matrix = match (whole, self.runs) {
            (Ok(whole), Some((run, skip))) => whole.in_runs(run, skip),
            (whole, _) => whole,
        };
        matrix.expect("checked when it was bound")
    }

    /// Writes `values [n, k]` to their places in all elements of its tensor. Panics where the matrix is packed.
    #[cfg(any(feature = "train", feature = "tokenizer"))]
    pub fn scatter(&self, values: &[f32], whole: &mut [f32]) {
        let (run, skip) = self.runs.unwrap_or((self.n.max(1), 0));
        let width = self.tensor.shape()[1];
        let place = |i: usize| i / run * (run + skip) + i % run;
        for (i, values) in values.chunks_exact(self.k.max(1)).enumerate() {
            match self.order {
                Order::Nk => {
                    let row = self.offset / self.stride.max(1) + place(i);
                    whole[row * width..][..self.k].copy_from_slice(values);
                }
                Order::Kn => {
                    let col = self.offset / self.dtype.block_bytes() + place(i);
                    whole.iter_mut().skip(col).step_by(width).zip(values).for_each(|(to, from)| *to = *from);
                }
                Order::Panels => panic!("a packed matrix has no rows"),
            }
        }
    }

    /// Another matrix of this size, type and order in the place of this one; `tensor` holds nothing else.
    pub fn replaced(&self, tensor: TensorRef) -> MatrixParam {
        let width = if self.order == Order::Kn { self.n } else { self.k };
        let stride = self.dtype.row_bytes(width).expect("rows of whole blocks");
        MatrixParam {
            name: self.name.clone(),
            of: self.of.clone(),
            tensor,
            offset: 0,
            stride,
            runs: None,
            ..*self
        }
    }

    /// The same matrix in packed panels, whose bytes `tensor` holds.
    pub fn packed(&self, tensor: TensorRef) -> MatrixParam {
        let (dtype, order) = (tensor.dtype(), Order::Panels);
        MatrixParam {
            name: self.name.clone(),
            of: self.of.clone(),
            tensor,
            offset: 0,
            dtype,
            order,
            stride: 0,
            runs: None,
            ..*self
        }
    }
}

impl LearnedParam {
    /// The matrix.
    pub fn matrix(&self) -> Matrix<'_> {
        let [n, k] = self.shape;
        let bytes = bytemuck::cast_slice(&self.values);
        Matrix::new(bytes, DType::F32, Order::Nk, n, k, k * 4).expect("checked when it was made")
    }
}

/// Output `i` of a matrix, widened to f32. Panics where there is none, or `out` is not as long as a row.
pub fn matrix_row(w: &Matrix, i: usize, out: &mut [f32]) {
    match w.order() {
        Order::Nk => dequantize_row(w.dtype(), w.row(i), out),
        Order::Panels => embed_row(w, i, out),
        Order::Kn => {
            let size = w.dtype().block_bytes();
            for (r, out) in out.iter_mut().enumerate() {
                dequantize_row(w.dtype(), &w.row(r)[i * size..][..size], std::slice::from_mut(out));
            }
        }
    }
}

impl Param {
    /// The matrix. Panics where it is a vector.
    pub fn matrix(&self) -> Matrix<'_> {
        match self {
            Param::Matrix(m) => m.matrix(),
            Param::Learned(m) => m.matrix(),
            Param::Vector(_) => panic!("a vector where a matrix belongs"),
        }
    }

    /// The vector. Panics where it is a matrix.
    pub fn vector(&self) -> &[f32] {
        let Param::Vector(v) = self else { panic!("a matrix where a vector belongs") };
        &v.values
    }

    /// Inputs and type of a matrix; nothing of a vector.
    pub fn k_dtype(&self) -> (usize, DType) {
        match self {
            Param::Matrix(m) => (m.k, m.dtype),
            Param::Learned(m) => (m.shape[1], DType::F32),
            Param::Vector(_) => (0, DType::F32),
        }
    }

    /// What its file calls the tensor that it is a part of.
    #[cfg(any(feature = "train", feature = "tokenizer"))]
    pub fn tensor_name(&self) -> Option<&str> {
        match self {
            Param::Matrix(m) => Some(m.of.as_str()),
            Param::Learned(m) => m.origin.as_ref().map(|m| m.of.as_str()),
            Param::Vector(v) => v.origin.as_ref().map(|origin| origin.tensor.as_str()),
        }
    }

    /// Writes numbers of its shape to their places in all elements of its tensor.
    #[cfg(any(feature = "train", feature = "tokenizer"))]
    pub fn scatter(&self, values: &[f32], whole: &mut [f32]) {
        match self {
            Param::Matrix(m) => m.scatter(values, whole),
            Param::Learned(LearnedParam { origin: Some(m), .. }) => m.scatter(values, whole),
            Param::Vector(VectorParam { origin: Some(origin), .. }) => {
                for (i, value) in values.iter().enumerate() {
                    whole[origin.places.as_ref().map_or(i, |places| places[i])] = *value;
                }
            }
            Param::Learned(_) | Param::Vector(_) => {}
        }
    }

    /// Writes its own numbers there, as a file has them. Nothing of a matrix that does not learn.
    #[cfg(feature = "train")]
    pub fn put(&self, whole: &mut [f32]) {
        match self {
            Param::Learned(m) => self.scatter(&m.values, whole),
            Param::Vector(v) => {
                let shift = v.origin.as_ref().map_or(0.0, |origin| origin.shift);
                let stored: Vec<f32> = v.values.iter().map(|value| value - shift).collect();
                self.scatter(&stored, whole);
            }
            Param::Matrix(_) => {}
        }
    }

    /// Rows and columns: of a plain vector, one row.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Param::Matrix(m) => [m.n, m.k],
            Param::Learned(m) => m.shape,
            Param::Vector(v) => [v.rows, v.values.len().checked_div(v.rows).unwrap_or(0)],
        }
    }
}

/// A norm's parameters.
#[derive(Clone, Copy, Debug)]
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
    pub lora: Option<LoraW>,
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
    /// Of the embeddings.
    pub embed_norm: Option<NormW>,
    /// From the table's width to the stream's.
    pub project: Option<LinearW>,
    /// What is added to scores: ALiBi's slopes, or a table of distances.
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

    /// Every linear, in the order of the program; the head last.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut LinearW> {
        let stacks = [&mut self.encoder, &mut self.decoder].into_iter().flatten();
        let head = self.head.iter_mut().flat_map(|head| head.dense.iter_mut().chain(&mut head.out));
        stacks.flat_map(StackW::linears_mut).chain(head)
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
    fn linears_mut(&mut self) -> impl Iterator<Item = &mut LinearW> {
        let layers = self.layers.iter_mut().flat_map(|layer| {
            let Layer { attn, cross, gate, up, down, .. } = layer;
            let attentions = [attn].into_iter().chain(cross);
            let attentions = attentions.flat_map(|a| [&mut a.q, &mut a.k, &mut a.v, &mut a.o]);
            attentions.chain(gate).chain([up, down])
        });
        self.project.iter_mut().chain(layers)
    }
}
