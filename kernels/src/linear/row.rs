//! Floor 0: one row of activations times sixteen outputs of a mapped matrix, transposed in registers: no scratch, one
//! sequential stream. Knows no tiles.

use super::Matrix;
use super::elem::{Elem, chunk_bytes, last_word};
use crate::simd::{LANES, Simd};

/// Outputs `first..first + 16` of `w`, all of which exist, times the packed row `x`.
#[inline(always)]
pub fn sixteen<S: Simd, E: Elem>(s: S, w: &Matrix, first: usize, x: &[f32]) -> S::V {
    let mut rows: [&[u8]; LANES] = [&[]; LANES];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = w.row(first + i);
    }
    let (len, chunk) = (rows[0].len(), chunk_bytes::<E>());
    let (whole, words) = (len / chunk, len.div_ceil(E::BYTES * E::K));
    assert!(x.len() >= words && rows.iter().all(|row| row.len() == len), "a row of x is too short");
    let (mut acc, mut next) = (s.zero(), w.ahead(first + LANES));
    for j in 0..whole {
        let mut t = [s.zero(); LANES];
        for i in 0..LANES {
            // SAFETY: `j < whole`, so `(j + 1) * chunk` is within every row (all have `len` bytes).
            t[i] = E::words(s, unsafe { rows[i].get_unchecked(j * chunk..(j + 1) * chunk) });
            // The next sixteen rows, in the order of their addresses: the processor sees one stream.
            if chunk == 64 || i % 2 == 0 {
                s.prefetch(next);
                next = next.wrapping_add(64);
            }
        }
        let t = s.transpose(t);
        for i in 0..LANES {
            acc = E::step(s, acc, t[i], s.splat(x[j * LANES + i]));
        }
    }
    for word in whole * LANES..words {
        let mut t = [0.0; LANES];
        for i in 0..LANES {
            t[i] = last_word::<E>(rows[i], word);
        }
        acc = E::step(s, acc, s.load(&t), s.splat(x[word]));
    }
    acc
}
