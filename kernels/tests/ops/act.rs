//! Activations: every branch of their polynomials, alone and as a gate.

use crate::{LENGTHS, Numbers, U, bits, close, same_bits, wide};
use kernels::act::Act;
use kernels::{Cut, reference};

pub(crate) const KINDS: [Act; 9] = [
    Act::Silu,
    Act::GeluErf,
    Act::GeluTanh,
    Act::Relu,
    Act::Tanh,
    Act::QuickGelu,
    Act::Cap(30.0),
    Act::Cap(0.7),
    Act::Scale(-0.3),
];

/// The elements worth a look: both sides of every branch of exp, tanh and erf, and everything between.
pub(crate) fn inputs(n: usize) -> Vec<f32> {
    let special = [
        0.0, -0.0, 1e-30, -1e-30, 0.5, -0.5, 1.0, -1.0, 4.0, -4.0, 9.0, -9.0, 50.0, -50.0, 88.9, -88.9,
        200.0, -200.0,
    ];
    let mut numbers = Numbers::new(n as u64);
    (0..n).map(|i| if i < special.len() { special[i] } else { numbers.next() * 12.0 }).collect()
}

#[test]
fn activations_with_and_without_a_gated_product() {
    for n in LENGTHS {
        for kind in KINDS {
            let (rows, mut numbers) = (3, Numbers::new(7));
            let (x, up) = (inputs(rows * n), numbers.vec(rows * n, 2.0));
            let cut = Cut::Cols(32);
            let plain = same_bits(rows, n, cut, |ops, out| ops.act(out, &x, None, n, kind));
            let gated = same_bits(rows, n, cut, |ops, out| ops.act(out, &x, Some(&up), n, kind));
            let product: Vec<f32> = plain.iter().zip(&up).map(|(y, up)| y * up).collect();
            assert_eq!(bits(&gated), bits(&product), "{kind:?}: the gate is one product");

            let want: Vec<f64> = wide(&x).iter().map(|x| reference::act(*x, kind)).collect();
            let bound = |i: usize| {
                let (x, y) = (f64::from(x[i]).abs(), want[i].abs());
                match kind {
                    // exp within 2 ULP, sum, quotient; zero once exp(-x) is beyond the largest number
                    Act::Silu => 8.0 * U * y + x / f64::from(f32::MAX),
                    // erf and tanh within a few ULP of 1, of which x / 2 is taken; tanh's argument is off by 4
                    // roundings, and z (1 - tanh(z)^2) is below 1/2
                    Act::GeluErf | Act::GeluTanh => 0.5 * x * 12.0 * U + 2.0 * U * y,
                    Act::Relu => 0.0,
                    Act::Tanh => 6.0 * U * y,
                    // as SiLU; the argument rounds twice, which a sigmoid hands on at most
                    Act::QuickGelu => (8.0 + 4.0 * x) * U * y + x / f64::from(f32::MAX),
                    // tanh within 3 ULP; an error of its argument is no larger a share of it; a product
                    Act::Cap(_) => 9.0 * U * y,
                    Act::Scale(_) => U * y,
                }
            };
            close(&plain, &want, bound, &format!("{kind:?} of {n}"));
        }
    }
}
