//! Floor 0: rows times factors plus shifts, each of a column, and rows of a table in the place of others; with their gradients.
//! Plain loops, each element in a fixed order and no product fused with a sum, so every set has the same bits. Knows no
//! adapters.

use crate::linear::Matrix;
use crate::plan::TileMut;
use crate::quant::dequantize_row;
use std::ops::Range;

/// Of rows `[_, n]`, what belongs to row `r` of a tile.
fn part(r: usize, n: usize, cols: &Range<usize>) -> Range<usize> {
    r * n + cols.start..r * n + cols.end
}

/// out `[rows, n]`, cut by columns: `x * factors + shifts + add`, in this order, of what there is; x and add `[rows, n]`,
/// factors and shifts `[n]`.
///
/// Panics where the sizes do not fit.
pub fn affine(
    out: &mut TileMut,
    x: &[f32],
    n: usize,
    factors: Option<&[f32]>,
    shifts: Option<&[f32]>,
    add: Option<&[f32]>,
) {
    let cols = out.cols();
    let [factors, shifts] = [factors, shifts].map(|v| v.map(|v| &v[cols.clone()]));
    for r in out.rows() {
        let at = part(r, n, &cols);
        let out = out.row(r);
        out.copy_from_slice(&x[at.clone()]);
        if let Some(factors) = factors {
            out.iter_mut().zip(factors).for_each(|(out, f)| *out *= f);
        }
        for more in [shifts, add.map(|add| &add[at])].into_iter().flatten() {
            out.iter_mut().zip(more).for_each(|(out, x)| *out += x);
        }
    }
}

/// dfactors `[1, n]`, cut by columns: `+= dy * x`, both `[rows, n]`, rows in order.
///
/// Panics where the sizes do not fit.
#[cfg(feature = "train")]
pub fn affine_dfactors(dfactors: &mut TileMut, dy: &[f32], x: &[f32], n: usize) {
    let cols = dfactors.cols();
    if cols.is_empty() {
        return;
    }
    let out = dfactors.row(0);
    for (dy, x) in dy.chunks_exact(n).zip(x.chunks_exact(n)) {
        for ((out, dy), x) in out.iter_mut().zip(&dy[cols.clone()]).zip(&x[cols.clone()]) {
            *out += dy * x;
        }
    }
}

/// out `[rows, n]`, cut in rows: rows at positions that `table [tokens, n]` has a row of become it, plus row `of[r]` of each
/// `(table, of)` of `more`, in order; all others stay what they are in x `[rows, n]`.
///
/// Panics where the sizes do not fit.
pub fn lead(out: &mut TileMut, x: &[f32], table: &Matrix, positions: &[u32], more: &[(&Matrix, &[u32])]) {
    let n = table.k();
    for r in out.rows() {
        let (out, position) = (out.row(r), positions[r] as usize);
        if position >= table.n() {
            out.copy_from_slice(&x[r * n..][..n]);
            continue;
        }
        dequantize_row(table.dtype(), table.row(position), out);
        for (table, of) in more {
            crate::embed::add_row(out, table, of[r] as usize);
        }
    }
}

/// dx `[rows, n]`, cut in rows, of [`lead`] with a table of so many tokens: dy, but zeros where the table's rows were.
///
/// Panics where the sizes do not fit.
#[cfg(feature = "train")]
pub fn lead_dx(dx: &mut TileMut, dy: &[f32], n: usize, tokens: usize, positions: &[u32]) {
    for r in dx.rows() {
        match positions[r] as usize >= tokens {
            true => dx.row(r).copy_from_slice(&dy[r * n..][..n]),
            false => dx.row(r).fill(0.0),
        }
    }
}

/// dtable `[tokens, n]`, cut by columns, of [`lead`]: `+=` the rows of `dy [rows, n]` that were its own, in order.
///
/// Panics where the sizes do not fit.
#[cfg(feature = "train")]
pub fn lead_dtable(dtable: &mut TileMut, dy: &[f32], n: usize, positions: &[u32]) {
    let (cols, tokens) = (dtable.cols(), dtable.rows());
    if cols.is_empty() {
        return;
    }
    for (dy, position) in dy.chunks_exact(n).zip(positions) {
        if tokens.contains(&(*position as usize)) {
            let out = dtable.row(*position as usize);
            out.iter_mut().zip(&dy[cols.clone()]).for_each(|(out, dy)| *out += dy);
        }
    }
}

#[cfg(all(test, feature = "train"))]
mod tests {
    use super::*;
    use crate::{Cut, DType, Order};

    const ROWS: usize = 5;
    const N: usize = 37;

    /// Numbers between -1 and 1.
    fn numbers(seed: u32, n: usize) -> Vec<f32> {
        (0..n as u32).map(|i| ((i * 37 + seed * 101) % 199) as f32 / 99.5 - 1.0).collect()
    }

    /// What all of `workers` write, each to its columns or rows.
    fn shared(rows: usize, cut: Cut, workers: usize, write: impl Fn(&mut TileMut)) -> Vec<f32> {
        let mut out = vec![0.25; rows * N];
        (0..workers).for_each(|w| write(&mut TileMut::part(&mut out, rows, N, cut, w, workers)));
        out
    }

    /// `sum of dy * (x * factors + shifts + add)` in f64.
    fn value(dy: &[f32], x: &[f32], factors: &[f64], shifts: &[f32], add: &[f32]) -> f64 {
        let of = |i: usize| f64::from(x[i]) * factors[i % N] + f64::from(shifts[i % N]) + f64::from(add[i]);
        dy.iter().enumerate().map(|(i, dy)| f64::from(*dy) * of(i)).sum()
    }

    #[test]
    fn affine_and_its_gradients_are_those_of_finite_differences() {
        let [x, add, dy] = [1, 2, 3].map(|seed| numbers(seed, ROWS * N));
        let [factors, shifts] = [4, 5].map(|seed| numbers(seed, N));
        let wide: Vec<f64> = factors.iter().map(|f| f64::from(*f)).collect();
        for workers in [1, 3] {
            let got = shared(ROWS, Cut::Cols(16), workers, |out| {
                affine(out, &x, N, Some(&factors), Some(&shifts), Some(&add));
            });
            for (i, got) in got.iter().enumerate() {
                let want = f64::from(x[i]) * wide[i % N] + f64::from(shifts[i % N]) + f64::from(add[i]);
                assert!((f64::from(*got) - want).abs() < 4e-7, "element {i}: {got}, expected {want}");
            }
            let got = shared(1, Cut::Cols(16), workers, |out| affine_dfactors(out, &dy, &x, N));
            for i in 0..N {
                let moved = |by: f64| {
                    let mut wide = wide.clone();
                    wide[i] += by;
                    value(&dy, &x, &wide, &shifts, &add)
                };
                // It is linear: any step gives the derivative.
                let want = (moved(0.5) - moved(-0.5)) + 0.25;
                assert!((f64::from(got[i]) - want).abs() < 2e-6, "factor {i}: {}, expected {want}", got[i]);
            }
        }
    }

    #[test]
    fn a_table_leads_and_gets_the_gradients_of_its_rows() {
        let (x, table, dy) = (numbers(1, ROWS * N), numbers(2, 2 * N), numbers(3, ROWS * N));
        let bytes: Vec<u8> = table.iter().flat_map(|x| x.to_le_bytes()).collect();
        let matrix = Matrix::new(&bytes, DType::F32, Order::Nk, 2, N, 4 * N).expect("a matrix");
        // Two sequences: of three rows and of two.
        let positions = [0, 1, 2, 0, 1];
        for workers in [1, 2] {
            let rows = Cut::Pieces(N);
            let got = shared(ROWS, rows, workers, |out| lead(out, &x, &matrix, &positions, &[]));
            let want = [&table[..], &x[2 * N..3 * N], &table[..]].concat();
            assert_eq!(got, want);
            let more = [(&matrix, &[1, 1, 1, 0, 0][..])];
            let got = shared(ROWS, rows, workers, |out| lead(out, &x, &matrix, &positions, &more));
            assert_eq!(got[..N], (0..N).map(|i| table[i] + table[N + i]).collect::<Vec<f32>>());
            let got = shared(ROWS, rows, workers, |dx| lead_dx(dx, &dy, N, 2, &positions));
            let want = [&[0.0; 2 * N], &dy[2 * N..3 * N], &[0.0; 2 * N]].concat();
            assert_eq!(got, want);
            let got = shared(2, Cut::Cols(16), workers, |out| lead_dtable(out, &dy, N, &positions));
            let want = (0..2 * N).map(|i| 0.25 + dy[i] + dy[3 * N + i]).collect::<Vec<f32>>();
            assert_eq!(got, want);
        }
    }
}
