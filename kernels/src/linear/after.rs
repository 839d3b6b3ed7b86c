//! Floor 0: what happens to the finished sums of a linear. Knows no weights.

use crate::plan::TileMut;

/// What happens to a finished sum.
pub struct After<'a> {
    pub(super) n: usize,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) add: Option<&'a [f32]>,
}

impl After<'_> {
    /// Writes the sums of outputs `first..` of row `r`.
    #[inline(never)]
    pub(super) fn store(&self, out: &mut TileMut, r: usize, first: usize, sums: &[f32]) {
        let at = first - out.cols().start;
        let out = &mut out.row(r)[at..];
        let out = &mut out[..sums.len()];
        out.copy_from_slice(sums);
        if let Some(bias) = self.bias {
            for (out, bias) in out.iter_mut().zip(&bias[first..first + sums.len()]) {
                *out += bias;
            }
        }
        if let Some(add) = self.add {
            for (out, add) in out.iter_mut().zip(&add[r * self.n + first..][..sums.len()]) {
                *out += add;
            }
        }
    }
}
