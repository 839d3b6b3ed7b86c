//! Times `linear` shape by shape, as shares of what the machine can do: many rows of peak arithmetic, one row of read
//! bandwidth. `linear_speed [ISA] [THREADS] [DTYPE] [packed]`; the two measures of the machine are taken beside each figure.

use kernels::linear::{PANEL, Pack, pack_panel, panel_bytes};
use kernels::peak::{peak_flops, read_bandwidth};
use kernels::{Access, Cut, DType, Isa, Matrix, Mems, Ops, Order, Pages, Plan, Span, Team, Words};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// `[n, k]` of a small and a middling Llama.
const SHAPES: [(usize, usize); 5] = [(576, 576), (1536, 576), (576, 1536), (2048, 2048), (49152, 576)];

/// Rows, and for few of them enough copies of the matrix that no cache holds it.
const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 64, 512];

/// Bytes that no cache holds.
const COLD: usize = 256 << 20;

fn main() {
    let mut args = std::env::args().skip(1);
    let isa = args
        .next()
        .filter(|name| name != "best")
        .map(|name| name.parse::<Isa>().expect("an instruction set"));
    let ops = Ops::from_env_or(isa).expect("kernels of this machine");
    let threads = args.next().map_or(1, |n| n.parse().expect("a number of threads"));
    let only = args.next();
    let packed = args.next().is_some_and(|word| word == "packed");
    let team = Team::new(threads).expect("threads");
    println!("{}, {threads} threads", ops.name());
    for dtype in DType::ALL {
        if only.as_deref().is_some_and(|name| name != dtype.name()) {
            continue;
        }
        for (n, k) in SHAPES.into_iter().filter(|(_, k)| k % dtype.block() == 0) {
            // Values near one in every type: nothing overflows or becomes subnormal. An odd start, as in a file.
            let one: &[u8] = if dtype == DType::F32 { &[0, 0, 0x80, 0x3F] } else { &[0x80, 0x3F] };
            let size = COLD.max(n * dtype.row_bytes(k).expect("whole blocks")) + 64;
            let bytes: Vec<u8> = one.iter().copied().cycle().take(size).collect();
            let of = if packed { Order::Panels } else { Order::Nk };
            let bytes = if packed { panels(&bytes[16..], dtype, n, k) } else { bytes[16..].to_vec() };
            for rows in ROWS {
                time(ops, &team, dtype, of, &bytes, [n, k, rows]);
            }
        }
    }
}

/// As many matrices as there are, packed.
fn panels(bytes: &[u8], dtype: DType, n: usize, k: usize) -> Vec<u8> {
    let (row, size) =
        (dtype.row_bytes(k).expect("whole blocks"), panel_bytes(dtype, k).expect("whole blocks"));
    let mut out = vec![0; bytes.len() / (n * row) * n.div_ceil(PANEL) * size];
    for (i, all) in out.chunks_exact_mut(n.div_ceil(PANEL) * size).enumerate() {
        let w = Matrix::new(&bytes[i * n * row..], dtype, Order::Nk, n, k, row).expect("a matrix");
        all.chunks_exact_mut(size).enumerate().for_each(|(p, panel)| pack_panel(panel, &w, p));
    }
    out
}

/// Prints the speed of `[rows, k] x [n, k]`, the fastest of some passes over all copies of the matrix.
fn time(ops: &'static Ops, team: &Team, dtype: DType, order: Order, bytes: &[u8], [n, k, rows]: [usize; 3]) {
    let size = match order {
        Order::Panels => n.div_ceil(PANEL) * panel_bytes(dtype, k).expect("whole blocks"),
        _ => n * dtype.row_bytes(k).expect("whole blocks"),
    };
    let copies = if rows > 8 { 1 } else { (bytes.len().min(COLD) / size).max(1) };
    let pack = Pack::of(dtype);
    let (words, piece) = (ops.packed_words(rows, k, pack), ops.pack_piece(rows, k, pack));
    let x = Span { mem: 0, at: 0, rows, cols: k };
    let packed = Span { mem: 1, at: 0, rows: words / piece, cols: piece };
    let out = Span { mem: 2, at: 0, rows, cols: n };
    let scratch = Access::Scratch(ops.linear_scratch(k, dtype));
    let mut tasks = vec![vec![Access::Read(x), Access::Write(packed, Cut::Pieces(piece))]];
    tasks.extend(
        (0..copies).map(|_| vec![Access::Read(packed), Access::Deal(out, Cut::Cols(PANEL)), scratch]),
    );
    let plan = Plan::new(tasks, vec![rows * k, words, rows * n]).expect("a plan");
    let memory = |len: usize| Words::zeroed(len).expect("memory");
    let (mut a, mut b, mut c) = (memory(rows * k), memory(words), memory(rows * n));
    let (mut pages, mut scratch) = (Pages::new(0, 0), memory(plan.scratch_words(team.size())));
    a.fill(1.0);
    let mut best = f64::INFINITY;
    let passes = if rows > 8 { 20 } else { 8 };
    for _ in 0..passes {
        let start = Instant::now();
        let mems = Mems { mems: &mut [&mut a, &mut b, &mut c], pages: &mut pages, scratch: &mut scratch };
        let done = plan.run(team, mems, &AtomicBool::new(false), &|task, mut part| match task {
            0 => ops.pack(&mut part.write(packed), part.read(x), rows, k, pack),
            copy => {
                let bytes = &bytes[(copy - 1) * size..][..size];
                let w = Matrix::new(bytes, dtype, order, n, k, size / n).expect("a matrix");
                let (x, scratch) = (part.read(packed), part.scratch());
                for mut out in part.pieces(out) {
                    ops.linear(&mut out, x, rows, &w, None, None, scratch);
                }
            }
        });
        done.expect("a run");
        best = best.min(start.elapsed().as_secs_f64());
    }
    let flops = (2 * n * k * rows * copies) as f64 / best;
    let read = (size * copies) as f64 / best;
    let (peak, bandwidth) = (peak_flops(team, pack, 20), read_bandwidth(team, COLD, 60));
    println!(
        "{:5} [{rows:3}, {k:4}] x [{n:5}, {k:4}]  {:6.1} GFLOP/s {:3.0} %  {:5.1} GB/s {:3.0} %",
        dtype.name(),
        flops / 1e9,
        100.0 * flops / peak,
        read / 1e9,
        100.0 * read / bandwidth
    );
}
