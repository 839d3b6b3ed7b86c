//! The specification of gradients against finite differences of the specification of values, both in f64.

use crate::act::KINDS;
use crate::{Numbers, wide};
use kernels::norm::Norm;
use kernels::reference;

/// Checks `grad` against the fourth-order difference of `f` at `x`, element by element. What is tolerated follows from
/// the difference at twice the step: it errs sixteen times as much; and from the rounding of f, over the step.
pub(crate) fn check(f: impl Fn(&[f64]) -> f64, x: &[f64], grad: &[f64], what: &str) {
    assert_eq!(x.len(), grad.len(), "{what}");
    for (i, grad) in grad.iter().enumerate() {
        let at = |by: f64| {
            let mut x = x.to_vec();
            x[i] += by;
            f(&x)
        };
        let slope = |h: f64| (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
        let h = 1e-3;
        let (fine, coarse) = (slope(h), slope(2.0 * h));
        let rounding = 100.0 * f64::EPSILON * (1.0 + at(0.0).abs()) / h;
        let off = (fine - grad).abs();
        assert!(
            off <= (fine - coarse).abs() + rounding,
            "{what}: element {i} is {grad}, not {fine}: off by {off:e}"
        );
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(crate) fn numbers(seed: u64, n: usize) -> Vec<f64> {
    wide(&Numbers::new(seed).vec(n, 1.0))
}

#[test]
fn linear() {
    let [rows, n, k] = [3, 5, 4];
    let (x, w, b, dy) = (numbers(1, rows * k), numbers(2, n * k), numbers(3, n), numbers(4, rows * n));
    let sizes = [rows, n, k];
    let y = |x: &[f64], w: &[f64], b: &[f64]| dot(&dy, &reference::linear(x, w, sizes, Some(b), None));
    check(|x| y(x, &w, &b), &x, &reference::back::linear_dx(&dy, &w, sizes, None), "x");
    check(|w| y(&x, w, &b), &w, &reference::back::linear_dw(&dy, &x, sizes), "w");
    check(|b| y(&x, &w, b), &b, &reference::back::bias_db(&dy, n), "bias");
}

#[test]
fn norms() {
    for kind in [Norm::Rms, Norm::Layer] {
        let (rows, n) = (3, 6);
        let (x, gain, dy) = (numbers(5, rows * n), numbers(6, n), numbers(7, rows * n));
        let y = |x: &[f64], gain: &[f64]| dot(&dy, &reference::norm(x, gain, None, 1e-2, kind, None));
        let (dx, dgain) = reference::back::norm(&dy, &x, &gain, 1e-2, kind);
        check(|x| y(x, &gain), &x, &dx, "x");
        check(|gain| y(&x, gain), &gain, &dgain, "gain");
    }
}

#[test]
fn activations() {
    for kind in KINDS {
        // Not within a step of where ReLU bends.
        let x: Vec<f64> = numbers(8, 40).iter().map(|x| x * 5.0).filter(|x| x.abs() > 0.01).collect();
        for x in x {
            let slope = reference::back::act(x, kind);
            check(|x| reference::act(x[0], kind), &[x], &[slope], &format!("{kind:?} at {x}"));
        }
    }
}

#[test]
fn rotations() {
    for interleaved in [false, true] {
        let (x, dy, angles) = (numbers(9, 9), numbers(10, 9), numbers(11, 4));
        let dx = reference::back::rope(&dy, &angles, interleaved, 1.2);
        check(|x| dot(&dy, &reference::rope(x, &angles, interleaved, 1.2)), &x, &dx, "rope");
    }
}

#[test]
fn attention() {
    let (len, dim, scale) = (5, 3, 0.8);
    let (q, k, v, dout) =
        (numbers(13, dim), numbers(14, len * dim), numbers(15, len * dim), numbers(16, dim));
    let biases = numbers(17, len);
    for (cap, seen) in [(None, 0..len), (Some(0.7), 1..4)] {
        let of = |q: &[f64], k: &[f64], v: &[f64], biases: &[f64]| {
            dot(&dout, &reference::attend(q, k, v, seen.clone(), scale, cap, |i| biases[i]))
        };
        let got = reference::back::attend(&dout, [&q, &k, &v], seen.clone(), scale, cap, |i| biases[i]);
        // What is not seen has no gradient.
        let whole = |seen_part: &[f64], width: usize| {
            let mut all = vec![0.0; len * width];
            all[seen.start * width..seen.end * width].copy_from_slice(seen_part);
            all
        };
        check(|q| of(q, &k, &v, &biases), &q, &got.dq, "q");
        check(|k| of(&q, k, &v, &biases), &k, &whole(&got.dk, dim), "k");
        check(|v| of(&q, &k, v, &biases), &v, &whole(&got.dv, dim), "v");
        check(|biases| of(&q, &k, &v, biases), &biases, &whole(&got.dbias, 1), "biases");
    }
}

#[test]
fn log_probabilities() {
    let (x, target, seeds) = (numbers(12, 11), 4, [0.7, -0.3, 0.9]);
    let y = |x: &[f64]| {
        let [mean, entropy] = reference::back::logprob_stats(x);
        seeds[0] * (x[target] - reference::lse(x)) + seeds[1] * mean + seeds[2] * entropy
    };
    check(y, &x, &reference::back::logprob(&x, target, seeds), "logits");
}
