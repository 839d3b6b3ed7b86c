//! Gradients of activations, alone and as a gate.

use crate::act::{KINDS, inputs};
use crate::{LENGTHS, Numbers, Out, U, bits, close, same_bits, same_bits_of, wide};
use kernels::act::Act;
use kernels::{Cut, reference};

/// How far the slope may be off.
fn bound(x: f64, slope: f64, kind: Act) -> f64 {
    let size = x.abs();
    match kind {
        // exp within 2 ULP, of an argument that rounds where it is a product; then 1 - sigma and a product as large as x.
        Act::Silu | Act::QuickGelu => {
            let a = if kind == Act::Silu { 1.0 } else { 1.702 };
            let (ax, sigma) = (a * size, 1.0 / (1.0 + (-a * x).exp()));
            sigma * (1.0 + ax) * (12.0 + 4.0 * ax) * U + (1.0 + ax) * 2.0 / f64::from(f32::MAX)
        }
        // erf within 2 ULP; the density's argument rounds three times.
        Act::GeluErf => {
            let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            4.0 * U + size * density * (8.0 + 2.0 * x * x) * U + 2.0 * U * slope.abs()
        }
        // tanh within 3 ULP of an argument that is off by four roundings; both pass through 1 - t^2.
        Act::GeluTanh => {
            let root = (2.0 / std::f64::consts::PI).sqrt();
            let inner = root * (size + 0.044715 * size.powi(3));
            let (t, steep) = (inner.tanh(), 0.5 * size.min(14.5) * root * (1.0 + 0.134145 * x * x).min(30.0));
            let flat = 1.0 - t * t;
            4.0 * U + flat * inner * 4.0 * U + steep * (14.0 * U + flat * (2.0 * inner * 4.0 + 8.0) * U)
        }
        Act::Relu | Act::Scale(_) => 0.0,
        Act::Tanh | Act::Cap(_) => 18.0 * U,
    }
}

#[test]
fn slopes_with_and_without_a_gated_product() {
    for (n, kind) in LENGTHS.into_iter().flat_map(|n| KINDS.map(|kind| (n, kind))) {
        let (rows, mut numbers) = (3, Numbers::new(8));
        let (x, up, dy) = (inputs(rows * n), numbers.vec(rows * n, 2.0), numbers.vec(rows * n, 1.0));
        let cut = Cut::Cols(32);
        let plain = same_bits(rows, n, cut, |ops, out| (ops.back.act_bwd)(out, None, &dy, &x, None, n, kind));
        let slopes: Vec<f64> = wide(&x).iter().map(|x| reference::back::act(*x, kind)).collect();
        let want: Vec<f64> = slopes.iter().zip(&dy).map(|(slope, dy)| slope * f64::from(*dy)).collect();
        let off = |i: usize| {
            let dy = f64::from(dy[i]).abs();
            bound(f64::from(x[i]), slopes[i], kind) * dy * (1.0 + U) + 2.0 * U * want[i].abs()
        };
        close(&plain, &want, off, &format!("{kind:?} of {n}"));

        let out = || Out { rows, cols: n, cut, start: vec![f32::NAN; rows * n] };
        let [dx, dup] = same_bits_of([out(), out()], |ops, [mut dx, mut dup]| {
            (ops.back.act_bwd)(&mut dx, Some(&mut dup), &dy, &x, Some(&up), n, kind);
        });
        let gate: Vec<f32> = dy.iter().zip(&up).map(|(dy, up)| dy * up).collect();
        let same =
            same_bits(rows, n, cut, |ops, out| (ops.back.act_bwd)(out, None, &gate, &x, None, n, kind));
        assert_eq!(bits(&dx), bits(&same), "{kind:?}: up is a factor of dy");
        let value = same_bits(rows, n, cut, |ops, out| ops.act(out, &x, None, n, kind));
        let want: Vec<f32> = value.iter().zip(&dy).map(|(value, dy)| dy * value).collect();
        assert_eq!(bits(&dup), bits(&want), "{kind:?}: dup is one product");
    }
}

#[test]
fn slopes_far_out_are_those_of_the_line() {
    let x = [1e10, -1e10, 1e20, -1e20, f32::MAX, f32::MIN, 90.0, -90.0];
    for kind in [Act::GeluErf, Act::GeluTanh, Act::Silu, Act::QuickGelu, Act::Relu] {
        let got = same_bits(1, 8, Cut::Cols(32), |ops, out| {
            (ops.back.act_bwd)(out, None, &[1.0; 8], &x, None, 8, kind);
        });
        for (x, got) in x.iter().zip(&got) {
            assert_eq!(*got, if *x > 0.0 { 1.0 } else { 0.0 }, "{kind:?} at {x}");
        }
    }
}
