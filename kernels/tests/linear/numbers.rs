//! Against f64: the values are right.

use crate::{Case, DENSE, Numbers, Stored, U, bits, isas};
use half::{bf16, f16};
use kernels::{DType, Order};

pub(crate) const ROWS: [usize; 9] = [0, 1, 2, 3, 5, 13, 14, 15, 64];
pub(crate) const KS: [usize; 9] = [1, 2, 3, 17, 31, 32, 33, 64, 127];
pub(crate) const NS: [usize; 6] = [1, 7, 31, 32, 33, 65];

/// bf16 as the contract reads it: subnormals are zero.
fn flushed(x: bf16) -> f64 {
    if x.to_f32().is_subnormal() { 0.0 } else { x.to_f64() }
}

fn weight(dtype: DType, x: f32) -> f64 {
    match dtype {
        DType::F16 => f16::from_f32(x).to_f64(),
        DType::BF16 => flushed(bf16::from_f32(x)),
        _ => f64::from(x),
    }
}

fn activation(dtype: DType, x: f32) -> f64 {
    if dtype == DType::BF16 { flushed(bf16::from_f32(x)) } else { f64::from(x) }
}

/// Asserts `got` within (k + 3) roundings of the sum of magnitudes: Higham's bound for a chain of fused
/// multiply-adds (one each, and one for the padding of a pair), the bias and the addition.
fn check(got: &[f32], x: &[f64], w: &[f64], [rows, n, k]: [usize; 3], bias: &[f32], add: &[f32], what: &str) {
    let steps = (k + 3) as f64 * U;
    for r in 0..rows {
        for j in 0..n {
            let (mut sum, mut size) = (f64::from(bias[j]) + f64::from(add[r * n + j]), 0.0);
            size += f64::from(bias[j].abs()) + f64::from(add[r * n + j].abs());
            for i in 0..k {
                let product = x[r * k + i] * w[j * k + i];
                (sum, size) = (sum + product, size + product.abs());
            }
            let (got, bound) = (f64::from(got[r * n + j]), steps / (1.0 - steps) * size);
            assert!(
                (got - sum).abs() <= bound,
                "{what}, row {r}, output {j}: {got} is not {sum} within {bound}"
            );
        }
    }
}

#[test]
fn every_shape_type_and_layout_is_within_the_bound_and_the_same_on_all_sets() {
    for (i, &k) in KS.iter().enumerate() {
        for &n in &NS {
            let mut numbers = Numbers::new((k * 1000 + n) as u64);
            let most = 64;
            let (w, x) = (numbers.vec(n * k), numbers.vec(most * k));
            let (bias, add) = (numbers.vec(n), numbers.vec(most * n));
            for dtype in DENSE {
                let wide: Vec<f64> = w.iter().map(|x| weight(dtype, *x)).collect();
                let wide_x: Vec<f64> = x.iter().map(|x| activation(dtype, *x)).collect();
                for order in [Order::Nk, Order::Kn] {
                    let stored = Stored::dense(dtype, order, &w, n, k, i % 3);
                    for &rows in &ROWS {
                        let (x, add) = (&x[..rows * k], &add[..rows * n]);
                        let case = Case { x, rows, w: stored.matrix(), bias: Some(&bias), add: Some(add) };
                        let what = format!("{dtype:?} {order:?} [{rows}, {k}] x [{n}, {k}]");
                        let mut first = None;
                        for ops in isas() {
                            let got = case.run(ops, 1);
                            check(&got, &wide_x, &wide, [rows, n, k], &bias, add, &what);
                            let got = bits(&got);
                            let first = first.get_or_insert_with(|| got.clone());
                            assert!(
                                *first == got,
                                "{what}: {} has other bits than {}",
                                ops.name(),
                                isas()[0].name()
                            );
                        }
                    }
                }
            }
        }
    }
}

/// 1 x w is w: all 65,536 elements of each 16-bit type, as one row of weights each way.
#[test]
fn every_element_of_the_16_bit_types_is_read_right() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for dtype in [DType::F16, DType::BF16] {
        for order in [Order::Nk, Order::Kn] {
            let stride = if order == Order::Nk { 2 } else { all.len() };
            let w = kernels::Matrix::new(&all, dtype, order, 1 << 16, 1, stride).unwrap();
            for rows in [1, 2, 20] {
                let x = vec![1.0; rows];
                for ops in isas() {
                    let got = Case { x: &x, rows, w, bias: None, add: None }.run(ops, 1);
                    for (i, got) in got.iter().enumerate() {
                        let element = i as u16;
                        let want = match dtype {
                            DType::F16 => f16::from_bits(element).to_f64(),
                            _ => flushed(bf16::from_bits(element)),
                        };
                        let same = f64::from(*got) == want || (got.is_nan() && want.is_nan());
                        assert!(
                            same,
                            "{} {dtype:?} {order:?}: {element:#06x} is {want}, not {got}",
                            ops.name()
                        );
                    }
                }
            }
        }
    }
}

/// x times 1 is x rounded to bf16: values on, beside and between all bf16 numbers.
#[test]
fn activations_are_rounded_to_the_nearest_bf16() {
    let x: Vec<f32> = (0..=u16::MAX)
        .flat_map(|high| {
            [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF].map(|low| f32::from_bits(u32::from(high) << 16 | low))
        })
        .collect();
    let one = Stored::dense(DType::BF16, Order::Nk, &[1.0], 1, 1, 0);
    for ops in isas() {
        for rows in [1, 7, x.len()] {
            for x in x.chunks(rows) {
                let got = Case { x, rows: x.len(), w: one.matrix(), bias: None, add: None }.run(ops, 1);
                for (x, got) in x.iter().zip(&got) {
                    let want = flushed(bf16::from_f32(*x));
                    let same = f64::from(*got) == want || (got.is_nan() && want.is_nan());
                    assert!(same, "{}: {x:e} becomes {want:e}, not {got:e}", ops.name());
                }
            }
        }
    }
}

/// Infinities and NaN come out where f32 arithmetic puts them, and nowhere else.
#[test]
fn infinities_and_nan_pass_as_in_f32() {
    let (rows, n, k) = (19, 39, 37);
    let mut numbers = Numbers::new(5);
    let (mut x, mut w) = (numbers.vec(rows * k), numbers.vec(n * k));
    x[3 * k + 5] = f32::NAN;
    x[4 * k] = f32::INFINITY;
    x[17 * k + 36] = f32::NEG_INFINITY;
    w[6 * k + 8] = f32::INFINITY;
    w[33 * k + 36] = f32::NAN;
    (w[7 * k], x[5 * k + 8]) = (0.0, 0.0);
    let class = |x: f64| {
        if x.is_nan() {
            2
        } else if x.is_infinite() {
            x.signum() as i32
        } else {
            0
        }
    };
    for dtype in DENSE {
        let want: Vec<i32> = (0..rows * n)
            .map(|at| {
                let (r, j) = (at / n, at % n);
                class((0..k).map(|i| activation(dtype, x[r * k + i]) * weight(dtype, w[j * k + i])).sum())
            })
            .collect();
        for order in [Order::Nk, Order::Kn] {
            let stored = Stored::dense(dtype, order, &w, n, k, 0);
            for ops in isas() {
                let got = Case { x: &x, rows, w: stored.matrix(), bias: None, add: None }.run(ops, 1);
                let got: Vec<i32> = got.iter().map(|x| class(f64::from(*x))).collect();
                assert_eq!(got, want, "{} {dtype:?} {order:?}", ops.name());
            }
        }
    }
}
