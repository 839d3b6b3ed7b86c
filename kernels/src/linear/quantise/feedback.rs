//! Floor 0: what a text tells about the inputs of a linear: how much an error at each counts, and which weights make good
//! what rounding another one costs. After a block is rounded, those of its span that are still free move so that the
//! outputs over the text change least (Frantar et al., GPTQ, 2022, as Chee et al., QuIP, 2023, write it). Knows no
//! formats.

use super::{BLOCK, Values};

/// Inputs of a span, in which weights make good for each other: whole runs of blocks. The work for an output and the
/// memory grow with k times this, not with the square of k.
const SPAN: usize = 512;

/// The spans that `k` inputs fall into, as (first input, inputs); the last is half as long to half as long again.
pub fn spans(k: usize) -> impl ExactSizeIterator<Item = (usize, usize)> {
    let count = ((k + SPAN / 2) / SPAN).max(usize::from(k > 0));
    (0..count).map(move |i| (i * SPAN, if i + 1 == count { k - i * SPAN } else { SPAN }))
}

/// How to quantise the weights of `k` inputs so that outputs over a text change least.
pub struct Guide {
    /// What a squared error counts for each input, as a multiple of their mean.
    importance: Vec<Values>,
    /// The spans, in order.
    spans: Vec<Span>,
}

/// Inputs `first..first + len`.
struct Span {
    first: usize,
    len: usize,
    /// `[len, len]`, strictly upper: by what share of an error at the row's input the column's weight moves; or empty.
    shares: Vec<f32>,
}

impl Guide {
    /// From the mean squares `[k]` of the inputs alone. What is not finite or less than zero counts as zero. Panics where
    /// k is not whole blocks.
    #[must_use]
    pub fn from_squares(squares: &[f32]) -> Guide {
        let (blocks, rest) = squares.as_chunks::<BLOCK>();
        assert!(rest.is_empty(), "{} inputs", squares.len());
        /// Inputs that the text never moved still count a little: another text will.
        const LEAST: f64 = 1e-3;
        let good = |x: f32| if x.is_finite() && x > 0.0 { f64::from(x) } else { 0.0 };
        let sum: f64 = squares.iter().map(|x| good(*x)).sum();
        let mean = if sum > 0.0 { sum / squares.len() as f64 } else { 1.0 };
        let relative = |x: f32| (good(x) / mean).max(LEAST) as f32;
        Guide { importance: blocks.iter().map(|x| x.map(relative)).collect(), spans: Vec::new() }
    }

    /// From sums of products of the inputs of each of the [`spans`] of k, `[len, len]` with the upper triangle filled.
    /// Where they are no moments of anything, weights do not make good for each other. Panics where the sizes do not fit.
    #[must_use]
    pub fn from_moments(k: usize, moments: Vec<Vec<f32>>) -> Guide {
        assert!(moments.len() == spans(k).len(), "moments of {} spans", moments.len());
        let mut squares = Vec::with_capacity(k);
        for ((_, len), moments) in spans(k).zip(&moments) {
            assert!(moments.len() == len * len, "moments of {} inputs", moments.len());
            squares.extend((0..len).map(|i| moments[i * len + i]));
        }
        let span = |((first, len), moments)| Span { first, len, shares: shares(moments, len) };
        Guide { spans: spans(k).zip(moments).map(span).collect(), ..Guide::from_squares(&squares) }
    }

    /// Inputs.
    #[must_use]
    pub fn k(&self) -> usize {
        self.importance.len() * BLOCK
    }

    /// What squared errors count, by blocks.
    pub(super) fn importance(&self) -> &[Values] {
        &self.importance
    }

    /// Whether errors are made good for at all.
    pub(super) fn spreads(&self) -> bool {
        !self.spans.is_empty()
    }

    /// The shares of errors in the block that begins with input `at`: what comes after it moves.
    pub(super) fn shares(&self, at: usize) -> Option<Shares<'_>> {
        let span = self.spans.get(self.spans.partition_point(|s| s.first + s.len <= at))?;
        let (from, len) = (at - span.first, span.len);
        (!span.shares.is_empty()).then(|| Shares {
            rows: &span.shares[from * len..][..BLOCK * len],
            from,
            len,
        })
    }
}

/// The rows of a block's inputs.
pub(super) struct Shares<'a> {
    rows: &'a [f32],
    /// Where the block begins in its span of `len`.
    from: usize,
    len: usize,
}

impl Shares<'_> {
    /// Moves the rest of the block for an error at its input `i`.
    #[inline(always)]
    pub fn within(&self, block: &mut Values, i: usize, error: f32) {
        let row = &self.rows[i * self.len + self.from..][..BLOCK];
        for (x, share) in block.iter_mut().zip(row).skip(i + 1) {
            *x += error * share;
        }
    }

    /// Moves what comes after the block in its span; `x` begins there.
    pub fn after(&self, x: &mut [f32], errors: &Values) {
        let (from, rest) = (self.from + BLOCK, self.len - self.from - BLOCK);
        // Some rows at a time: each is read as one stream, and what moves seldom leaves the registers.
        for (errors, rows) in errors.as_chunks::<4>().0.iter().zip(self.rows.chunks_exact(4 * self.len)) {
            let [a, b, c, d] = std::array::from_fn(|i| &rows[i * self.len + from..][..rest]);
            let x = &mut x[..rest];
            for i in 0..rest {
                x[i] = (((x[i] + errors[0] * a[i]) + errors[1] * b[i]) + errors[2] * c[i]) + errors[3] * d[i];
            }
        }
    }
}

/// Of moments `(F + 1) D (F + 1)^T` `[len, len]`, F strictly upper and D diagonal: F, or nothing.
fn shares(mut moments: Vec<f32>, len: usize) -> Vec<f32> {
    /// Of the mean square, added to each: few tokens must not decide much, and the factor stays tame.
    const DAMP: f64 = 0.01;
    let mean = (0..len).map(|i| f64::from(moments[i * len + i])).sum::<f64>() / len as f64;
    if !(mean > 0.0 && mean.is_finite()) {
        return Vec::new();
    }
    let mut h: Vec<f64> = moments.iter().map(|x| f64::from(*x) / mean).collect();
    (0..len).for_each(|i| h[i * len + i] += DAMP);
    if !factor(&mut h, len) {
        return Vec::new();
    }
    for j in 0..len {
        for i in 0..len {
            moments[j * len + i] = if i > j { (h[j * len + i] / h[i * len + i]) as f32 } else { 0.0 };
        }
    }
    moments
}

/// The upper factor V of `h = V V^T` in its place: Cholesky's, from the last row up. False where there is none.
fn factor(h: &mut [f64], len: usize) -> bool {
    for j in (0..len).rev() {
        let (above, row) = h.split_at_mut(j * len);
        let after = &row[j + 1..len];
        let pivot = row[j] - dot(after, after);
        if !(pivot > 0.0 && pivot.is_finite()) {
            return false;
        }
        let root = pivot.sqrt();
        for above in above.chunks_exact_mut(len) {
            above[j] = (above[j] - dot(&above[j + 1..], after)) / root;
        }
        row[j] = root;
    }
    true
}

/// Over four parts, in one order.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut lanes = [0.0; 4];
    for (a, b) in a.0.iter().zip(b.0) {
        for i in 0..4 {
            lanes[i] += a[i] * b[i];
        }
    }
    let rest: f64 = a.1.iter().zip(b.1).map(|(a, b)| a * b).sum();
    ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + rest
}
