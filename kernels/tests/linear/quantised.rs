//! Types in blocks: within the derived bound of the f32 matrix they stand for and the activations as they are quantised;
//! the same bits in file layout and packed, for all sets, rows and workers.

use crate::{Case, Numbers, Packed, Stored, U, bits, isas};
use kernels::quant::dequantize_row;
use kernels::{DType, Order, reference};

/// Blocks of random bytes with scales of a usual size.
fn blocks(dtype: DType, count: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(dtype.block_bytes() as u64);
    let scales: &[usize] = match dtype {
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[0, 2],
        DType::Q6K => &[208],
        _ => &[0],
    };
    let mut bytes = Vec::new();
    for _ in 0..count {
        let mut block: Vec<u8> = (0..dtype.block_bytes()).map(|_| numbers.bits() as u8).collect();
        for at in scales {
            block[*at..at + 2].copy_from_slice(&half::f16::from_f32(numbers.one() / 16.0).to_le_bytes());
        }
        bytes.extend(block);
    }
    bytes
}

fn block_types() -> impl Iterator<Item = DType> {
    DType::ALL.into_iter().filter(|dtype| dtype.block() > 1)
}

/// Products are exact within a group of k; each group costs the rounding of a scale, of a step of the chain and of the
/// step for its minimum; then come bias and the parts of the weight itself (scale times code, plus minimum).
#[test]
fn every_block_type_is_within_the_bound_and_the_same_on_all_sets() {
    for dtype in block_types() {
        // More blocks than are spread at once, in an odd number where there can be.
        let long = if dtype.block() == 32 { 61 * 32 } else { 9 * 256 };
        for (n, k) in [(1, 256), (35, 512), (64, 768), (70, dtype.block()), (33, long)] {
            let blocks = blocks(dtype, n * k / dtype.block());
            let mut wide = vec![0.0; n * k];
            dequantize_row(dtype, &blocks, &mut wide);
            let wide: Vec<f64> = wide.into_iter().map(f64::from).collect();
            let stored = Stored::blocks(dtype, &blocks, n, k);
            let packed = Packed::new(&stored.matrix());
            let mut numbers = Numbers::new(n as u64);
            for rows in [0, 1, 2, 3, 7, 15] {
                let (x, bias) = (numbers.vec(rows * k), numbers.vec(n));
                let wide_x = reference::quantise(&x);
                let run = |w, ops, of| Case { x: &x, rows, w, bias: Some(&bias), add: None }.run(ops, of);
                let first = run(stored.matrix(), isas()[0], 1);
                for (at, got) in first.iter().enumerate() {
                    let (x, w) = (&wide_x[at / n * k..][..k], &wide[at % n * k..][..k]);
                    let sum: f64 = x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + f64::from(bias[at % n]);
                    // Codes and minima stand for at most twice 32 steps of a scale: what they cancel to is less.
                    let size: f64 = x.iter().zip(w).map(|(x, w)| x.abs() * (w.abs() + 2.0)).sum();
                    let bound = (k / 8 + 8) as f64 * U * (size + f64::from(bias[at % n].abs()));
                    assert!(
                        (f64::from(*got) - sum).abs() <= bound,
                        "{dtype:?} {rows} x {k} x {n}: {got}, not {sum}"
                    );
                }
                for ops in isas() {
                    for w in [stored.matrix(), packed.matrix()] {
                        for of in [1, 3] {
                            let same = bits(&run(w, ops, of)) == bits(&first);
                            let order = w.order();
                            assert!(
                                same,
                                "{} {dtype:?} {order:?}: {rows} x {k} x {n}, {of} workers",
                                ops.name()
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_company() {
    let (most, n, k) = (33, 40, 1280);
    for dtype in block_types() {
        let stored = Stored::blocks(dtype, &blocks(dtype, n * k / dtype.block()), n, k);
        let packed = Packed::new(&stored.matrix());
        let x = Numbers::new(2).vec(most * k);
        for ops in isas() {
            let run = |first: usize, rows: usize| {
                let x = &x[first * k..][..rows * k];
                bits(&Case { x, rows, w: packed.matrix(), bias: None, add: None }.run(ops, 1))
            };
            let all = run(0, most);
            for (first, rows) in [(0, 1), (32, 1), (5, 2), (9, 4), (20, 8), (1, 13), (2, 14), (3, 15)] {
                let same = run(first, rows) == all[first * n..][..rows * n];
                assert!(same, "{} {dtype:?}: rows {first} + {rows}", ops.name());
            }
        }
    }
}

/// What a linear multiplies and what an embedding looks up are the same matrix.
#[test]
fn a_packed_row_is_the_row_that_was_packed() {
    for dtype in DType::ALL {
        let (n, k) = (35, 512);
        let stored = if dtype.block() > 1 {
            Stored::blocks(dtype, &blocks(dtype, n * k / dtype.block()), n, k)
        } else {
            Stored::dense(dtype, Order::Nk, &Numbers::new(5).vec(n * k), n, k, 0)
        };
        let (w, packed) = (stored.matrix(), Packed::new(&stored.matrix()));
        for r in 0..n {
            let (mut want, mut got) = (vec![0.0; k], vec![1.0; k]);
            dequantize_row(dtype, w.row(r), &mut want);
            kernels::linear::embed_row(&packed.matrix(), r, &mut got);
            assert_eq!(bits(&got), bits(&want), "{dtype:?} row {r}");
        }
    }
}

/// A number that is not finite spoils its row, and no other.
#[test]
fn what_is_not_finite_stays_so() {
    let (n, k) = (40, 256);
    let stored = Stored::blocks(DType::Q4_0, &blocks(DType::Q4_0, n * k / 32), n, k);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = Numbers::new(6).vec(3 * k);
        x[k + 77] = bad;
        for ops in isas() {
            let got = Case { x: &x, rows: 3, w: stored.matrix(), bias: None, add: None }.run(ops, 1);
            for (r, row) in got.chunks(n).enumerate() {
                assert!(row.iter().all(|y| y.is_finite() == (r != 1)), "{} {bad} row {r}", ops.name());
            }
        }
    }
}
