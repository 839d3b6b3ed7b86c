//! Gradients of RMSNorm and LayerNorm.

use crate::{LENGTHS, Numbers, Out, U, bits, close, same_bits, same_bits_of, wide};
use kernels::norm::Norm;
use kernels::{Cut, reference};

/// A row, its moments and what is wrong with them: a sum of n numbers over 16 lanes is off by at most n / 16 + 5
/// roundings of the sum of their sizes.
struct Row {
    h: Vec<f64>,
    h_off: Vec<f64>,
    inv: f64,
    inv_off: f64,
}

fn moments(x: &[f64], eps: f64, kind: Norm) -> Row {
    let (n, layer) = (x.len() as f64, if kind == Norm::Layer { 1.0 } else { 0.0 });
    let sum = (n / 16.0 + 5.0) * U;
    let mean = layer * x.iter().sum::<f64>() / n;
    let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + eps;
    let mean_off = layer * (sum + U) * x.iter().map(|x| x.abs()).sum::<f64>() / n;
    let inv = 1.0 / var.sqrt();
    let inv_off = sum + 7.0 * U + 2.0 * mean_off * inv + mean_off * mean_off / var;
    let h: Vec<f64> = x.iter().map(|x| (x - mean) * inv).collect();
    let h_off = h.iter().map(|h| h.abs() * (inv_off + 2.0 * U) + mean_off * inv).collect();
    Row { h, h_off, inv, inv_off }
}

/// Bounds of dx: errors of h and of the sums of g and g h, and roundings of each of the three terms.
fn bounds(dy: &[f64], x: &[f64], gain: &[f64], eps: f64, kind: Norm) -> Vec<f64> {
    let n = gain.len() as f64;
    let sum = (n / 16.0 + 8.0) * U;
    let mut all = Vec::new();
    for (dy, x) in dy.chunks_exact(gain.len()).zip(x.chunks_exact(gain.len())) {
        let Row { h, h_off, inv, inv_off } = moments(x, eps, kind);
        let g: Vec<f64> = dy.iter().zip(gain).map(|(dy, gain)| (dy * gain).abs()).collect();
        let mean = |f: &dyn Fn(usize) -> f64| (0..g.len()).map(f).sum::<f64>() / n;
        let (of_g, of_gh) = (mean(&|i| g[i]), mean(&|i| g[i] * h[i].abs()));
        let gh_off = sum * of_gh + mean(&|i| g[i] * h_off[i]);
        for i in 0..g.len() {
            let size = g[i] + of_g + h[i].abs() * of_gh;
            let off = sum * of_g + h_off[i] * of_gh + h[i].abs() * gh_off + h_off[i] * gh_off;
            all.push(inv * (off + size * (inv_off + 8.0 * U)));
        }
    }
    all
}

const CASES: [(usize, Norm, bool); 4] =
    [(1, Norm::Rms, false), (5, Norm::Layer, true), (3, Norm::Layer, false), (4, Norm::Rms, true)];

#[test]
fn gradients_of_rows_and_gains() {
    for (n, (rows, kind, more)) in LENGTHS.into_iter().flat_map(|n| CASES.map(|case| (n, case))) {
        let mut numbers = Numbers::new(n as u64);
        let x: Vec<f32> = numbers.vec(rows * n, 3.0).iter().map(|x| x + 0.5).collect();
        let (gain, dy, add) = (numbers.vec(n, 2.0), numbers.vec(rows * n, 1.0), numbers.vec(rows * n, 4.0));
        let (add, eps) = (more.then_some(&add[..]), 1e-5);
        let dx = same_bits(rows, n, Cut::Pieces(n), |ops, out| {
            (ops.back.norm_dx)(out, &dy, &x, &gain, eps, kind, add);
        });
        let starts = [numbers.vec(n, 1.0), numbers.vec(n, 1.0)];
        let outs = starts.clone().map(|start| Out { rows: 1, cols: n, cut: Cut::Cols(16), start });
        let [dgain, dbias] = same_bits_of(outs, |ops, [mut dgain, mut dbias]| {
            (ops.back.norm_dgain)(&mut dgain, more.then_some(&mut dbias), &dy, &x, n, eps, kind);
        });

        let [x, gain, dy] = [&x, &gain, &dy].map(|x| wide(x));
        let (mut want, of_gain) = reference::back::norm(&dy, &x, &gain, f64::from(eps), kind);
        let bound = bounds(&dy, &x, &gain, f64::from(eps), kind);
        for (want, add) in want.iter_mut().zip(add.unwrap_or_default()) {
            *want += f64::from(*add);
        }
        close(&dx, &want, |i| bound[i] + U * want[i].abs(), &format!("{kind:?} of {n}"));

        // A chain of rows: a product, a sum each, and the error of h.
        let [start, start_bias] = starts.map(|start| wide(&start));
        let (mut size, mut off) = (start.iter().map(|x| x.abs()).collect::<Vec<_>>(), vec![0.0; n]);
        for (dy, x) in dy.chunks_exact(n).zip(x.chunks_exact(n)) {
            let row = moments(x, f64::from(eps), kind);
            for i in 0..n {
                size[i] += (dy[i] * row.h[i]).abs();
                off[i] += dy[i].abs() * row.h_off[i];
            }
        }
        let want: Vec<f64> = start.iter().zip(&of_gain).map(|(a, b)| a + b).collect();
        let chain = (rows as f64 + 2.0) * U;
        close(&dgain, &want, |i| off[i] + chain * (size[i] + off[i]), &format!("{kind:?} gain of {n}"));
        let sums = reference::back::bias_db(&dy, n);
        let want = |i: usize| start_bias[i] + if more { sums[i] } else { 0.0 };
        let want: Vec<f64> = (0..n).map(want).collect();
        close(&dbias, &want, |_| chain * (rows + 1) as f64, &format!("{kind:?} bias of {n}"));
    }
}

#[test]
fn heads_are_rows_of_their_own() {
    let (rows, heads, dim, mut numbers) = (5, 4, 7, Numbers::new(4));
    let n = rows * heads * dim;
    let (x, dy, gain) = (numbers.vec(n, 1.0), numbers.vec(n, 1.0), numbers.vec(dim, 1.0));
    let run = |rows, cols| {
        same_bits(rows, cols, Cut::Pieces(dim), |ops, out| {
            (ops.back.norm_dx)(out, &dy, &x, &gain, 1e-6, Norm::Rms, None);
        })
    };
    assert_eq!(bits(&run(rows, heads * dim)), bits(&run(rows * heads, dim)));
}
