//! Times the gradients of `linear` and of causal attention as shares of the machine's peak: `back_speed [ISA] [THREADS] [ROWS] [dw]`, dw: that
//! of weights alone; the forward product of the same size in f32 stands beside them.

use kernels::attention::{AttendShape, BackArgs, Bias, Cache, Kept, back_scratch_words, dkv_cut, dq_cut};
use kernels::linear::{PANEL, Pack, dw_cut};
use kernels::peak::peak_flops;
use kernels::{Access, Cut, DType, Isa, Matrix, Mems, Ops, Order, Pages, Plan, Span, Task, Team, Words};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// `[n, k]` of a small and a middling Llama, and of adapters of rank 8.
const SHAPES: [(usize, usize); 8] =
    [(512, 192), (192, 512), (576, 576), (1536, 576), (576, 1536), (2048, 2048), (8, 2048), (2048, 8)];

/// Heads, heads of keys, and their width.
const HEADS: [[usize; 3]; 4] = [[9, 3, 64], [12, 12, 64], [32, 8, 128], [4, 1, 256]];

/// What is timed.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Forward,
    Dx(DType, bool),
    Dw,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let isa = args.next().filter(|name| name != "best");
    let isa = isa.map(|name| name.parse::<Isa>().expect("an instruction set"));
    let ops = Ops::from_env_or(isa).expect("kernels of this machine");
    let threads = args.next().map_or(1, |n| n.parse().expect("a number of threads"));
    let rows = args.next().map_or(512, |n| n.parse().expect("a number of rows"));
    let only_dw = args.next().is_some_and(|only| only == "dw");
    let team = Team::new(threads).expect("threads");
    println!("{}, {threads} threads, {rows} rows", ops.name());
    for [heads, kv_heads, dim] in HEADS.into_iter().filter(|_| !only_dw) {
        let shape = AttendShape { heads, kv_heads, dim, cache: Cache::F32 };
        for keys in [false, true] {
            time_attention(ops, &team, shape, rows, keys);
        }
    }
    for (n, k) in SHAPES {
        let whole = DType::ALL.into_iter().filter(|dtype| {
            matches!(dtype, DType::F32 | DType::BF16 | DType::Q8_0 | DType::Q4K) && k % dtype.block() == 0
        });
        let dx = whole.flat_map(|dtype| [Kind::Dx(dtype, false), Kind::Dx(dtype, true)]);
        for kind in [Kind::Forward].into_iter().chain(dx).filter(|_| !only_dw).chain([Kind::Dw]) {
            time(ops, &team, kind, [rows, n, k]);
        }
    }
}

/// Prints the speed of one, the fastest of some passes.
fn time(ops: &'static Ops, team: &Team, kind: Kind, [rows, n, k]: [usize; 3]) {
    // Of the packed side, rows of so many.
    let long = if matches!(kind, Kind::Forward) { k } else { n };
    let (words, piece) = (ops.packed_words(rows, long, Pack::F32), ops.pack_piece(rows, long, Pack::F32));
    let span = |mem, rows, cols| Span { mem, at: 0, rows, cols };
    let (packed, x, dw) = (span(0, words / piece, piece), span(1, rows, k), span(2, n, k));
    let (dy, dx) = (span(3, rows, n), span(1, rows, k));
    let task: Task = match kind {
        Kind::Forward => {
            let scratch = ops.linear_scratch(k, DType::F32);
            vec![Access::Read(packed), Access::Write(dy, Cut::Cols(PANEL)), Access::Scratch(scratch)]
        }
        Kind::Dx(..) => {
            let scratch = ops.linear_dx_scratch(n);
            vec![Access::Read(packed), Access::Write(dx, Cut::Cols(PANEL)), Access::Scratch(scratch)]
        }
        Kind::Dw => {
            let scratch = Access::Scratch(ops.linear_dw_scratch());
            vec![Access::Read(dy), Access::Read(x), Access::Write(dw, dw_cut(n, k)), scratch]
        }
    };
    let lens = vec![words, rows * k, n * k, rows * n];
    let mut mems: Vec<Words> = lens.iter().map(|len| Words::zeroed(*len).expect("memory")).collect();
    let plan = Plan::new(vec![task], lens).expect("a plan");
    let (mut pages, mut scratch) =
        (Pages::new(0, 0), Words::zeroed(plan.scratch_words(team.size())).expect("memory"));
    let (dtype, panels) =
        if let Kind::Dx(dtype, panels) = kind { (dtype, panels) } else { (DType::F32, false) };
    let order = if panels { Order::Panels } else { Order::Nk };
    let row = dtype.row_bytes(k).expect("whole blocks");
    let bytes = vec![0u8; (n.next_multiple_of(PANEL) + 1) * (row + 64)];
    let w = Matrix::new(&bytes, dtype, order, n, k, row).expect("a matrix");
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let start = Instant::now();
        let mut lent: Vec<&mut [f32]> = mems.iter_mut().map(|mem| &mut **mem).collect();
        let mems = Mems { mems: &mut lent, pages: &mut pages, scratch: &mut scratch };
        let done = plan.run(team, mems, &AtomicBool::new(false), &|_, mut part| {
            let scratch = part.scratch();
            match kind {
                Kind::Forward => {
                    ops.linear(&mut part.write(dy), part.read(packed), rows, &w, None, None, scratch);
                }
                Kind::Dx(..) => {
                    ops.linear_dx(&mut part.write(dx), part.read(packed), rows, &w, None, scratch);
                }
                Kind::Dw => {
                    ops.linear_dw(&mut part.write(dw), part.read(dy), part.read(x), rows, scratch);
                }
            }
        });
        done.expect("a run");
        best = best.min(start.elapsed().as_secs_f64());
    }
    let (flops, peak) = ((2 * n * k * rows) as f64 / best, peak_flops(team, Pack::F32, 20));
    println!("[{n:5}, {k:4}] {kind:?}  {:6.1} GFLOP/s {:3.0} %", flops / 1e9, 100.0 * flops / peak);
}

/// Prints the speed of dq, or of dk and dv, of one sequence of so many rows.
fn time_attention(ops: &'static Ops, team: &Team, shape: AttendShape, rows: usize, keys: bool) {
    let (width, kv_width) = (shape.heads * shape.dim, shape.kv_heads * shape.dim);
    let span = |mem, cols| Span { mem, at: 0, rows, cols };
    let (q, k, stat, delta) =
        (span(0, width), span(1, kv_width), span(2, 2 * shape.heads), span(3, shape.heads));
    let (a, b) = (span(4, if keys { kv_width } else { width }), span(5, kv_width));
    let mut task: Task = [q, k, stat, delta].map(Access::Read).into();
    if keys {
        let cut = dkv_cut(&shape, rows);
        task.extend([Access::Write(a, cut), Access::Write(b, cut)]);
    } else {
        task.push(Access::Write(a, dq_cut(&shape, rows)));
    }
    task.push(Access::Scratch(back_scratch_words(&shape)));
    // Only four memories: all in one.
    let mut at = 0;
    let spans = [q, k, stat, delta, a, b].map(|span| {
        at += span.rows * span.cols;
        Span { mem: 0, at: at - span.rows * span.cols, ..span }
    });
    let moved = |span: Span| spans[span.mem];
    let task = task.into_iter().map(|access| match access {
        Access::Read(span) => Access::Read(moved(span)),
        Access::Write(span, cut) => Access::Write(moved(span), cut),
        other => other,
    });
    let plan = Plan::new(vec![task.collect()], vec![at]).expect("a plan");
    let mut mem: Vec<f32> = (0..at).map(|i| (i * 37 % 101) as f32 / 101.0 - 0.5).collect();
    for stat in mem[spans[2].at..spans[3].at].as_chunks_mut().0 {
        *stat = [2.0, rows as f32];
    }
    let mut scratch = Words::zeroed(plan.scratch_words(team.size())).expect("memory");
    let starts = [0, rows as u32];
    let args = BackArgs {
        shape,
        scale: 0.1,
        cap: None,
        bias: Bias::None,
        window: None,
        causal: true,
        starts: &starts,
        key_starts: &starts,
    };
    let (mut best, mut pages) = (f64::INFINITY, Pages::new(0, 0));
    for _ in 0..10 {
        let start = Instant::now();
        let mems = Mems { mems: &mut [&mut mem], pages: &mut pages, scratch: &mut scratch };
        let done = plan.run(team, mems, &AtomicBool::new(false), &|_, mut part| {
            let [q, k, stat, delta] = [0, 1, 2, 3].map(|i| part.read(spans[i]));
            let kept = Kept { q, k, v: k, dout: q, stat, delta };
            let (mut a, scratch) = (part.write(spans[4]), part.scratch());
            if keys {
                (ops.back.attend_dkv)(&mut a, &mut part.write(spans[5]), &kept, &args, scratch);
            } else {
                (ops.back.attend_dq)(&mut a, &kept, &args, scratch);
            }
        });
        done.expect("a run");
        best = best.min(start.elapsed().as_secs_f64());
    }
    let pairs = rows * (rows + 1) / 2 * shape.heads;
    let flops = (pairs * shape.dim * if keys { 8 } else { 6 }) as f64 / best;
    let (name, peak) = (if keys { "dk, dv" } else { "dq" }, peak_flops(team, Pack::F32, 20));
    println!(
        "{name} {} / {} x {}  {:6.1} GFLOP/s {:3.0} %",
        shape.heads,
        shape.kv_heads,
        shape.dim,
        flops / 1e9,
        100.0 * flops / peak
    );
}
