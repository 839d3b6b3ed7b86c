//! Floor 0: a matrix where it lies: in a file's bytes, possibly unaligned, with a stride, or in packed panels. Knows no
//! arithmetic.

use super::PANEL;
use super::packed::panel_bytes;
use crate::dtype::DType;
use std::fmt;

/// How a matrix of `n` outputs and `k` inputs lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A row of bytes per output, as `torch.nn.Linear` and every GGUF file has it.
    Nk,
    /// A row of bytes per input, as GPT-2's `Conv1D` has it. Dense types only.
    Kn,
    /// Panels of [`PANEL`] outputs, one after the other, as [`pack_panel`](super::pack_panel) writes them.
    Panels,
}

/// A weight matrix: `y = x W^T`, `W [n, k]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    bytes: &'a [u8],
    dtype: DType,
    order: Order,
    n: usize,
    k: usize,
    stride: usize,
}

/// Why bytes cannot be such a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixError {
    /// A row is not a whole number of blocks of the type.
    Block,
    /// Rows overlap.
    Stride,
    /// So many bytes are there, so many are needed.
    Bytes(usize, usize),
    /// A quantised type in `Order::Kn`.
    Order,
    /// The sizes overflow.
    Size,
}

impl fmt::Display for MatrixError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            MatrixError::Block => f.write_str("with rows of whole blocks"),
            MatrixError::Stride => f.write_str("whose rows do not overlap"),
            MatrixError::Bytes(found, needed) => write!(f, "of {needed} bytes, {found} are there"),
            MatrixError::Order => f.write_str("with a row per output, as quantised types have to be"),
            MatrixError::Size => f.write_str("of a size that can be counted"),
        }
    }
}

impl<'a> Matrix<'a> {
    /// `n` outputs and `k` inputs in `bytes`, `stride` bytes from row to row (of no meaning in `Order::Panels`).
    ///
    /// # Errors
    /// See [`MatrixError`].
    pub fn new(
        bytes: &'a [u8],
        dtype: DType,
        order: Order,
        n: usize,
        k: usize,
        stride: usize,
    ) -> Result<Matrix<'a>, MatrixError> {
        if order == Order::Kn && dtype.block() != 1 {
            return Err(MatrixError::Order);
        }
        let (rows, cols) = if order == Order::Nk { (n, k) } else { (k, n) };
        if order == Order::Panels {
            let panel = panel_bytes(dtype, k).ok_or(MatrixError::Block)?;
            let needed = n.div_ceil(PANEL).checked_mul(panel).ok_or(MatrixError::Size)?;
            if bytes.len() < needed {
                return Err(MatrixError::Bytes(bytes.len(), needed));
            }
            return Ok(Matrix { bytes, dtype, order, n, k, stride: panel });
        }
        let row = dtype.row_bytes(cols).ok_or(MatrixError::Block)?;
        if row > stride && rows > 1 {
            return Err(MatrixError::Stride);
        }
        let needed = match rows {
            0 => 0,
            _ => {
                (rows - 1).checked_mul(stride).and_then(|at| at.checked_add(row)).ok_or(MatrixError::Size)?
            }
        };
        if bytes.len() < needed {
            return Err(MatrixError::Bytes(bytes.len(), needed));
        }
        Ok(Matrix { bytes, dtype, order, n, k, stride })
    }

    /// Element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// How it lies.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order
    }
    /// Outputs.
    #[must_use]
    pub fn n(&self) -> usize {
        self.n
    }
    /// Inputs.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes of panel `p` in `Order::Panels`. Panics where there is none.
    #[must_use]
    #[inline(always)]
    pub fn panel(&self, p: usize) -> &'a [u8] {
        assert!(self.order == Order::Panels && p * PANEL < self.n, "panel {p} of {} outputs", self.n);
        &self.bytes[p * self.stride..][..self.stride]
    }

    /// Bytes of row `r`: of an output in `Order::Nk`, of an input in `Order::Kn`. Panics where there is none.
    #[must_use]
    #[inline(always)]
    pub fn row(&self, r: usize) -> &'a [u8] {
        assert!(self.order != Order::Panels, "panels have no rows");
        let (rows, cols) = if self.order == Order::Nk { (self.n, self.k) } else { (self.k, self.n) };
        assert!(r < rows, "row {r} of {rows}");
        let len = cols / self.dtype.block() * self.dtype.block_bytes();
        &self.bytes[r * self.stride..][..len]
    }

    /// Where row `r` begins, to be brought near; may lie beyond the end.
    #[inline(always)]
    pub(crate) fn ahead(&self, r: usize) -> *const u8 {
        self.bytes.as_ptr().wrapping_add(r.wrapping_mul(self.stride))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let bytes = [0u8; 100];
        let new = |dtype, order, n, k, stride| Matrix::new(&bytes, dtype, order, n, k, stride).err();
        assert_eq!(new(DType::F32, Order::Nk, 5, 5, 20), None);
        assert_eq!(new(DType::F32, Order::Nk, 5, 6, 24), Some(MatrixError::Bytes(100, 120)));
        assert_eq!(new(DType::F32, Order::Nk, 5, 5, 19), Some(MatrixError::Stride));
        assert_eq!(new(DType::Q8_0, Order::Nk, 1, 31, 34), Some(MatrixError::Block));
        assert_eq!(new(DType::Q8_0, Order::Kn, 32, 1, 34), Some(MatrixError::Order));
        assert_eq!(new(DType::F32, Order::Nk, usize::MAX, 5, 20), Some(MatrixError::Size));
        assert_eq!(new(DType::F32, Order::Nk, 0, 5, 20), None);
    }
}
