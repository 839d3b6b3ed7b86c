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
    /// Rows between two jumps, and the bytes of a jump.
    run: usize,
    jump: usize,
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
    /// Runs of no rows, or of another order than `Order::Nk`.
    Runs,
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
            MatrixError::Runs => f.write_str("with a row per output, in runs of at least one row"),
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
            return Ok(Matrix { bytes, dtype, order, n, k, stride: panel, run: 1, jump: 0 });
        }
        let row = dtype.row_bytes(cols).ok_or(MatrixError::Block)?;
        if row > stride && rows > 1 {
            return Err(MatrixError::Stride);
        }
        let matrix = Matrix { bytes, dtype, order, n, k, stride, run: 1, jump: 0 };
        matrix.holds(rows, row)?;
        Ok(matrix)
    }

    /// The same with outputs in runs, as fused layers have them: after every `run` rows the file has `skip` rows of
    /// others, so that row `i` is the file's row `i / run * (run + skip) + i % run`.
    ///
    /// # Errors
    /// `Runs` of an empty run or another order than `Order::Nk`; `Bytes` or `Size` where the rows end beyond the bytes.
    pub fn in_runs(self, run: usize, skip: usize) -> Result<Matrix<'a>, MatrixError> {
        if run == 0 || self.order != Order::Nk {
            return Err(MatrixError::Runs);
        }
        let jump = skip.checked_mul(self.stride).ok_or(MatrixError::Size)?;
        let matrix = Matrix { run, jump, ..self };
        matrix.holds(self.n, self.dtype.row_bytes(self.k).ok_or(MatrixError::Block)?)?;
        Ok(matrix)
    }

    /// Whether `rows` rows of `row` bytes are there.
    fn holds(&self, rows: usize, row: usize) -> Result<(), MatrixError> {
        let end = |last: usize| {
            let jumps = (last / self.run).checked_mul(self.jump)?;
            last.checked_mul(self.stride)?.checked_add(jumps)?.checked_add(row)
        };
        let needed = rows.checked_sub(1).map_or(Some(0), end).ok_or(MatrixError::Size)?;
        if self.bytes.len() < needed {
            return Err(MatrixError::Bytes(self.bytes.len(), needed));
        }
        Ok(())
    }

    /// The transpose of a dense matrix in file layout: outputs and inputs change places, the bytes do not. Panics where it
    /// is in panels or quantised.
    #[cfg(feature = "train")]
    pub(super) fn turned(&self) -> Matrix<'a> {
        assert!(self.order != Order::Panels && self.dtype.block() == 1, "panels and blocks are not turned");
        let order = if self.order == Order::Nk { Order::Kn } else { Order::Nk };
        Matrix { order, n: self.k, k: self.n, ..*self }
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

    /// Bytes from row to row.
    #[inline(always)]
    pub(crate) fn stride(&self) -> usize {
        self.stride
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
        &self.bytes[self.start(r)..][..len]
    }

    /// Where row `r` begins. Wraps where that is no address.
    #[inline(always)]
    fn start(&self, r: usize) -> usize {
        let plain = r.wrapping_mul(self.stride);
        // A division for every row would cost more than short rows do.
        if self.jump == 0 { plain } else { plain.wrapping_add((r / self.run).wrapping_mul(self.jump)) }
    }

    /// `len` bytes of the row of output `r`, from byte `from` on. Panics where there is no such output, or no such bytes.
    #[inline(always)]
    pub(crate) fn part(&self, r: usize, from: usize, len: usize) -> &'a [u8] {
        assert!(self.order == Order::Nk && r < self.n, "row {r} of {}", self.n);
        &self.bytes[self.start(r)..][from..][..len]
    }

    /// From where the row of output `r` begins to where the last of `n` rows ends, and the bytes from row to row; `None`
    /// where a jump lies between them. Panics where there are fewer outputs.
    #[inline(always)]
    pub(crate) fn rows(&self, r: usize, n: usize) -> Option<(&'a [u8], usize)> {
        let last = self.row(r + n - 1).len();
        let straight = self.order == Order::Nk && (self.jump == 0 || r / self.run == (r + n - 1) / self.run);
        straight.then(|| (&self.bytes[self.start(r)..][..(n - 1) * self.stride + last], self.stride))
    }

    /// How many bytes after a multiple of `of` every row begins; 0 where not all begin alike.
    #[inline(always)]
    pub(crate) fn skew(&self, of: usize) -> usize {
        let alike = self.stride.is_multiple_of(of) && self.jump.is_multiple_of(of);
        if alike { self.bytes.as_ptr().addr() % of } else { 0 }
    }

    /// Where row `r` begins, to be brought near; may lie beyond the end.
    #[inline(always)]
    pub(crate) fn ahead(&self, r: usize) -> *const u8 {
        self.bytes.as_ptr().wrapping_add(self.start(r))
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

    #[test]
    fn runs_are_followed_and_checked() {
        let bytes: Vec<u8> = (0..100).collect();
        let matrix = |order, n| Matrix::new(&bytes, DType::F32, order, n, 1, 4).unwrap();
        // Runs of two rows with three between: rows 0, 1, 5, 6, 10, 11, ... of the file's 25.
        for n in 0..=10 {
            let w = matrix(Order::Nk, n).in_runs(2, 3).unwrap();
            for r in 0..n {
                let at = 4 * (r / 2 * 5 + r % 2);
                assert_eq!(w.row(r), &bytes[at..at + 4]);
                assert_eq!(w.ahead(r), bytes[at..].as_ptr());
            }
        }
        assert_eq!(matrix(Order::Nk, 11).in_runs(2, 3).err(), Some(MatrixError::Bytes(100, 104)));
        assert_eq!(matrix(Order::Nk, 25).in_runs(2, 0).unwrap().row(24), &bytes[96..]);
        assert_eq!(matrix(Order::Nk, 3).in_runs(0, 1).err(), Some(MatrixError::Runs));
        assert_eq!(matrix(Order::Kn, 1).in_runs(1, 1).err(), Some(MatrixError::Runs));
        assert_eq!(matrix(Order::Nk, 3).in_runs(1, usize::MAX).err(), Some(MatrixError::Size));
        assert_eq!(matrix(Order::Nk, 3).in_runs(1, usize::MAX / 4).err(), Some(MatrixError::Size));
        assert_eq!(matrix(Order::Nk, 1).in_runs(1, usize::MAX / 4).unwrap().row(0), &bytes[..4]);
    }
}
