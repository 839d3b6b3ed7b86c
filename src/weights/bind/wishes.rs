//! Floor 3: the tensors of a model that does not exist yet. Knows no family.

use crate::error::{Error, Result};
use crate::format::source::Source;
use crate::format::tensors::TensorRef;
use kernels::DType;
use memmap2::MmapMut;

/// A tensor of a model that does not exist yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// Its name.
    pub name: String,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// What it holds at first.
    pub fill: Fill,
}

/// What a tensor holds before anything is learnt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// Random numbers.
    Random,
    /// The same number everywhere.
    All(f32),
}

/// A tensor that nobody has written: zeros, which take no memory.
pub(super) fn unwritten(shape: &[usize]) -> Result<TensorRef> {
    let bytes =
        shape.iter().try_fold(4_usize, |bytes, n| bytes.checked_mul(*n)).filter(|n| *n < isize::MAX as usize);
    let refused = || Error::Memory { what: "a new model", bytes: bytes.unwrap_or(usize::MAX) as u64 };
    let bytes = bytes.ok_or_else(refused)?;
    let memory = MmapMut::map_anon(bytes.max(1)).and_then(MmapMut::make_read_only).map_err(|_| refused())?;
    let source = Source::anonymous("new model", memory);
    Ok(TensorRef::dense(DType::F32, shape, source, 0..bytes))
}
