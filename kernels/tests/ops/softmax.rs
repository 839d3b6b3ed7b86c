//! Softmax and log-probabilities.

use crate::{LENGTHS, Numbers, U, bits, close, isas, same_bits, wide};
use kernels::{Cut, reference};

fn largest(x: &[f32]) -> f64 {
    wide(x).into_iter().fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn softmax_of_a_row() {
    for n in LENGTHS {
        for scale in [1.0, 30.0, 300.0] {
            let x = Numbers::new(n as u64).vec(n, scale);
            let run = |i: usize| {
                let mut x = x.clone();
                (isas()[i].softmax)(&mut x);
                x
            };
            let got = run(0);
            (1..isas().len()).for_each(|i| assert_eq!(bits(&run(i)), bits(&got), "{n}"));
            let (want, max) = (reference::softmax(&wide(&x)), largest(&x));
            // The difference rounds once (an error in the exponent), exp is within 2 ULP, the sum of n over 16 lanes,
            // the quotient; below exp(-87) is zero.
            let bound = |i: usize| {
                let far = max - f64::from(x[i]);
                want[i] * U * (far + 2.0 * (4.0 + n as f64 / 16.0 + 5.0) + 88.0)
                    + 2.0 * f64::from(f32::MIN_POSITIVE)
            };
            close(&got, &want, bound, &format!("softmax of {n}"));
        }
    }
}

#[test]
fn masked_elements_get_nothing() {
    for ops in isas() {
        let mut x = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 1.0];
        (ops.softmax)(&mut x);
        assert_eq!(x, [0.0, 0.5, 0.0, 0.5]);
        (ops.softmax)(&mut []);
    }
}

#[test]
fn log_probability_of_targets() {
    for vocab in LENGTHS.into_iter().chain([5000]) {
        let rows = 4;
        let logits = Numbers::new(vocab as u64).vec(rows * vocab, 20.0);
        let targets: Vec<u32> = (0..rows).map(|r| (r * 31 % vocab) as u32).collect();
        let got = same_bits(rows, 2, Cut::Pieces(2), |ops, out| (ops.logprob)(out, &logits, vocab, &targets));
        let mut want = Vec::new();
        for (row, target) in wide(&logits).chunks_exact(vocab).zip(&targets) {
            let lse = reference::lse(row);
            want.extend([row[*target as usize] - lse, lse]);
        }
        // Relative errors of the terms and their sum are absolute errors of its logarithm: differences of up to 40
        // round once, exp is within 2 ULP. The result rounds once.
        let bound = |i: usize| U * (40.0 + 4.0 + vocab as f64 / 16.0 + 5.0 + want[i].abs());
        close(&got, &want, bound, &format!("vocabulary of {vocab}"));
    }
}
