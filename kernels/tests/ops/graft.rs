//! Products with an adapter's narrow matrices: of some rows, into some columns, and what they leave alone.

use crate::{Numbers, U, bits, close, same_bits, wide};
use kernels::graft::CUT;
use kernels::{Cut, DType, Matrix, Ops, Order, TileMut, reference};

fn matrix(rows: &[f32], n: usize, k: usize) -> Matrix<'_> {
    Matrix::new(bytemuck::cast_slice(rows), DType::F32, Order::Nk, n, k, 4 * k).unwrap()
}

/// `(k + 1) U sum |a b|`: a chain of `k` fused multiply-adds, and one more rounding.
fn bound(x: &[f32], w: &[f32], k: usize) -> f64 {
    let sum: f64 = x.iter().zip(w).map(|(x, w)| f64::from(x * w).abs()).sum();
    (k as f64 + 3.0) * U * sum
}

#[test]
fn narrow_products_fill_their_columns_of_their_rows() {
    for (rows, k, r) in [(1, 1, 1), (1, 33, 4), (7, 16, 17), (9, 40, 3), (40, 67, 20)] {
        let mut numbers = Numbers::new(k as u64);
        let (x, a) = (numbers.vec(rows * k, 1.0), numbers.vec(r * k, 1.0));
        let (cols, at, scale) = (r + 9, 5, 0.375f32);
        let own = rows / 3..rows;
        let before = |out: &mut TileMut| {
            for cell in out.cells() {
                cell.rows.clone().for_each(|row| out.cell_row(&cell, row).fill(7.0));
            }
        };
        let got = same_bits(rows, cols, CUT, |ops, out| {
            before(out);
            ops.narrow(out, &x, own.clone(), &matrix(&a, r, k), at, scale);
        });
        let want = reference::linear(&wide(&x), &wide(&a), [rows, r, k], None, None);
        for row in 0..rows {
            for col in 0..cols {
                let inside = own.contains(&row) && (at..at + r).contains(&col);
                let got = got[row * cols + col];
                if !inside {
                    assert_eq!(got, 7.0, "row {row}, column {col}");
                    continue;
                }
                let (j, most) = (col - at, f64::from(scale));
                let limit = most * bound(&x[row * k..][..k], &a[j * k..][..k], k);
                close(&[got], &[most * want[row * r + j]], |_| limit, "narrow");
            }
        }
    }
}

#[test]
fn wide_products_are_added_to_their_rows() {
    for (rows, n, r) in [(1, 1, 1), (1, 50, 8), (8, 33, 16), (11, 97, 19)] {
        let mut numbers = Numbers::new(n as u64);
        let (cols, at) = (r + 6, 4);
        let (x, b) = (numbers.vec(rows * cols, 1.0), numbers.vec(n * r, 1.0));
        let (gains, base) = (numbers.vec(n, 2.0), numbers.vec(rows * n, 1.0));
        let own = 0..rows - rows / 4;
        let run = |gains: Option<&[f32]>| {
            same_bits(rows, n, Cut::Cols(32), |ops, out| {
                let cols_of = out.cols();
                for row in 0..rows {
                    out.row(row).copy_from_slice(&base[row * n..][cols_of.clone()]);
                }
                ops.widen(out, &x, cols, own.clone(), &matrix(&b, n, r), at, gains);
            })
        };
        for (got, gains) in [(run(None), None), (run(Some(&gains)), Some(&gains))] {
            for (at_out, got) in got.iter().enumerate() {
                let (row, j) = (at_out / n, at_out % n);
                if !own.contains(&row) {
                    assert_eq!(*got, base[at_out]);
                    continue;
                }
                let (x, b) = (&x[row * cols + at..][..r], &b[j * r..][..r]);
                let gain = gains.map_or(1.0, |gains| f64::from(gains[j]));
                let dot: f64 = x.iter().zip(b).map(|(x, b)| f64::from(*x) * f64::from(*b)).sum();
                let want = f64::from(base[at_out]) + gain * dot;
                close(&[*got], &[want], |_| gain.abs() * bound(x, b, r) + U * want.abs(), "wide");
            }
        }
    }
}

/// A row's bits do not depend on the rows beside it, and outputs in runs are those of the rows that they name.
#[test]
fn rows_and_runs_do_not_touch_each_other() {
    let (rows, n, r) = (19, 12, 7);
    let mut numbers = Numbers::new(3);
    let (x, b) = (numbers.vec(rows * r, 1.0), numbers.vec(3 * n * r, 1.0));
    let ops = Ops::best();
    let product = |w: &Matrix, own: std::ops::Range<usize>| {
        let mut out = vec![0.0; rows * w.n()];
        ops.widen(&mut TileMut::whole(&mut out, rows, w.n()), &x, r, own, w, 0, None);
        out
    };
    let whole = product(&matrix(&b, 3 * n, r), 0..rows);
    for row in 0..rows {
        let alone = product(&matrix(&b, 3 * n, r), row..row + 1);
        assert_eq!(bits(&alone[row * 3 * n..][..3 * n]), bits(&whole[row * 3 * n..][..3 * n]));
    }
    // Every second four of twelve.
    let some = Matrix::new(bytemuck::cast_slice(&b), DType::F32, Order::Nk, 12, r, 4 * r).unwrap();
    let got = product(&some.in_runs(4, 4).unwrap(), 0..rows);
    for (at, got) in got.iter().enumerate() {
        let (row, j) = (at / 12, at % 12);
        assert_eq!(got.to_bits(), whole[row * 3 * n + j / 4 * 8 + j % 4].to_bits());
    }
}
