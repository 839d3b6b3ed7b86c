//! Floor 3: a model's tensors, bound to the places of its family. Matrices stay in their file, as they are (`pack` may
//! bring them into panels later); norms and biases, which are small, are read into f32. Knows no maths.

use crate::arch::{Arch, Linear, Part, Position};
use crate::error::{Error, Result};
use crate::format::tensors::{TensorRef, Tensors};
use kernels::norm::Norm;
use kernels::{DType, Matrix, Order, quant};
use std::collections::HashSet;

/// A parameter of a model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct P(pub u32);

/// What a parameter holds.
pub enum Param {
    /// A matrix, or a slice of a fused one, in its file.
    Matrix(MatrixParam),
    /// A norm's gain or a bias.
    Vector(Vec<f32>),
}

/// Where a matrix lies and how.
pub struct MatrixParam {
    /// What a file of packed panels calls it.
    pub name: String,
    /// What holds the bytes.
    pub tensor: TensorRef,
    offset: usize,
    dtype: DType,
    order: Order,
    n: usize,
    k: usize,
    stride: usize,
}

impl MatrixParam {
    /// The matrix.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.tensor.bytes()[self.offset..], self.dtype, self.order, self.n, self.k, self.stride)
            .expect("checked when it was bound")
    }

    /// The same matrix in packed panels, whose bytes `tensor` holds.
    pub fn packed(&self, tensor: TensorRef) -> MatrixParam {
        let (dtype, order) = (tensor.dtype(), Order::Panels);
        MatrixParam { name: self.name.clone(), tensor, offset: 0, dtype, order, stride: 0, ..*self }
    }
}

impl Param {
    /// The matrix. Panics where it is a vector.
    pub fn matrix(&self) -> Matrix<'_> {
        let Param::Matrix(m) = self else { panic!("a vector where a matrix belongs") };
        m.matrix()
    }

    /// The vector. Panics where it is a matrix.
    pub fn vector(&self) -> &[f32] {
        let Param::Vector(v) = self else { panic!("a matrix where a vector belongs") };
        v
    }

    /// Inputs and type of a matrix; nothing of a vector.
    pub fn k_dtype(&self) -> (usize, DType) {
        match self {
            Param::Matrix(m) => (m.k, m.dtype),
            Param::Vector(_) => (0, DType::F32),
        }
    }
}

/// A norm's parameters.
#[derive(Clone, Copy, Debug)]
pub struct NormW {
    /// `[d_model]`
    pub gain: P,
    /// `[d_model]`, of a LayerNorm.
    pub bias: Option<P>,
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
}

/// A block's parameters.
pub struct Layer {
    /// Before attention.
    pub attn_norm: NormW,
    /// Queries.
    pub q: LinearW,
    /// Keys.
    pub k: LinearW,
    /// Values.
    pub v: LinearW,
    /// Out of attention.
    pub o: LinearW,
    /// Before the MLP.
    pub mlp_norm: NormW,
    /// Gate, of a gated MLP.
    pub gate: Option<LinearW>,
    /// Into the MLP.
    pub up: LinearW,
    /// Out of the MLP.
    pub down: LinearW,
}

/// A family's places, filled.
pub struct Weights {
    /// All parameters.
    pub params: Vec<Param>,
    /// Embedding table `[vocab, d_model]`.
    pub tokens: P,
    /// Positions `[max_positions, d_model]`.
    pub positions: Option<P>,
    /// Blocks.
    pub layers: Vec<Layer>,
    /// Before the head.
    pub norm: NormW,
    /// `[vocab, d_model]`
    pub head: LinearW,
    /// Names of the tensors that matrices were bound to.
    matrices: HashSet<String>,
}

impl Weights {
    /// Binds every tensor that `arch` names.
    ///
    /// # Errors
    /// `Tensor` for one that is missing, misshapen, of a type that cannot stand there, or that nothing uses.
    pub fn bind(arch: &Arch, tensors: &Tensors) -> Result<Weights> {
        let mut b =
            Binder { arch, tensors, used: HashSet::new(), matrices: HashSet::new(), params: Vec::new() };
        let (d, vocab) = (arch.d_model, arch.vocab);
        let tokens = b.table(arch.names.tokens, vocab, d)?;
        let positions = match arch.position {
            Position::Learned => Some(b.table(arch.names.positions, arch.max_positions, d)?),
            Position::Rope(_) => None,
        };
        let mut layers = Vec::new();
        for i in 0..arch.n_layers {
            layers.push(b.layer(i)?);
        }
        let norm = b.norm(arch.names.norm)?;
        let head = if arch.tied {
            b.used.insert(format!("{}.weight", arch.names.head.name));
            LinearW { w: tokens, bias: None, n: vocab, dtype: b.params[tokens.0 as usize].k_dtype().1 }
        } else {
            b.linear("", &arch.names.head, vocab, d)?
        };
        b.unused()?;
        Ok(Weights { params: b.params, tokens, positions, layers, norm, head, matrices: b.matrices })
    }

    /// Every linear, in the order of the program; the head last.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut LinearW> {
        let layers = self.layers.iter_mut().flat_map(|layer| {
            let Layer { q, k, v, o, gate, up, down, .. } = layer;
            [q, k, v, o].into_iter().chain(gate).chain([up, down])
        });
        layers.chain([&mut self.head])
    }

    /// Every tensor of the model as a file of packed panels has it: matrices as they are held now, by their own names
    /// there, and what `tensors` has beside them.
    pub fn tensors<'a>(&'a self, tensors: &'a Tensors) -> Vec<(String, &'a TensorRef)> {
        let own = self.params.iter().filter_map(|p| match p {
            Param::Matrix(m) => Some((m.name.clone(), &m.tensor)),
            Param::Vector(_) => None,
        });
        let rest = tensors.iter().filter(|(name, _)| !self.matrices.contains(*name));
        own.chain(rest.map(|(name, tensor)| (name.to_owned(), tensor))).collect()
    }

    /// Bytes of the parameters that were read into private memory.
    pub fn private_bytes(&self) -> u64 {
        let bytes = |p: &Param| match p {
            Param::Vector(v) => v.len() as u64 * 4,
            Param::Matrix(m) if m.tensor.source().is_anonymous() => m.tensor.bytes().len() as u64,
            Param::Matrix(_) => 0,
        };
        self.params.iter().map(bytes).sum()
    }
}

struct Binder<'a> {
    arch: &'a Arch,
    tensors: &'a Tensors,
    used: HashSet<String>,
    matrices: HashSet<String>,
    params: Vec<Param>,
}

impl<'a> Binder<'a> {
    /// A tensor by its name, with the family's prefix or, in a file saved from the bare model, without.
    fn find(&mut self, name: &str) -> Result<&'a TensorRef> {
        let long = format!("{}{name}", self.arch.names.prefix);
        for name in [long.as_str(), name] {
            if let Some(tensor) = self.tensors.get(name)? {
                self.used.insert(name.to_owned());
                return Ok(tensor);
            }
        }
        let what = format!("is missing; a model of family {} has it", self.arch.family);
        Err(Error::Tensor { file: self.tensors.file().to_owned(), tensor: long, what })
    }

    fn wrong(&self, tensor: &str, expected: &str, found: &TensorRef) -> Error {
        let what = format!("expected {expected}, found {} {:?}", found.dtype().name(), found.shape());
        Error::Tensor { file: found.file().to_owned(), tensor: tensor.to_owned(), what }
    }

    fn push(&mut self, param: Param) -> P {
        self.params.push(param);
        P(self.params.len() as u32 - 1)
    }

    /// `len` floats of a vector, from `at`, of one that is `whole` long.
    fn vector(&mut self, name: &str, at: usize, len: usize, whole: usize) -> Result<P> {
        let tensor = self.find(name)?;
        let dense = tensor.dtype().block() == 1 && !tensor.is_packed();
        if tensor.shape() != [whole] || !dense {
            return Err(self.wrong(name, &format!("a float vector [{whole}]"), tensor));
        }
        let mut all = vec![0.0; whole];
        quant::dequantize_row(tensor.dtype(), tensor.bytes(), &mut all);
        all.copy_within(at..at + len, 0);
        all.truncate(len);
        Ok(self.push(Param::Vector(all)))
    }

    fn norm(&mut self, name: &str) -> Result<NormW> {
        let d = self.arch.d_model;
        let gain = self.vector(&format!("{name}.weight"), 0, d, d)?;
        let bias = match self.arch.norm {
            Norm::Layer => Some(self.vector(&format!("{name}.bias"), 0, d, d)?),
            Norm::Rms => None,
        };
        Ok(NormW { gain, bias })
    }

    /// A table of rows, read by number.
    fn table(&mut self, name: &str, n: usize, k: usize) -> Result<P> {
        let name = format!("{name}.weight");
        let whole = Linear::new("");
        Ok(self.matrix(&name, &whole, n, k)?.0)
    }

    fn linear(&mut self, prefix: &str, slot: &Linear, n: usize, k: usize) -> Result<LinearW> {
        let name = format!("{prefix}{}", slot.name);
        let (w, dtype) = self.matrix(&format!("{name}.weight"), slot, n, k)?;
        let bias = if slot.bias {
            let (at, whole) = self.slice(slot, n);
            Some(self.vector(&format!("{name}.bias"), at, n, whole)?)
        } else {
            None
        };
        Ok(LinearW { w, bias, n, dtype })
    }

    /// First output and number of outputs of the tensor that `slot` is a part of.
    fn slice(&self, slot: &Linear, n: usize) -> (usize, usize) {
        let (q, kv) = (self.arch.q_cols(), self.arch.kv_cols());
        match slot.part {
            Part::Whole => (0, n),
            Part::Q => (0, q + 2 * kv),
            Part::K => (q, q + 2 * kv),
            Part::V => (q + kv, q + 2 * kv),
        }
    }

    fn matrix(&mut self, name: &str, slot: &Linear, n: usize, k: usize) -> Result<(P, DType)> {
        let own = format!("{name}{}", slot.part.suffix());
        let tensor = match self.tensors.get(&format!("{}{own}", self.arch.names.prefix))? {
            Some(packed) if packed.is_packed() => return self.panels(&own, packed.clone(), [n, k]),
            _ => self.find(name)?,
        };
        if tensor.is_packed() {
            return self.panels(&own, tensor.clone(), [n, k]);
        }
        self.matrices.extend([name.to_owned(), format!("{}{name}", self.arch.names.prefix)]);
        let (dtype, (first, whole)) = (tensor.dtype(), self.slice(slot, n));
        let order = if self.tensors.is_gguf() { Order::Nk } else { slot.order };
        let (rows, cols) = if order == Order::Nk { (whole, k) } else { (k, whole) };
        if tensor.shape() != [rows, cols] {
            return Err(self.wrong(name, &format!("[{rows}, {cols}]"), tensor));
        }
        let stride = dtype.row_bytes(cols).ok_or_else(|| {
            self.wrong(name, &format!("rows of a multiple of {} for this type", dtype.block()), tensor)
        })?;
        let offset = if order == Order::Nk { first * stride } else { first * dtype.block_bytes() };
        let bytes = tensor.bytes().get(offset..).unwrap_or_default();
        if let Err(e) = Matrix::new(bytes, dtype, order, n, k, stride) {
            return Err(self.wrong(name, &format!("a matrix ({e})"), tensor));
        }
        let name = format!("{}{own}", self.arch.names.prefix);
        let param = MatrixParam { name, tensor: tensor.clone(), offset, dtype, order, n, k, stride };
        Ok((self.push(Param::Matrix(param)), dtype))
    }

    /// A matrix that its file has in packed panels already.
    fn panels(&mut self, name: &str, tensor: TensorRef, [n, k]: [usize; 2]) -> Result<(P, DType)> {
        if tensor.shape() != [n, k] {
            return Err(self.wrong(name, &format!("[{n}, {k}]"), &tensor));
        }
        let name = format!("{}{name}", self.arch.names.prefix);
        self.matrices.insert(name.clone());
        self.used.insert(name.clone());
        let (dtype, order) = (tensor.dtype(), Order::Panels);
        let param = MatrixParam { name, tensor, offset: 0, dtype, order, n, k, stride: 0 };
        Ok((self.push(Param::Matrix(param)), dtype))
    }

    fn layer(&mut self, i: usize) -> Result<Layer> {
        let (a, names) = (self.arch, &self.arch.names);
        let at = names.block.replace("{}", &i.to_string());
        let (d, q, kv) = (a.d_model, a.q_cols(), a.kv_cols());
        Ok(Layer {
            attn_norm: self.norm(&format!("{at}{}", names.attn_norm))?,
            q: self.linear(&at, &names.q, q, d)?,
            k: self.linear(&at, &names.k, kv, d)?,
            v: self.linear(&at, &names.v, kv, d)?,
            o: self.linear(&at, &names.o, d, q)?,
            mlp_norm: self.norm(&format!("{at}{}", names.mlp_norm))?,
            gate: names.gate.as_ref().map(|gate| self.linear(&at, gate, a.d_ff, d)).transpose()?,
            up: self.linear(&at, &names.up, a.d_ff, d)?,
            down: self.linear(&at, &names.down, d, a.d_ff)?,
        })
    }

    /// A tensor that nothing uses means that the model is not what its config says.
    fn unused(&self) -> Result<()> {
        let ignored = |name: &str| self.arch.names.ignored.iter().any(|end| name.ends_with(end));
        let left = self.tensors.names().find(|name| !self.used.contains(*name) && !ignored(name));
        match left {
            None => Ok(()),
            Some(name) => Err(Error::Tensor {
                file: self.tensors.file().to_owned(),
                tensor: name.to_owned(),
                what: format!("is not part of a {} model with this config.json", self.arch.family),
            }),
        }
    }
}
