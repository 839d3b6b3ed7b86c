//! RMSNorm and LayerNorm.

use crate::{LENGTHS, Numbers, U, close, same_bits, wide};
use kernels::norm::Norm;
use kernels::{Cut, reference};

#[test]
fn rows_are_normalised() {
    for n in LENGTHS {
        for (rows, kind, with_bias, with_add) in [
            (1, Norm::Rms, false, false),
            (5, Norm::Layer, true, false),
            (3, Norm::Layer, false, true),
            (4, Norm::Rms, true, true),
        ] {
            let mut numbers = Numbers::new(n as u64);
            let x: Vec<f32> = numbers.vec(rows * n, 3.0).iter().map(|x| x + 0.5).collect();
            let (gain, bias, add) = (numbers.vec(n, 2.0), numbers.vec(n, 1.0), numbers.vec(rows * n, 4.0));
            let (bias, add, eps) = (with_bias.then_some(&bias[..]), with_add.then_some(&add[..]), 1e-5);
            let got = same_bits(rows, n, Cut::Pieces(n), |ops, out| {
                (ops.norm)(out, &x, &gain, bias, eps, kind, add);
            });

            let (x, gain, bias, add) = (wide(&x), wide(&gain), bias.map(wide), add.map(wide));
            let norm = |add| reference::norm(&x, &gain, bias.as_deref(), f64::from(eps), kind, add);
            let (want, before) = (norm(add.as_deref()), norm(None));
            // A sum of n numbers over 16 lanes is off by at most n / 16 + 5 roundings of the sum of their sizes.
            let sum = (n as f64 / 16.0 + 5.0) * U;
            let bound = |i: usize| {
                let x = &x[i / n * n..][..n];
                let mean = if kind == Norm::Layer { x.iter().sum::<f64>() / n as f64 } else { 0.0 };
                let size = x.iter().map(|x| x.abs()).sum::<f64>() / n as f64;
                let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64 + f64::from(eps);
                let mean_off = if kind == Norm::Layer { (sum + U) * size } else { 0.0 };
                // Of the variance: the sum, two roundings of each square, and the mean's error.
                let var_off = sum + 4.0 * U + 2.0 * mean_off / var.sqrt() + mean_off * mean_off / var;
                let (d, inv, gain) = ((x[i % n] - mean).abs(), 1.0 / var.sqrt(), gain[i % n].abs());
                (d * (var_off + 6.0 * U) + mean_off) * inv * gain
                    + 2.0 * U * before[i].abs()
                    + U * want[i].abs()
            };
            close(&got, &want, bound, &format!("{kind:?} of {n}"));
        }
    }
}

#[test]
fn heads_are_rows_of_their_own() {
    for (rows, heads, dim) in [(1, 3, 64), (5, 4, 7), (2, 1, 33)] {
        let (n, mut numbers) = (heads * dim, Numbers::new(4));
        let (x, gain, add) = (numbers.vec(rows * n, 1.0), numbers.vec(dim, 1.0), numbers.vec(rows * n, 1.0));
        for add in [None, Some(&add[..])] {
            let run = |rows, cols| {
                same_bits(rows, cols, Cut::Pieces(dim), |ops, out| {
                    (ops.norm)(out, &x, &gain, None, 1e-6, Norm::Rms, add);
                })
            };
            assert_eq!(crate::bits(&run(rows, n)), crate::bits(&run(rows * heads, dim)));
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_batch() {
    let (rows, n) = (64, 100);
    let mut numbers = Numbers::new(3);
    let (x, gain) = (numbers.vec(rows * n, 1.0), numbers.vec(n, 1.0));
    let run = |rows: usize, x: &[f32]| {
        same_bits(rows, n, Cut::Pieces(n), |ops, out| (ops.norm)(out, x, &gain, None, 1e-6, Norm::Rms, None))
    };
    let all = run(rows, &x);
    for r in [0, 5, 63] {
        assert_eq!(crate::bits(&run(1, &x[r * n..][..n])), crate::bits(&all[r * n..][..n]));
    }
}

#[test]
fn no_rows_are_fine() {
    assert!(
        same_bits(0, 8, Cut::Pieces(8), |ops, out| (ops.norm)(
            out,
            &[],
            &[1.0; 8],
            None,
            0.0,
            Norm::Rms,
            None
        ))
        .is_empty()
    );
}
