//! Largest elements and weights by blocks.

use crate::{Numbers, bits, isas};
use kernels::math::exp1;
use kernels::sample::BLOCK;

/// Logits with everything among them that a model may give.
fn logits(n: usize) -> Vec<f32> {
    let mut x = Numbers::new(n as u64).vec(n, 20.0);
    for (i, odd) in [f32::NAN, f32::NEG_INFINITY, -0.0, -3e38, -f32::NAN].into_iter().enumerate() {
        if n > 20 {
            x[(i * 37 + 5) % n] = odd;
        }
    }
    x
}

fn largest(x: &[f32]) -> f32 {
    x.iter().copied().filter(|x| !x.is_nan()).fold(f32::NEG_INFINITY, f32::max)
}

const LENGTHS: [usize; 9] = [1, 15, 16, 17, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 33, 5000];

#[test]
fn maxima_are_those_of_each_block() {
    for n in LENGTHS {
        let mut x = logits(n);
        if n > 2 * BLOCK {
            x[BLOCK..2 * BLOCK].fill(f32::NAN);
        }
        let want: Vec<f32> = x.chunks(BLOCK).map(largest).collect();
        for ops in isas() {
            let mut out = vec![0.0; want.len()];
            (ops.block_max)(&mut out, &x);
            assert_eq!(bits(&out), bits(&want), "{n} on {}", ops.name());
        }
    }
}

#[test]
fn weights_are_exponentials_and_sums_those_of_each_block() {
    for n in LENGTHS {
        for temperature in [0.3, 1.0, 2.5] {
            let x = logits(n);
            let max = largest(&x);
            let weight = |x: f32| if x.is_nan() { 0.0 } else { exp1((x - max) / temperature) };
            let want: Vec<f32> = x.iter().map(|x| weight(*x)).collect();
            let mut first: Option<Vec<u32>> = None;
            for ops in isas() {
                let (mut got, blocks) = (vec![9.0; n], n.div_ceil(BLOCK));
                let (mut maxima, mut sums) = (vec![9.0; blocks], vec![9.0; blocks]);
                (ops.weigh)(&mut got, &x, max, temperature, &mut maxima, &mut sums);
                assert_eq!(bits(&got), bits(&want), "{n} on {}", ops.name());
                assert_eq!(maxima, want.chunks(BLOCK).map(largest).collect::<Vec<_>>(), "{n}");
                for (sum, want) in sums.iter().zip(want.chunks(BLOCK)) {
                    let exact: f64 = want.iter().map(|w| f64::from(*w)).sum();
                    // A lane adds BLOCK / 16 numbers, the tree four times more.
                    let bound = (BLOCK / 16 + 4) as f64 * crate::U * exact;
                    assert!((f64::from(*sum) - exact).abs() <= bound, "{sum} is not {exact}");
                }
                assert_eq!(*first.get_or_insert(bits(&sums)), bits(&sums), "{n} on {}", ops.name());
            }
        }
    }
}
