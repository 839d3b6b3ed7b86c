//! Floor 0: gradients of log-probabilities: of the target, of the vocabulary's mean, and of the entropy. Knows nothing of
//! losses.

use crate::math::exp;
use crate::norm::filled;
use crate::ops::per_isa;
use crate::plan::TileMut;
use crate::simd::{LANES, Simd};

/// Below this a log-probability has no probability: what is lower counts as this, so that nothing times infinity occurs.
const LEAST: f32 = -200.0;

per_isa! {
    /// out `[rows, 2]`, cut in rows: (mean log-probability over the vocabulary, entropy) of `logits [rows, vocab]`, with the
    /// `[rows, 2]` that [`logprob`](crate::logprob::logprob_isa) made of them. Log-probabilities below -200 count as -200.
    pub fn logprob_stats(out: &mut TileMut, logits: &[f32], vocab: usize, logprob: &[f32]) =
        stats_with as logprob_stats_isa on scalar avx2;
}

#[inline(always)]
fn stats_with<S: Simd>(s: S, out: &mut TileMut, logits: &[f32], vocab: usize, logprob: &[f32]) {
    for r in out.rows() {
        let sums = sums(s, &logits[r * vocab..][..vocab], logprob[2 * r + 1]);
        out.row(r).copy_from_slice(&[sums[0] / vocab as f32, -sums[1]]);
    }
}

/// Sums of log-probabilities, and of probabilities times them.
#[inline(always)]
fn sums<S: Simd>(s: S, logits: &[f32], lse: f32) -> [f32; 2] {
    let (whole, tail) = logits.as_chunks::<LANES>();
    let (mut all, mut weighed, lse) = (s.zero(), s.zero(), s.splat(lse));
    for x in whole {
        let (log, p) = of(s, s.load(x), lse);
        (all, weighed) = (s.add(all, log), s.fma(p, log, weighed));
    }
    let mut last = [0.0; LANES];
    let (log, p) = of(s, s.load(&filled(tail, f32::NEG_INFINITY)), lse);
    s.store(log, &mut last);
    let all = s.add(all, s.load(&filled(&last[..tail.len()], 0.0)));
    [s.fold_sum(all), s.fold_sum(s.fma(p, log, weighed))]
}

/// Log-probability and probability of logits.
#[inline(always)]
fn of<S: Simd>(s: S, logits: S::V, lse: S::V) -> (S::V, S::V) {
    let log = s.max(s.splat(LEAST), s.sub(logits, lse)); // NaN stays
    (log, exp(s, log))
}

per_isa! {
    /// dlogits `[rows, vocab]`, cut in rows: the gradient of `w0 log p(target) + w1 mean(log p) + w2 H`, H the entropy, whose
    /// weights are the row's `seeds [rows, 3]`: `w0 (onehot - p) + w1 (1 / vocab - p) - w2 p (log p + H)`. logits
    /// `[rows, vocab]`; logprob `[rows, 2]` as [`logprob`](crate::logprob::logprob_isa) made it of them; targets `[rows]`.
    /// Rows without weights become zeros and are not read; the entropy is computed only where it has a weight.
    ///
    /// Panics where the target of a row with weights is not below `vocab`.
    pub fn logprob_bwd(dlogits: &mut TileMut, logits: &[f32], vocab: usize, logprob: &[f32], targets: &[u32], seeds: &[f32]) =
        bwd_with as logprob_bwd_isa on scalar avx2;
}

#[inline(always)]
fn bwd_with<S: Simd>(
    s: S,
    dlogits: &mut TileMut,
    logits: &[f32],
    vocab: usize,
    logprob: &[f32],
    targets: &[u32],
    seeds: &[f32],
) {
    for r in dlogits.rows() {
        let [target, mean, entropy] = [seeds[3 * r], seeds[3 * r + 1], seeds[3 * r + 2]];
        let out = &mut dlogits.row(r)[..vocab];
        if [target, mean, entropy] == [0.0; 3] {
            out.fill(0.0);
            continue;
        }
        let (logits, lse) = (&logits[r * vocab..][..vocab], logprob[2 * r + 1]);
        let h = if entropy == 0.0 { 0.0 } else { -sums(s, logits, lse)[1] };
        let weights = Weights { all: target + mean + entropy * h, each: mean / vocab as f32, entropy };
        let ((out, last), (x, tail)) = (out.as_chunks_mut::<LANES>(), logits.as_chunks::<LANES>());
        for (out, x) in out.iter_mut().zip(x) {
            s.store(weights.slope(s, s.load(x), lse), out);
        }
        let mut rest = [0.0; LANES];
        s.store(weights.slope(s, s.load(&filled(tail, f32::NEG_INFINITY)), lse), &mut rest);
        last.copy_from_slice(&rest[..last.len()]);
        dlogits.row(r)[targets[r] as usize] += target;
    }
}

/// What a row's probabilities are multiplied by, and what each element gets beside that.
struct Weights {
    all: f32,
    each: f32,
    entropy: f32,
}

impl Weights {
    /// `each - p (all + entropy * log p)`
    #[inline(always)]
    fn slope<S: Simd>(&self, s: S, logits: S::V, lse: f32) -> S::V {
        let (log, p) = of(s, logits, s.splat(lse));
        let factor = s.fma(s.splat(self.entropy), log, s.splat(self.all));
        s.sub(s.splat(self.each), s.mul(p, factor))
    }
}
