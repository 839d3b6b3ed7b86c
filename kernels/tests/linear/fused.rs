//! What follows a linear at once has the bits of what follows it later.

use crate::{Case, DENSE, Numbers, Packed, Stored, bits, isas, pack};
use kernels::act::Act;
use kernels::linear::{BY_ROWS, PANEL, Pack, Then};
use kernels::{Cut, DType, Matrix, Ops, Order, TileMut};

/// `act(x W^T + bias + add) * times`, packed: one step after the other.
fn apart(ops: &Ops, case: &Case, act: Act, times: Option<&[f32]>, to: Pack) -> Vec<u32> {
    let (n, sums) = (case.w.n(), case.run(ops, 1));
    let mut out = vec![f32::NAN; sums.len()];
    ops.act(&mut TileMut::part(&mut out, case.rows, n, Cut::Cols(PANEL), 0, 1), &sums, times, n, act);
    bits(&pack(ops, &out, case.rows, n, to, 1))
}

/// What is to happen `then` at once, by `of` workers.
fn fused(ops: &Ops, case: &Case, then: &Then, to: Pack, of: usize) -> Vec<u32> {
    let (rows, n, k, dtype) = (case.rows, case.w.n(), case.w.k(), case.w.dtype());
    let x = pack(ops, case.x, rows, k, Pack::of(dtype), 1);
    let (words, piece) = (ops.packed_words(rows, n, to), ops.pack_piece(rows, n, to));
    let then = Then { bias: case.bias, add: case.add, pack: Some(to), ..*then };
    let mut out = vec![f32::NAN; words];
    for worker in 0..of {
        let mut scratch = vec![f32::NAN; ops.linear_scratch(k, dtype)];
        let cut = Cut::Cols(ops.pack_panel_words(rows, to));
        let mut tile = TileMut::part(&mut out, words / piece, piece, cut, worker, of);
        ops.linear_then(&mut tile, &x, rows, &case.w, &then, &mut scratch);
    }
    bits(&out)
}

/// All the ways for one matrix.
fn check(w: Matrix, rows: usize, act: Act, numbers: &mut Numbers) {
    let (n, k) = (w.n(), w.k());
    let (x, bias) = (numbers.vec(rows * k), numbers.vec(n));
    let (add, times) = (numbers.vec(rows * n), numbers.vec(rows * n));
    for ops in isas() {
        for (bias, add, times) in [(None, None, Some(&times[..])), (Some(&bias[..]), Some(&add[..]), None)] {
            let case = Case { x: &x, rows, w, bias, add };
            for to in [Pack::F32, Pack::Bf16, Pack::Bytes, Pack::Shorts] {
                let want = apart(ops, &case, act, times, to);
                let then = Then { act: Some(act), times, ..Then::default() };
                for of in [1, 2, 5] {
                    let (dtype, order) = (w.dtype(), w.order());
                    let same = fused(ops, &case, &then, to, of) == want;
                    let name = ops.name();
                    assert!(
                        same,
                        "{name} {dtype:?} {order:?} {rows} x {n} x {k}, {act:?} to {to:?}, {of} workers"
                    );
                }
            }
        }
    }
}

#[test]
fn at_once_or_later_are_the_same_bits() {
    let mut numbers = Numbers::new(21);
    let acts = [Act::Silu, Act::GeluErf, Act::GeluTanh, Act::Relu, Act::QuickGelu, Act::Tanh];
    // A width that needs several runs of k among them.
    for (i, (rows, k)) in
        [(1, 64), (1, 1120), (2, 96), (4, 64), (5, 64), (7, 1120), (14, 64), (15, 96), (33, 64)]
            .into_iter()
            .enumerate()
    {
        let (n, act) = (3 * PANEL, acts[i % acts.len()]);
        for dtype in DENSE {
            let stored = Stored::dense(dtype, Order::Nk, &numbers.vec(n * k), n, k, 0);
            check(stored.matrix(), rows, act, &mut numbers);
            check(Packed::new(&stored.matrix()).matrix(), rows, act, &mut numbers);
        }
        for dtype in [DType::Q8_0, DType::Q4_0, DType::Q5_1] {
            let row = dtype.row_bytes(k).unwrap();
            // Any bits are a block, but for scales: small ones keep the numbers finite.
            let bytes: Vec<u8> = (0..n * row).map(|i| (i * 37 % 61 + i / row % 3) as u8).collect();
            let stored = Stored::blocks(dtype, &bytes, n, k);
            check(stored.matrix(), rows, act, &mut numbers);
            check(Packed::new(&stored.matrix()).matrix(), rows, act, &mut numbers);
        }
    }
}

/// Rows that meet the panels in several groups.
#[test]
fn more_rows_than_stay_near_have_the_bits_of_few() {
    let (rows, n, k) = (700, 2 * PANEL, 32);
    let mut numbers = Numbers::new(22);
    let (x, w) = (numbers.vec(rows * k), numbers.vec(n * k));
    let stored = Stored::dense(DType::F32, Order::Nk, &w, n, k, 0);
    for ops in isas() {
        for w in [stored.matrix(), Packed::new(&stored.matrix()).matrix()] {
            let all = bits(&Case { x: &x, rows, w, bias: None, add: None }.run(ops, 2));
            for first in [0, 160, 170, 500, 690] {
                let x = &x[first * k..][..10 * k];
                let some = bits(&Case { x, rows: 10, w, bias: None, add: None }.run(ops, 1));
                assert!(
                    some == all[first * n..][..10 * n],
                    "{} {:?}: rows from {first}",
                    ops.name(),
                    w.order()
                );
            }
        }
    }
}

/// Rows of several tiles and groups, and widths that need several runs of k.
#[test]
fn products_with_another_matrix_need_not_be_written() {
    let mut numbers = Numbers::new(23);
    for (rows, k) in [(BY_ROWS, 64), (75, 2240), (700, 32)] {
        let n = 3 * PANEL;
        for dtype in DENSE {
            let [w, by] = [(); 2].map(|()| Stored::dense(dtype, Order::Nk, &numbers.vec(n * k), n, k, 0));
            both(w.matrix(), by.matrix(), rows, &mut numbers);
            let [w, by] = [w, by].map(|stored| Packed::new(&stored.matrix()));
            both(w.matrix(), by.matrix(), rows, &mut numbers);
        }
        for dtype in [DType::Q8_0, DType::Q4_0, DType::Q5_1] {
            let row = dtype.row_bytes(k).unwrap();
            let bytes = |odd: usize| -> Vec<u8> {
                (0..n * row).map(|i| (i * odd % 61 + i / row % 3) as u8).collect()
            };
            let [w, by] = [37, 41].map(|odd| Stored::blocks(dtype, &bytes(odd), n, k));
            both(w.matrix(), by.matrix(), rows, &mut numbers);
            let [w, by] = [w, by].map(|stored| Packed::new(&stored.matrix()));
            both(w.matrix(), by.matrix(), rows, &mut numbers);
        }
    }
}

/// Products times those of another matrix, which were written before or were not.
fn both(w: Matrix, by: Matrix, rows: usize, numbers: &mut Numbers) {
    let (x, bias) = (numbers.vec(rows * w.k()), numbers.vec(w.n()));
    for ops in isas() {
        let case = Case { x: &x, rows, w, bias: Some(&bias), add: None };
        let times = Case { w: by, bias: None, ..case }.run(ops, 1);
        let then = Then { act: Some(Act::Silu), ..Then::default() };
        let want = fused(ops, &case, &Then { times: Some(&times), ..then }, Pack::Bf16, 1);
        for of in [1, 2] {
            let got = fused(ops, &case, &Then { by: Some(&by), ..then }, Pack::Bf16, of);
            let (name, dtype, order) = (ops.name(), w.dtype(), w.order());
            assert!(got == want, "{name} {dtype:?} {order:?} {rows} x {} x {}, {of} workers", w.n(), w.k());
        }
    }
}
