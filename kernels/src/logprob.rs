//! Floor 0: log-probability of a target per row. Knows nothing of losses.

#[cfg(feature = "train")]
mod back;

#[cfg(feature = "train")]
pub use back::{logprob_bwd_isa, logprob_stats_isa};

use crate::ops::per_isa;
use crate::plan::TileMut;
use crate::simd::Simd;
use crate::softmax::lse_with;

per_isa! {
    /// out `[rows, 2]`, cut in rows: (log-probability of the row's target, log-sum-exp) of `logits [rows, vocab]`.
    ///
    /// Panics where a target is not below `vocab`.
    pub fn logprob(out: &mut TileMut, logits: &[f32], vocab: usize, targets: &[u32]) = logprob_with as logprob_isa on scalar avx2;
}

#[inline(always)]
fn logprob_with<S: Simd>(s: S, out: &mut TileMut, logits: &[f32], vocab: usize, targets: &[u32]) {
    for r in out.rows() {
        let logits = &logits[r * vocab..][..vocab];
        let lse = lse_with(s, logits);
        let logit = f64::from(logits[targets[r] as usize]);
        out.row(r).copy_from_slice(&[(logit - lse) as f32, lse as f32]);
    }
}
