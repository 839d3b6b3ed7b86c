//! Floor 3: what a parameter holds and where a file has it. Knows no family.

#[cfg(any(feature = "train", feature = "tokenizer"))]
use super::Slice;
use crate::format::tensors::TensorRef;
use kernels::linear::embed_row;
use kernels::quant::dequantize_row;
use kernels::{DType, Matrix, Order};

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
    /// Their name among all that learn, if they were made to learn.
    pub made: Option<String>,
}

impl VectorParam {
    /// Numbers that no file has.
    pub fn computed(values: Vec<f32>) -> VectorParam {
        VectorParam { values, rows: 1, origin: None, made: None }
    }

    /// Numbers that were made to learn, by the name `name`.
    #[cfg(feature = "train")]
    pub fn made(name: String, values: Vec<f32>) -> VectorParam {
        VectorParam { made: Some(name), ..VectorParam::computed(values) }
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
    pub(super) offset: usize,
    pub(super) dtype: DType,
    pub(super) order: Order,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) stride: usize,
    /// Rows that follow each other, and rows of others between such runs.
    pub(super) runs: Option<(usize, usize)>,
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
        let [rows, width] = [0, 1].map(|i| self.tensor.shape()[i]);
        let (first, all) = match self.order {
            Order::Nk => (self.offset / self.stride.max(1), rows),
            Order::Kn => (self.offset / self.dtype.block_bytes(), width),
            Order::Panels => panic!("a packed matrix has no rows"),
        };
        let places = Slice { first, whole: all, runs: self.runs }.rows(self.n);
        for (at, values) in places.zip(values.chunks_exact(self.k.max(1))) {
            if self.order == Order::Nk {
                whole[at * width..][..self.k].copy_from_slice(values);
            } else {
                whole.iter_mut().skip(at).step_by(width).zip(values).for_each(|(to, from)| *to = *from);
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

/// All outputs of a matrix, widened to f32: `out` is `[n, k]`.
#[cfg(any(feature = "train", feature = "tokenizer"))]
pub fn matrix_rows(w: &Matrix, out: &mut [f32]) {
    out.chunks_exact_mut(w.k().max(1)).enumerate().for_each(|(i, row)| matrix_row(w, i, row));
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

    /// Writes there the numbers of `new`, a parameter of its shape or itself, as a file has them.
    #[cfg(any(feature = "train", feature = "tokenizer"))]
    pub fn put(&self, new: &Param, whole: &mut [f32]) {
        match new {
            Param::Learned(m) => self.scatter(&m.values, whole),
            Param::Vector(v) => {
                let Param::Vector(VectorParam { origin: Some(origin), .. }) = self else { return };
                let stored: Vec<f32> = v.values.iter().map(|value| value - origin.shift).collect();
                self.scatter(&stored, whole);
            }
            Param::Matrix(m) => {
                let mut values = vec![0.0; m.n * m.k];
                matrix_rows(&m.matrix(), &mut values);
                self.scatter(&values, whole);
            }
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
