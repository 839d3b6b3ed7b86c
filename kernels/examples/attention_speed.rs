//! How fast attention is on one thread, by instruction set, cache type and shape: GFLOP/s of the products that a causal
//! mask leaves, best of several runs.

use kernels::attention::{AttendArgs, AttendShape, PAGE, Row, append, block, head_words, scratch_words};
use kernels::{Cut, DType, Isa, Ops, Pages, StateMut, StateRef, TileMut};
use std::time::Instant;

fn main() {
    for (heads, kv_heads, dim) in [(9, 3, 64), (12, 12, 64), (14, 2, 64), (32, 8, 128)] {
        for cache in [DType::F32, DType::F16, DType::BF16] {
            for (past, rows) in [(0, 512), (0, 2048), (511, 1), (4095, 1)] {
                let shape = AttendShape { heads, kv_heads, dim, cache };
                print!(
                    "{heads:2}/{kv_heads:2} heads of {dim:3}, {:4}, {rows:4} rows after {past:4}:",
                    cache.name()
                );
                for ops in Ops::all().into_iter().filter(|ops| ops.isa() != Isa::Scalar) {
                    print!("  {} {:6.1}", ops.name(), speed(ops, shape, past, rows));
                }
                println!();
            }
        }
    }
}

fn speed(ops: &Ops, shape: AttendShape, past: usize, rows: usize) -> f64 {
    let len = past + rows;
    let words = head_words(shape.dim, shape.cache);
    let mut pages = Pages::new(1, shape.kv_heads * words);
    let table: Vec<u32> = (0..len.div_ceil(PAGE)).filter_map(|_| pages.alloc()).collect();
    let all: Vec<Row> = (0..len).map(|pos| Row { seq: 0, pos: pos as u32 }).collect();
    let numbers = |n: usize| (0..n).map(|i| (i * 7919 % 1009) as f32 / 1009.0 - 0.5).collect::<Vec<f32>>();
    let args = |rows| AttendArgs {
        shape,
        scale: 0.125,
        window: None,
        causal: true,
        rows,
        pages: &table,
        seqs: &[0],
    };
    let kv = numbers(len * shape.kv_heads * shape.dim);
    append(&mut StateMut::whole(&mut pages, 0, words), &kv, &kv, &args(&all));

    let cols = shape.heads * shape.dim;
    let (q, mut out) = (numbers(rows * cols), vec![0.0; rows * cols]);
    let mut scratch = vec![0.0; scratch_words(&shape)];
    let (cell_rows, cell_cols) = block(&shape, rows);
    let cut = Cut::Blocks { rows: cell_rows, cols: cell_cols };
    let flops: usize = all[past..].iter().map(|r| (r.pos as usize + 1) * 4 * cols).sum();
    let (mut best, times) = (f64::MAX, (40_000_000 / flops).clamp(1, 100));
    for _ in 0..10 {
        let start = Instant::now();
        for _ in 0..times {
            let mut tile = TileMut::part(&mut out, rows, cols, cut, 0, 1);
            (ops.attend)(&mut tile, &q, &StateRef::whole(&pages, 0), &args(&all[past..]), &mut scratch);
        }
        best = best.min(start.elapsed().as_secs_f64() / times as f64);
    }
    flops as f64 / best / 1e9
}
