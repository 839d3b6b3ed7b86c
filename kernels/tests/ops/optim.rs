//! What an optimiser does to parameters.

use crate::{LENGTHS, Numbers, Out, U, bits, close, same_bits, same_bits_of, wide};
use kernels::optim::{AdamW, BLOCK, Sgd, blocks, total};
use kernels::{Cut, reference};

/// Parameters cut by columns and in pieces: an element's neighbours do not matter.
fn cuts(n: usize) -> [(usize, usize, Cut); 2] {
    [(1, n, Cut::Cols(16)), (n, 1, Cut::Pieces(1))]
}

#[test]
fn adamw_is_the_paper() {
    let betas = [0.9, 0.999];
    for (n, t) in LENGTHS.into_iter().flat_map(|n| [1, 2, 1000].map(|t| (n, t))) {
        let mut numbers = Numbers::new(n as u64);
        let (p, m, g) = (numbers.vec(n, 1.0), numbers.vec(n, 0.1), numbers.vec(n, 1.0));
        let v: Vec<f32> = numbers.vec(n, 0.1).iter().map(|v| v.abs()).collect();
        let corrections = AdamW::corrections(betas, t);
        let step = AdamW { lr: 3e-3, betas, eps: 1e-8, decay: 0.1, scale: 0.5, corrections };
        let [a, b] = cuts(n).map(|(rows, cols, cut)| {
            let outs = [&p, &m, &v].map(|start| Out { rows, cols, cut, start: start.clone() });
            same_bits_of(outs, |ops, [mut p, mut m, mut v]| {
                (ops.back.adamw)(&mut p, &mut m, &mut v, &g, &step)
            })
        });
        assert!((0..3).all(|i| bits(&a[i]) == bits(&b[i])));
        let want: Vec<[f64; 3]> = (0..n)
            .map(|i| reference::back::adamw([p[i], m[i], v[i]].map(f64::from), f64::from(g[i]), &step))
            .collect();
        let of = |i: usize| want.iter().map(|x| x[i]).collect::<Vec<f64>>();
        let lr = f64::from(step.lr);
        // Of the change: the mean's four roundings over a root of some hundredths, a quotient, root, sum, and products.
        let change = |i: usize| {
            lr / f64::from(corrections[0])
                * 6.0
                * U
                * (1.0 / want[i][2].sqrt())
                * f64::from(corrections[1]).sqrt()
                + 14.0 * U * (want[i][0] - f64::from(p[i])).abs()
        };
        close(&a[0], &of(0), |i| 4.0 * U + change(i), "parameters");
        close(&a[1], &of(1), |_| 6.0 * U, "means");
        close(&a[2], &of(2), |_| 6.0 * U, "squares");
    }
}

#[test]
fn the_first_corrections_are_exact() {
    assert_eq!(AdamW::corrections([0.5, 0.75], 1), [0.5, 0.25]);
    assert_eq!(AdamW::corrections([0.5, 0.75], 2), [0.75, 0.4375]);
}

#[test]
fn descent_with_and_without_momentum() {
    for n in LENGTHS {
        let mut numbers = Numbers::new(n as u64);
        let (p, b, g) = (numbers.vec(n, 1.0), numbers.vec(n, 1.0), numbers.vec(n, 1.0));
        let step = Sgd { lr: 0.1, momentum: 0.9, decay: 0.01, scale: 2.0 };
        for ((rows, cols, cut), momentum) in cuts(n).into_iter().flat_map(|c| [(c, true), (c, false)]) {
            let outs = [&p, &b].map(|start| Out { rows, cols, cut, start: start.clone() });
            let [got, sum] = same_bits_of(outs, |ops, [mut p, mut b]| {
                (ops.back.sgd)(&mut p, momentum.then_some(&mut b), &g, &step);
            });
            let gradient = |i: usize| f64::from(g[i]) * 2.0 + f64::from(step.decay) * f64::from(p[i]);
            let of_sum = |i: usize| f64::from(step.momentum) * f64::from(b[i]) + gradient(i);
            let used = |i: usize| if momentum { of_sum(i) } else { gradient(i) };
            let want: Vec<f64> = (0..n).map(|i| f64::from(p[i]) - f64::from(step.lr) * used(i)).collect();
            close(&got, &want, |_| 4.0 * U, "parameters");
            let want: Vec<f64> = (0..n).map(|i| if momentum { of_sum(i) } else { f64::from(b[i]) }).collect();
            close(&sum, &want, |_| 9.0 * U, "sums");
        }
    }
}

#[test]
fn squares_are_summed_in_blocks() {
    for n in [0, 1, 15, 4095, BLOCK, BLOCK + 1, 3 * BLOCK + 77] {
        let x = Numbers::new(n as u64).vec(n, 3.0);
        let got = same_bits(blocks(n), 1, Cut::Pieces(1), |ops, out| (ops.back.squares)(out, &x));
        let want: Vec<f64> = wide(&x).chunks(BLOCK).map(|x| x.iter().map(|x| x * x).sum()).collect();
        close(&got, &want, |i| want[i] * (BLOCK as f64 / 16.0 + 6.0) * U, "squares");
        assert_eq!(total(&got), wide(&got).iter().sum::<f64>());
    }
}
