//! Bit for bit: the contract. One output is one chain over k, whatever else is computed with it.

use crate::{Case, DENSE, Numbers, Packed, Stored, bits, isas, pack};
use half::bf16;
use kernels::linear::{PANEL, Pack, pack_panel, panel_bytes, quantise_panel};
use kernels::{Cut, DType, Matrix, Ops, Order, TileMut};

/// A step of the chain, rounded once.
fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

fn rounded(x: f32) -> f32 {
    let x = bf16::from_f32(x).to_f32();
    if x.is_subnormal() { x * 0.0 } else { x }
}

/// One output as the contract has it: k rises by ones, or in pairs with the odd element first; an odd k ends in a pair
/// with zero.
fn chain(dtype: DType, x: &[f32], w: &[f32]) -> f32 {
    if dtype != DType::BF16 {
        let narrow = |w: f32| if dtype == DType::F16 { half::f16::from_f32(w).to_f32() } else { w };
        return x.iter().zip(w).fold(0.0, |acc, (x, w)| fma(*x, narrow(*w), acc));
    }
    x.chunks(2).zip(w.chunks(2)).fold(0.0, |acc, (x, w)| {
        let second = |x: &[f32]| x.get(1).copied().map_or(0.0, rounded);
        fma(rounded(x[0]), rounded(w[0]), fma(second(x), second(w), acc))
    })
}

#[test]
fn each_output_is_the_chain_of_the_contract() {
    // One row, short enough to be asked for whole and too long for that, with words left over; 4 KB from one to the next.
    let one = [(1, 35, 67), (1, 65, 2051), (1, 65, 2048), (1, 33, 2041), (1, 33, 6000)];
    let more = [(3, 16, 32), (17, 40, 129), (30, 33, 576), (8, 33, 2051)];
    for (rows, n, k) in one.into_iter().chain(more) {
        let mut numbers = Numbers::new(k as u64);
        let (x, w) = (numbers.vec(rows * k), numbers.vec(n * k));
        let (bias, add) = (numbers.vec(n), numbers.vec(rows * n));
        for dtype in DENSE {
            let outputs = (0..rows * n).map(|at| {
                let (r, j) = (at / n, at % n);
                chain(dtype, &x[r * k..][..k], &w[j * k..][..k]) + bias[j] + add[at]
            });
            let want = bits(&outputs.collect::<Vec<f32>>());
            for order in [Order::Nk, Order::Kn] {
                let gap = if let 2041..=2048 = k { 2 * (2048 - k) } else { 3 };
                let stored = Stored::dense(dtype, order, &w, n, k, gap);
                let packed = Packed::new(&stored.matrix());
                for (ops, w) in
                    isas().into_iter().flat_map(|ops| [(ops, stored.matrix()), (ops, packed.matrix())])
                {
                    let case = Case { x: &x, rows, w, bias: Some(&bias), add: Some(&add) };
                    assert!(
                        bits(&case.run(ops, 1)) == want,
                        "{} {dtype:?} {order:?} {:?} {rows} x {k} x {n}",
                        ops.name(),
                        w.order()
                    );
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_in_any_company_and_however_the_outputs_are_cut() {
    let (most, n, k) = (64, 131, 75);
    let mut numbers = Numbers::new(3);
    let (x, w) = (numbers.vec(most * k), numbers.vec(n * k));
    for dtype in DENSE {
        for order in [Order::Nk, Order::Kn, Order::Panels] {
            let stored =
                Stored::dense(dtype, if order == Order::Kn { order } else { Order::Nk }, &w, n, k, 0);
            let packed = Packed::new(&stored.matrix());
            let w = if order == Order::Panels { packed.matrix() } else { stored.matrix() };
            for ops in isas() {
                let run = |first: usize, rows: usize, of: usize| {
                    let x = &x[first * k..][..rows * k];
                    bits(&Case { x, rows, w, bias: None, add: None }.run(ops, of))
                };
                let all = run(0, most, 1);
                for (first, rows) in
                    [(0, 1), (63, 1), (5, 2), (9, 4), (30, 8), (1, 9), (2, 13), (7, 14), (11, 15), (3, 33)]
                {
                    for of in [1, 2, 3, 7] {
                        let same = run(first, rows, of) == all[first * n..][..rows * n];
                        assert!(
                            same,
                            "{} {dtype:?} {order:?}: rows {first} + {rows}, {of} workers",
                            ops.name()
                        );
                    }
                }
            }
        }
    }
}

/// Files begin where they like: lines of memory are read whole, and nothing of what lies beside the rows.
#[test]
fn rows_are_the_same_wherever_in_a_line_of_memory_they_begin() {
    let (n, line) = (32, 64);
    // Less than a line, one, some with and without words left over.
    for (k, rows) in [1, 7, 16, 17, 33, 64, 96, 161].into_iter().flat_map(|k| [1, 2, 7].map(|rows| (k, rows)))
    {
        let mut numbers = Numbers::new(k as u64);
        let (x, w) = (numbers.vec(rows * k), numbers.vec(n * k));
        for dtype in DENSE {
            let row = k * dtype.block_bytes();
            let run =
                |ops: &Ops, w: Matrix| bits(&Case { x: &x, rows, w, bias: None, add: None }.run(ops, 1));
            let packed = Packed::new(&Stored::dense(dtype, Order::Nk, &w, n, k, 0).matrix());
            let want: Vec<_> = isas().into_iter().map(|ops| (ops, run(ops, packed.matrix()))).collect();
            for gap in [0, row.next_multiple_of(line) - row] {
                let stored = Stored::dense(dtype, Order::Nk, &w, n, k, gap);
                let bytes = &stored.bytes[crate::LEAD..];
                for at in [0, 1, 2, 4, 8, 24, 30, 40, 62] {
                    let mut file = vec![0xFF; bytes.len() + 2 * line];
                    let from = file.as_ptr().align_offset(line) + at;
                    file[from..][..bytes.len()].copy_from_slice(bytes);
                    let w =
                        Matrix::new(&file[from..][..bytes.len()], dtype, Order::Nk, n, k, row + gap).unwrap();
                    for (ops, want) in &want {
                        let same = run(ops, w) == *want;
                        assert!(same, "{} {dtype:?} {rows} x {k}, gap {gap}, from byte {at}", ops.name());
                    }
                }
            }
        }
    }
}

/// A slice of a fused matrix is read where it lies: columns of `Kn`, rows of `Nk`.
#[test]
fn a_view_of_a_fused_matrix_is_the_matrix() {
    let (rows, n, k) = (5, 96, 40);
    let mut numbers = Numbers::new(8);
    let (x, w) = (numbers.vec(rows * k), numbers.vec(n * k));
    for dtype in DENSE {
        let size = dtype.block_bytes();
        for order in [Order::Nk, Order::Kn] {
            let whole = Stored::dense(dtype, order, &w, n, k, 0);
            let (stride, step) = if order == Order::Nk { (k * size, k * size) } else { (n * size, size) };
            for (from, part) in [(0, 33), (33, 30), (63, 33)] {
                let view = &whole.bytes[crate::LEAD + from * step..];
                let view = kernels::Matrix::new(view, dtype, order, part, k, stride).unwrap();
                let alone = Stored::dense(dtype, order, &w[from * k..][..part * k], part, k, 0);
                for ops in isas() {
                    let run = |w| bits(&Case { x: &x, rows, w, bias: None, add: None }.run(ops, 1));
                    assert!(run(view) == run(alone.matrix()), "{} {dtype:?} {order:?} {from}", ops.name());
                }
            }
        }
    }
}

/// Outputs in runs, as layers fused by head or group have them, are read where they lie, whatever reads them.
#[test]
fn a_matrix_in_runs_is_the_matrix_of_its_rows() {
    let (n, mut numbers) = (70, Numbers::new(9));
    let sizes = DENSE.map(|dtype| (dtype, 67)).into_iter().chain(DType::ALL.map(|dtype| (dtype, 256)));
    for ((dtype, k), (run, skip)) in sizes
        .flat_map(|size| [(1, 2), (5, 10), (16, 1), (32, 64), (33, 7), (100, 3)].map(|runs| (size, runs)))
    {
        let (row, total) = (dtype.row_bytes(k).unwrap(), (n - 1) / run * (run + skip) + (n - 1) % run + 1);
        let mut file: Vec<u8> = match dtype.block() {
            1 => Stored::dense(dtype, Order::Nk, &numbers.vec(total * k), total, k, 0).bytes[crate::LEAD..]
                .to_vec(),
            // Any bits are a block, but for scales: small ones keep the numbers finite.
            _ => (0..total * row).map(|i| (i * 37 % 61 + i / row % 3) as u8).collect(),
        };
        let own: Vec<usize> = (0..n).map(|i| i / run * (run + skip) + i % run).collect();
        let rows: Vec<u8> = own.iter().flat_map(|i| file[i * row..][..row].to_vec()).collect();
        // What lies between is never read.
        for i in (0..total).filter(|i| !own.contains(i)) {
            file[i * row..][..row].fill(0xFF);
        }
        let whole = Matrix::new(&file, dtype, Order::Nk, n, k, row).unwrap();
        let (runs, alone) =
            (whole.in_runs(run, skip).unwrap(), Matrix::new(&rows, dtype, Order::Nk, n, k, row).unwrap());
        let what = format!("{dtype:?} {k}, {run} of {}", run + skip);
        for rows in [1, 3, 20] {
            let x = numbers.vec(rows * k);
            for ops in isas() {
                let run = |w| bits(&Case { x: &x, rows, w, bias: None, add: None }.run(ops, 2));
                assert!(run(runs) == run(alone), "{what}, {rows} rows, {}", ops.name());
            }
        }
        let size = panel_bytes(dtype, k).unwrap();
        for p in 0..n.div_ceil(PANEL) {
            let panel = |w, put: &dyn Fn(&mut [u8], &Matrix)| {
                let mut out = vec![0xFF; size.max(k * PANEL * 2)];
                put(&mut out, w);
                out
            };
            let pack = |out: &mut [u8], w: &Matrix| pack_panel(&mut out[..size], w, p);
            assert!(panel(&runs, &pack) == panel(&alone, &pack), "{what}, packed");
            let Some(own) = panel_bytes(DType::Q8_0, k) else { continue };
            let quantise = |out: &mut [u8], w: &Matrix| {
                quantise_panel(&mut out[..own], DType::Q8_0, w, p, None).unwrap();
            };
            assert!(panel(&runs, &quantise) == panel(&alone, &quantise), "{what}, quantised");
        }
        let ids: Vec<u32> = (0..n as u32).rev().collect();
        let embed = |w: &Matrix| {
            let mut out = vec![f32::NAN; n * k];
            let add: [(&Matrix, &[u32]); 1] = [(w, &ids)];
            (Ops::best().embed)(&mut TileMut::part(&mut out, n, k, Cut::Pieces(k), 0, 1), w, &ids, 1.0, &add);
            bits(&out)
        };
        assert!(embed(&runs) == embed(&alone), "{what}, embedded");
    }
}

/// Workers that pack pieces write what one worker writes.
#[test]
fn packing_is_the_same_however_it_is_cut() {
    for rows in [0, 1, 2, 13, 14, 29] {
        for k in [1, 2, 33] {
            let x = Numbers::new(4).vec(rows * k);
            for kind in [Pack::F32, Pack::Bf16, Pack::Bytes, Pack::Shorts] {
                for ops in isas() {
                    let whole: Vec<u32> =
                        pack(ops, &x, rows, k, kind, 1).iter().map(|x| x.to_bits()).collect();
                    for of in [2, 3, 7] {
                        let cut: Vec<u32> =
                            pack(ops, &x, rows, k, kind, of).iter().map(|x| x.to_bits()).collect();
                        assert!(cut == whole, "{} {rows} x {k}, {kind:?}, {of} workers", ops.name());
                    }
                }
            }
        }
    }
}

/// A row among others is packed as it is alone, whatever is in it: nothing but zeros, what is not finite, the ends of the range.
#[test]
fn a_row_is_packed_the_same_among_others() {
    let k = 96;
    for rows in [2, 5, 13, 14, 17, 31] {
        let mut x = Numbers::new(5).vec(rows * k);
        for (r, row) in x.chunks_exact_mut(k).enumerate() {
            match r % 9 {
                1 => row.fill(0.0),
                2 => row[40] = f32::NAN,
                3 => row[70] = f32::NEG_INFINITY,
                4 => row.iter_mut().for_each(|x| *x *= 1e-42),
                5 => row.iter_mut().for_each(|x| *x *= f32::MAX / 8.0),
                6 => row.iter_mut().step_by(3).for_each(|x| *x = -0.0),
                7 => row.iter_mut().enumerate().for_each(|(i, x)| *x = i as f32 - 63.5),
                _ => {}
            }
        }
        for kind in [Pack::F32, Pack::Bf16, Pack::Bytes, Pack::Shorts] {
            for ops in isas() {
                let (all, piece) = (pack(ops, &x, rows, k, kind, 1), ops.pack_piece(rows, k, kind));
                let words = ops.pack_piece(1, k, kind);
                for (r, row) in x.chunks_exact(k).enumerate() {
                    let stride = piece / words;
                    let own = all[r / stride * piece + r % stride..].iter().step_by(stride).take(words);
                    let alone = pack(ops, row, 1, k, kind, 1);
                    assert!(
                        own.map(|x| x.to_bits()).eq(alone.iter().map(|x| x.to_bits())),
                        "{} row {r} of {rows}, {kind:?}",
                        ops.name()
                    );
                }
            }
        }
    }
}

/// bf16 subnormals, in weights and activations, are zero on every set; products that underflow are as in f32.
#[test]
fn subnormal_bf16_are_flushed_alike() {
    let (rows, n, k) = (16, 33, 50);
    let mut numbers = Numbers::new(11);
    let mut odd = |i: usize, x: f32| match i % 5 {
        0 => f32::from_bits(numbers.bits() & 0x807F_FFFF),
        1 => f32::from_bits(numbers.bits() & 0x803F_0000 | 0x3F80_0000),
        _ => x,
    };
    let x: Vec<f32> = (0..rows * k).map(|i| odd(i, 0.5)).collect();
    let w: Vec<f32> = (0..n * k).map(|i| odd(i + 2, -0.25)).collect();
    for order in [Order::Nk, Order::Kn] {
        let stored = Stored::dense(DType::BF16, order, &w, n, k, 0);
        let want: Vec<f32> = (0..rows * n)
            .map(|at| chain(DType::BF16, &x[at / n * k..][..k], &w[at % n * k..][..k]))
            .collect();
        for ops in isas() {
            for rows in [1, 3, 16] {
                let case = Case { x: &x[..rows * k], rows, w: stored.matrix(), bias: None, add: None };
                assert!(
                    bits(&case.run(ops, 1)) == bits(&want[..rows * n]),
                    "{} {order:?} {rows}",
                    ops.name()
                );
            }
        }
    }
}
