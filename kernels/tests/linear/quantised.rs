//! Types in blocks: the product is that of the f32 matrix they stand for, bit for bit.

use crate::{Case, Numbers, Stored, bits, isas};
use kernels::quant::dequantize_row;
use kernels::{DType, Order};

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

#[test]
fn every_block_type_multiplies_as_the_matrix_it_stands_for() {
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.block() > 1) {
        for (n, k) in [(1, 256), (35, 512), (64, 256), (70, dtype.block())] {
            let blocks = blocks(dtype, n * k / dtype.block());
            let mut wide = vec![0.0; n * k];
            dequantize_row(dtype, &blocks, &mut wide);
            let (stored, plain) =
                (Stored::blocks(dtype, &blocks, n, k), Stored::dense(DType::F32, Order::Nk, &wide, n, k, 0));
            let mut numbers = Numbers::new(n as u64);
            for rows in [0, 1, 2, 7, 15] {
                let (x, bias) = (numbers.vec(rows * k), numbers.vec(n));
                for ops in isas() {
                    let run =
                        |w, of| bits(&Case { x: &x, rows, w, bias: Some(&bias), add: None }.run(ops, of));
                    for of in [1, 3] {
                        let same = run(stored.matrix(), of) == run(plain.matrix(), 1);
                        assert!(same, "{} {dtype:?}: {rows} x {k} x {n}, {of} workers", ops.name());
                    }
                }
            }
        }
    }
}
