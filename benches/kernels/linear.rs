//! Times `linear` on one thread, beside what the machine can do at most (measured in the same run) and beside the
//! crates `gemm` and `matrixmultiply`: `cargo bench` in this folder. Few rows come as bytes of weights per second,
//! since reading them is the limit, many as floating-point operations per second (divan calls them items). Knows the
//! floor of the kernels and nothing above it.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use half::{bf16, f16};
use kernels::linear::{PANEL, Pack, pack_panel, panel_bytes};
use kernels::peak::{peak_flops, read_bandwidth};
use kernels::{Cut, DType, Matrix, Ops, Order, Team, TileMut, Words};
use std::fmt;
use std::time::Duration;

/// `[n, k]` of SmolLM2, of a 1.1B Llama and of Qwen2-0.5B, going up and coming down.
const SHAPES: [(usize, usize); 4] = [(1536, 576), (576, 1536), (5632, 2048), (4864, 896)];

/// Rows of x: one token, some sessions, a prompt.
const ROWS: [usize; 4] = [1, 4, 8, 512];

/// For few rows there are so many copies of the matrix that no cache holds them.
const COLD: usize = 256 << 20;

#[derive(Clone, Copy)]
struct Case {
    rows: usize,
    n: usize,
    k: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "[{:3}, {:4}] x [{:4}, {:4}]", self.rows, self.k, self.n, self.k)
    }
}

fn cases() -> impl Iterator<Item = Case> {
    ROWS.into_iter().flat_map(|rows| SHAPES.map(|(n, k)| Case { rows, n, k }))
}

impl Case {
    fn weights(self) -> usize {
        self.n * self.k
    }

    /// Copies of the matrix that are gone through.
    fn copies(self, bytes: usize) -> usize {
        if self.rows > 8 { 1 } else { (COLD / (self.weights() * bytes)).max(1) }
    }

    /// Runs `multiply(copy)` on one copy after the other.
    fn time(self, bencher: Bencher, bytes: usize, mut multiply: impl FnMut(usize)) {
        let (copies, mut copy) = (self.copies(bytes), 0);
        let mut next = || {
            copy = (copy + 1) % copies;
            multiply(copy);
        };
        if self.rows > 8 {
            bencher.counter(ItemsCount::new(2 * self.rows * self.weights())).bench_local(&mut next);
        } else {
            bencher.counter(BytesCount::new(self.weights() * bytes)).bench_local(&mut next);
        }
    }
}

/// Numbers around one, so that nothing overflows or becomes subnormal.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| 0.5 + (i % 61) as f32 / 64.0).collect()
}

/// The product with weights in `order`, of which `bytes` has every copy.
fn inlaid(bencher: Bencher, case: Case, dtype: DType, order: Order, bytes: &[u8]) {
    let Case { rows, n, k } = case;
    let (ops, pack, size) = (Ops::best(), Pack::of(dtype), bytes.len() / case.copies(dtype.block_bytes()));
    let (words, piece) = (ops.packed_words(rows, k, pack), ops.pack_piece(rows, k, pack));
    let memory = |len: usize| Words::zeroed(len).expect("memory");
    let (x, mut packed, mut out) = (numbers(rows * k), memory(words), memory(rows * n));
    let mut scratch = memory(ops.linear_scratch(k, dtype));
    case.time(bencher, dtype.block_bytes(), |copy| {
        // Packing is part of the product: the others do it within their calls.
        let mut tile = TileMut::part(&mut packed, words / piece, piece, Cut::Pieces(piece), 0, 1);
        ops.pack(&mut tile, black_box(&x), rows, k, pack);
        let w = Matrix::new(&bytes[copy * size..], dtype, order, n, k, size / n).expect("a matrix");
        let mut tile = TileMut::part(&mut out, rows, n, Cut::Cols(PANEL), 0, 1);
        ops.linear(&mut tile, &packed, rows, &w, None, None, &mut scratch);
        black_box(&mut out);
    });
}

/// The matrix in all its copies.
fn copies<T: Copy>(case: Case, from: impl Fn(f32) -> T) -> Vec<T> {
    let one: Vec<T> = numbers(case.weights()).into_iter().map(from).collect();
    one.repeat(case.copies(size_of::<T>()))
}

/// Mapped weights of a dense type, in all their copies.
fn mapped(case: Case, dtype: DType) -> Vec<u8> {
    let one: Vec<u8> = match dtype {
        DType::F32 => numbers(case.weights()).into_iter().flat_map(f32::to_le_bytes).collect(),
        DType::F16 => {
            numbers(case.weights()).into_iter().flat_map(|x| f16::from_f32(x).to_le_bytes()).collect()
        }
        _ => numbers(case.weights()).into_iter().flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
    };
    one.repeat(case.copies(dtype.block_bytes()))
}

/// The same in panels.
fn packed(case: Case, dtype: DType) -> Vec<u8> {
    let Case { n, k, .. } = case;
    let rows = mapped(Case { rows: 512, n, k }, dtype);
    let w = Matrix::new(&rows, dtype, Order::Nk, n, k, k * dtype.block_bytes()).expect("a matrix");
    let size = panel_bytes(dtype, k).expect("whole blocks");
    let mut one = vec![0; n.div_ceil(PANEL) * size];
    for (p, panel) in one.chunks_exact_mut(size).enumerate() {
        pack_panel(panel, &w, p);
    }
    one.repeat(case.copies(dtype.block_bytes()))
}

#[divan::bench(args = cases())]
fn f32_inlaid(bencher: Bencher, case: Case) {
    inlaid(bencher, case, DType::F32, Order::Nk, &mapped(case, DType::F32));
}

#[divan::bench(args = cases())]
fn f32_inlaid_packed(bencher: Bencher, case: Case) {
    inlaid(bencher, case, DType::F32, Order::Panels, &packed(case, DType::F32));
}

#[divan::bench(args = cases())]
fn f32_gemm(bencher: Bencher, case: Case) {
    multiply_by_gemm(bencher, case, &copies(case, |x| x), &numbers(case.rows * case.k), 0.0, 1.0);
}

#[divan::bench(args = cases())]
fn f32_matrixmultiply(bencher: Bencher, case: Case) {
    let Case { rows, n, k } = case;
    let (w, x, mut out) = (copies(case, |x| x), numbers(rows * k), vec![0f32; rows * n]);
    case.time(bencher, 4, |copy| {
        let (x, w, out) = (black_box(&x), &w[copy * n * k..][..n * k], &mut out[..]);
        // SAFETY: x is [rows, k], w [n, k] read as its transpose, out [rows, n], each as long as its strides say.
        unsafe {
            let (x, w, out) = (x.as_ptr(), w.as_ptr(), out.as_mut_ptr());
            matrixmultiply::sgemm(
                rows, k, n, 1.0, x, k as isize, 1, w, 1, k as isize, 0.0, out, n as isize, 1,
            );
        }
        black_box(&mut *out);
    });
}

#[divan::bench(args = cases())]
fn f16_inlaid(bencher: Bencher, case: Case) {
    inlaid(bencher, case, DType::F16, Order::Nk, &mapped(case, DType::F16));
}

#[divan::bench(args = cases())]
fn f16_inlaid_packed(bencher: Bencher, case: Case) {
    inlaid(bencher, case, DType::F16, Order::Panels, &packed(case, DType::F16));
}

/// With x and sums in f16 too, as that crate wants it.
#[divan::bench(args = cases())]
fn f16_gemm(bencher: Bencher, case: Case) {
    let x: Vec<f16> = numbers(case.rows * case.k).into_iter().map(f16::from_f32).collect();
    let w = copies(case, f16::from_f32);
    multiply_by_gemm(bencher, case, &w, &x, f16::from_f32(0.0), f16::from_f32(1.0));
}

#[divan::bench(args = cases())]
fn bf16_inlaid(bencher: Bencher, case: Case) {
    inlaid(bencher, case, DType::BF16, Order::Nk, &mapped(case, DType::BF16));
}

#[divan::bench(args = cases())]
fn bf16_inlaid_packed(bencher: Bencher, case: Case) {
    inlaid(bencher, case, DType::BF16, Order::Panels, &packed(case, DType::BF16));
}

fn multiply_by_gemm<T: Copy + 'static>(bencher: Bencher, case: Case, w: &[T], x: &[T], zero: T, one: T) {
    let Case { rows, n, k } = case;
    let mut out = vec![zero; rows * n];
    case.time(bencher, size_of::<T>(), |copy| {
        let (x, w) = (black_box(x), &w[copy * n * k..][..n * k]);
        let (row, col) = (k as isize, n as isize);
        // SAFETY: as above: x is [rows, k], w [n, k] read as its transpose, out [rows, n].
        unsafe {
            let (x, w, out) = (x.as_ptr(), w.as_ptr(), out.as_mut_ptr());
            let (no, alone) = (false, gemm::Parallelism::None);
            gemm::gemm(rows, n, k, out, 1, col, no, x, 1, row, w, row, 1, zero, one, no, no, no, alone);
        }
        black_box(&mut out);
    });
}

fn main() {
    let team = Team::new(1).expect("a thread");
    let flops = |pack| peak_flops(&team, pack, 300) / 1e9;
    println!(
        "{} kernels, 1 thread; the machine at most: {:.1} GFLOP/s f32, {:.1} bf16, reads {:.1} GB/s",
        Ops::best().name(),
        flops(Pack::F32),
        flops(Pack::Bf16),
        read_bandwidth(&team, COLD, 300) / 1e9,
    );
    divan::Divan::default()
        .bytes_format(divan::counter::BytesFormat::Decimal)
        .max_time(Duration::from_millis(500))
        .sample_size(1)
        .config_with_args()
        .main();
}
