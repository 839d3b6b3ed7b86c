//! Gradients of `linear`: chains in a fixed order, whatever holds the weights, however the work is shared, and in however
//! many pieces a batch comes.

use crate::{DENSE, Numbers, Packed, Stored, U, bits, isas, pack};
use kernels::linear::{PANEL, Pack, bias_db, dw_cut};
use kernels::quant::dequantize_row;
use kernels::reference::back as reference;
use kernels::{Cut, DType, Matrix, Ops, Order, TileMut};

fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

fn dx(ops: &Ops, dy: &[f32], rows: usize, w: &Matrix, add: Option<&[f32]>, of: usize) -> Vec<f32> {
    let packed = pack(ops, dy, rows, w.n(), Pack::F32, of);
    let mut out = vec![f32::NAN; rows * w.k()];
    for worker in 0..of {
        let mut scratch = vec![f32::NAN; ops.linear_dx_scratch(w.n())];
        let mut tile = TileMut::part(&mut out, rows, w.k(), Cut::Cols(PANEL), worker, of);
        ops.linear_dx(&mut tile, &packed, rows, w, add, &mut scratch);
    }
    out
}

/// The chain of the contract: over outputs, in order.
fn chain(dy: &[f32], w: &[f32], [n, k]: [usize; 2], add: &[f32]) -> Vec<f32> {
    let one = |at: usize| (0..n).fold(0.0, |acc, j| fma(w[j * k + at % k], dy[at / k * n + j], acc));
    add.iter().enumerate().map(|(at, add)| one(at) + add).collect()
}

/// Within the bound of a chain: each of n steps and the addition rounds once.
fn check(got: &[f32], want: &[f64], sizes: &[f64], steps: usize) {
    for ((got, want), size) in got.iter().zip(want).zip(sizes) {
        let off = (f64::from(*got) - want).abs();
        assert!(off <= (steps as f64 + 2.0) * U * size, "{got}, not {want}: off by {off:e}");
    }
}

#[test]
fn dx_is_one_chain_over_outputs_in_every_type_and_order() {
    for (rows, n, k) in
        [(1, 1, 1), (1, 35, 67), (3, 16, 31), (17, 129, 40), (30, 33, 97), (7, 2051, 33), (5, 1, 3)]
    {
        let mut numbers = Numbers::new((n * k) as u64);
        let (dy, w, add) = (numbers.vec(rows * n), numbers.vec(n * k), numbers.vec(rows * k));
        for dtype in DENSE {
            let rounded: Vec<f32> = match dtype {
                DType::F32 => w.clone(),
                DType::F16 => w.iter().map(|w| half::f16::from_f32(*w).to_f32()).collect(),
                _ => w.iter().map(|w| half::bf16::from_f32(*w).to_f32()).collect(),
            };
            let want = chain(&dy, &rounded, [n, k], &add);
            let [spec, size] = [|x: f64| x, f64::abs].map(|f| {
                let [dy, w, add] =
                    [&dy, &rounded, &add].map(|x| wide(x).into_iter().map(f).collect::<Vec<_>>());
                reference::linear_dx(&dy, &w, [rows, n, k], Some(&add))
            });
            check(&want, &spec, &size, n);
            for order in [Order::Nk, Order::Kn] {
                let stored = Stored::dense(dtype, order, &w, n, k, 3);
                let packed = Packed::new(&stored.matrix());
                for ops in isas() {
                    for (w, of) in [(stored.matrix(), 1), (stored.matrix(), 3), (packed.matrix(), 2)] {
                        let got = dx(ops, &dy, rows, &w, Some(&add), of);
                        let what = format!("{} {dtype:?} {order:?} {:?}", ops.name(), w.order());
                        assert!(bits(&got) == bits(&want), "{what} {rows} x {n} x {k}");
                    }
                }
            }
        }
    }
}

#[test]
fn dx_through_quantised_weights_is_that_through_their_values() {
    let (rows, n, mut numbers) = (9, 70, Numbers::new(5));
    for (dtype, k) in DType::ALL.into_iter().filter(|dtype| dtype.block() > 1).map(|dtype| (dtype, 512)) {
        let row = dtype.row_bytes(k).unwrap();
        // Any bits are a block, but for scales: small ones keep the numbers finite.
        let blocks: Vec<u8> = (0..n * row).map(|i| (i * 37 % 61 + i / row % 3) as u8).collect();
        let mut values = vec![0.0; n * k];
        for (bytes, values) in blocks.chunks_exact(row).zip(values.chunks_exact_mut(k)) {
            dequantize_row(dtype, bytes, values);
        }
        let (dy, stored) = (numbers.vec(rows * n), Stored::blocks(dtype, &blocks, n, k));
        let packed = Packed::new(&stored.matrix());
        let want = chain(&dy, &values, [n, k], &vec![0.0; rows * k]);
        for ops in isas() {
            for w in [stored.matrix(), packed.matrix()] {
                let got: Vec<f32> = dx(ops, &dy, rows, &w, None, 2).iter().map(|x| x + 0.0).collect();
                assert!(bits(&got) == bits(&want), "{} {dtype:?} {:?}", ops.name(), w.order());
            }
        }
    }
}

#[test]
fn dx_through_a_matrix_in_runs_and_subnormal_bf16() {
    let (rows, n, k, mut numbers) = (5, 70, 35, Numbers::new(6));
    let (dy, mut w) = (numbers.vec(rows * n), numbers.vec(n * k));
    w.iter_mut().step_by(7).for_each(|w| *w *= f32::MIN_POSITIVE * 0.75);
    let flushed: Vec<f32> = w
        .iter()
        .map(|w| half::bf16::from_f32(*w).to_f32())
        .map(|w| if w.is_subnormal() { w * 0.0 } else { w })
        .collect();
    let want = chain(&dy, &flushed, [n, k], &vec![0.0; rows * k]);
    let (run, skip) = (4, 3);
    let total = n / run * (run + skip) + n % run;
    let mut file = vec![f32::NAN; total * k];
    for (i, row) in w.chunks_exact(k).enumerate() {
        file[(i / run * (run + skip) + i % run) * k..][..k].copy_from_slice(row);
    }
    let file = Stored::dense(DType::BF16, Order::Nk, &file, total, k, 0);
    let runs = Matrix::new(&file.bytes[crate::LEAD..], DType::BF16, Order::Nk, n, k, 2 * k).unwrap();
    let runs = runs.in_runs(run, skip).unwrap();
    let across = Stored::dense(DType::BF16, Order::Kn, &w, n, k, 0);
    let packed = Packed::new(&runs);
    for ops in isas() {
        for w in [runs, across.matrix(), packed.matrix()] {
            let got: Vec<f32> = dx(ops, &dy, rows, &w, None, 1).iter().map(|x| x + 0.0).collect();
            assert!(bits(&got) == bits(&want), "{} {:?}", ops.name(), w.order());
        }
    }
}

fn dw(
    ops: &Ops,
    start: &[f32],
    dy: &[f32],
    x: &[f32],
    [rows, n, k]: [usize; 3],
    cut: Cut,
    of: usize,
) -> Vec<f32> {
    let mut out = start.to_vec();
    for worker in 0..of {
        let mut scratch = vec![f32::NAN; ops.linear_dw_scratch()];
        let mut tile = TileMut::part(&mut out, n, k, cut, worker, of);
        ops.linear_dw(&mut tile, dy, x, rows, &mut scratch);
    }
    out
}

#[test]
fn dw_is_one_chain_over_rows_that_goes_on_from_what_is_there() {
    for (rows, n, k) in [
        (1, 1, 1),
        (0, 5, 5),
        (3, 8, 67),
        (257, 33, 8),
        (300, 50, 40),
        (600, 13, 1),
        (2, 200, 530),
        (19, 1, 700),
    ] {
        let mut numbers = Numbers::new((rows + n * k) as u64);
        let (dy, x, start) = (numbers.vec(rows * n), numbers.vec(rows * k), numbers.vec(n * k));
        let one =
            |at: usize| (0..rows).fold(start[at], |acc, r| fma(x[r * k + at % k], dy[r * n + at / k], acc));
        let want: Vec<f32> = (0..n * k).map(one).collect();
        let [spec, size] = [|x: f64| x, f64::abs].map(|f| {
            let [dy, x, start] = [&dy, &x, &start].map(|x| wide(x).into_iter().map(f).collect::<Vec<_>>());
            let sums = reference::linear_dw(&dy, &x, [rows, n, k]);
            sums.iter().zip(start).map(|(a, b)| a + b).collect::<Vec<_>>()
        });
        check(&want, &spec, &size, rows);
        let cuts = [dw_cut(n, k), Cut::Blocks { rows: 5, cols: 33 }, Cut::Blocks { rows: 168, cols: 64 }];
        for ops in isas() {
            for (cut, of) in cuts.into_iter().flat_map(|cut| [1, 2, 7].map(|of| (cut, of))) {
                let got = dw(ops, &start, &dy, &x, [rows, n, k], cut, of);
                assert!(bits(&got) == bits(&want), "{} {rows} x {n} x {k} {cut:?} {of}", ops.name());
            }
            // A batch in two parts.
            let half = rows / 2;
            let first = dw(ops, &start, &dy, &x, [half, n, k], cuts[0], 2);
            let both = dw(ops, &first, &dy[half * n..], &x[half * k..], [rows - half, n, k], cuts[0], 1);
            assert!(bits(&both) == bits(&want), "{} {rows} x {n} x {k}, in two parts", ops.name());
        }
    }
}

#[test]
fn cells_of_dw_are_many_and_no_larger_than_scratch() {
    for (n, k) in [(576, 576), (1536, 576), (8, 576), (8, 4096), (4096, 8), (49152, 576), (1, 1), (0, 7)] {
        let Cut::Blocks { rows, cols } = dw_cut(n, k) else { panic!("no blocks") };
        assert!(rows <= 168 && cols % PANEL == 0);
        let most = n.div_ceil(42) * k.div_ceil(PANEL);
        assert!(n.div_ceil(rows) * k.div_ceil(cols) >= most.min(16), "{n} x {k}: {rows} x {cols}");
    }
}

#[test]
fn db_sums_rows_in_order() {
    for (rows, n) in [(0, 3), (1, 1), (5, 16), (300, 33), (2, 97)] {
        let mut numbers = Numbers::new(n as u64);
        let (dy, start) = (numbers.vec(rows * n), numbers.vec(n));
        let want: Vec<f32> = (0..n).map(|j| (0..rows).fold(start[j], |acc, r| acc + dy[r * n + j])).collect();
        for of in [1, 3, 7] {
            let mut db = start.clone();
            for worker in 0..of {
                bias_db(&mut TileMut::part(&mut db, 1, n, Cut::Cols(16), worker, of), &dy, n);
            }
            assert!(bits(&db) == bits(&want), "{rows} x {n}, {of} workers");
        }
        let [spec, size] = [|x: f64| x, f64::abs].map(|f| {
            let [dy, start] = [&dy, &start].map(|x| wide(x).into_iter().map(f).collect::<Vec<_>>());
            let sums = reference::bias_db(&dy, n);
            sums.iter().zip(start).map(|(a, b)| a + b).collect::<Vec<_>>()
        });
        check(&want, &spec, &size, rows);
    }
}
