//! Floor 0: softmax, log-sum-exp and argmax of one row. Knows nothing of sampling.

use crate::math::exp;
use crate::norm::filled;
use crate::ops::per_isa;
use crate::simd::{LANES, Simd};

per_isa! {
    /// `x [n]` becomes `exp(x) / sum of exp(x)`. A row of nothing but -inf becomes NaN.
    pub fn softmax(x: &mut [f32]) = softmax_with as softmax_isa on scalar avx2;
}

#[inline(always)]
fn softmax_with<S: Simd>(s: S, x: &mut [f32]) {
    let base = s.splat(base(s, x));
    let (whole, tail) = x.as_chunks_mut::<LANES>();
    let mut acc = s.zero();
    for x in whole {
        let e = exp(s, s.sub(s.load(x), base));
        s.store(e, x);
        acc = s.add(acc, e);
    }
    let mut last = filled(tail, f32::NEG_INFINITY);
    let e = exp(s, s.sub(s.load(&last), base));
    s.store(e, &mut last);
    tail.copy_from_slice(&last[..tail.len()]);
    let sum = s.fold_sum(s.add(acc, e));
    for x in x {
        *x /= sum;
    }
}

/// Largest element, 0 where that is -inf: what exponentials are relative to.
#[inline(always)]
fn base<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (whole, tail) = x.as_chunks::<LANES>();
    let mut acc = s.load(&filled(tail, f32::NEG_INFINITY));
    for x in whole {
        acc = s.max(acc, s.load(x));
    }
    let max = s.fold_max(acc);
    if max == f32::NEG_INFINITY { 0.0 } else { max }
}

/// Log of the sum of exponentials of `x [n]`, in f64: the differences taken from it are rounded once.
#[inline(always)]
pub(crate) fn lse_with<S: Simd>(s: S, x: &[f32]) -> f64 {
    let top = base(s, x);
    let (whole, tail) = x.as_chunks::<LANES>();
    let (mut acc, base) = (s.zero(), s.splat(top));
    for x in whole {
        acc = s.add(acc, exp(s, s.sub(s.load(x), base)));
    }
    let last = exp(s, s.sub(s.load(&filled(tail, f32::NEG_INFINITY)), base));
    f64::from(top) + libm::log(f64::from(s.fold_sum(s.add(acc, last))))
}

/// Index of the largest element, the first of equals; a NaN is never chosen. `None` where there is nothing to choose.
#[must_use]
pub fn argmax(x: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (i, &x) in x.iter().enumerate() {
        if best.map_or(!x.is_nan(), |(_, top)| x > top) {
            best = Some((i, x));
        }
    }
    best.map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::argmax;

    #[test]
    fn argmax_takes_the_first_and_no_nan() {
        assert_eq!(argmax(&[]), None);
        assert_eq!(argmax(&[f32::NAN, f32::NAN]), None);
        assert_eq!(argmax(&[f32::NAN, -1.0, 3.0, f32::NAN, 3.0]), Some(2));
        assert_eq!(argmax(&[f32::NEG_INFINITY, f32::NEG_INFINITY]), Some(0));
    }
}
