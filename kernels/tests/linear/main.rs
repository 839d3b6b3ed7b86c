//! `linear` and `pack` on every instruction set this machine has: against f64 within derived bounds, and bit for bit
//! against each other, a row alone and in company, whole and cut, in every type and layout of weights.

mod back;
mod bits;
mod fused;
mod numbers;
mod quantise;
mod quantised;

use kernels::linear::{PANEL, Pack, pack_panel, panel_bytes};
use kernels::{Cut, DType, Matrix, Ops, Order, TileMut};

/// Half the distance from 1 to the next f32: the relative error of one rounding.
pub(crate) const U: f64 = f32::EPSILON as f64 / 2.0;

/// Types whose elements stand alone.
pub(crate) const DENSE: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// The sets this machine has; says which it lacks.
pub(crate) fn isas() -> Vec<&'static Ops> {
    let all = Ops::all();
    let names =
        ["scalar", "avx2", "avx2 with vnni", "avx512", "avx512 with vnni", "avx512 with vnni and bf16"];
    for name in names {
        if !all.iter().any(|ops| ops.name() == name) {
            println!("skipped: this machine has no {name}");
        }
    }
    all
}

/// A small generator: the cases are the same on every run.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub(crate) fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// Within -1 and 1.
    pub(crate) fn one(&mut self) -> f32 {
        self.bits() as f32 / (1u32 << 30) as f32 - 1.0
    }

    pub(crate) fn vec(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.one()).collect()
    }
}

/// A matrix in memory as a file would have it: at an odd address, with a gap after each of its rows.
pub(crate) struct Stored {
    bytes: Vec<u8>,
    dtype: DType,
    order: Order,
    n: usize,
    k: usize,
    stride: usize,
}

/// Bytes before the matrix: enough for every address to be odd.
const LEAD: usize = 1;

impl Stored {
    /// `w [n, k]`, rounded to `dtype` and laid out in `order`.
    pub(crate) fn dense(dtype: DType, order: Order, w: &[f32], n: usize, k: usize, gap: usize) -> Stored {
        let (outer, inner) = if order == Order::Nk { (n, k) } else { (k, n) };
        let stride = inner * dtype.block_bytes() + gap;
        let mut bytes = vec![0xFF; LEAD];
        for i in 0..outer {
            for j in 0..inner {
                let x = if order == Order::Nk { w[i * k + j] } else { w[j * k + i] };
                bytes.extend_from_slice(&element(dtype, x));
            }
            bytes.extend(std::iter::repeat_n(0xFF, if i + 1 < outer { gap } else { 0 }));
        }
        Stored { bytes, dtype, order, n, k, stride }
    }

    /// Blocks as they are, one row after the other.
    pub(crate) fn blocks(dtype: DType, blocks: &[u8], n: usize, k: usize) -> Stored {
        let mut bytes = vec![0xFF; LEAD];
        bytes.extend_from_slice(blocks);
        Stored { bytes, dtype, order: Order::Nk, n, k, stride: dtype.row_bytes(k).unwrap() }
    }

    pub(crate) fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.bytes[LEAD..], self.dtype, self.order, self.n, self.k, self.stride).unwrap()
    }
}

fn element(dtype: DType, x: f32) -> Vec<u8> {
    match dtype {
        DType::F32 => x.to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
        DType::BF16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
        _ => panic!("a type in blocks"),
    }
}

/// A matrix in packed panels, at an odd address.
pub(crate) struct Packed {
    bytes: Vec<u8>,
    dtype: DType,
    n: usize,
    k: usize,
}

impl Packed {
    pub(crate) fn new(w: &Matrix) -> Packed {
        let size = panel_bytes(w.dtype(), w.k()).unwrap();
        let mut bytes = vec![0xFF; LEAD + w.n().div_ceil(PANEL) * size];
        for (p, panel) in bytes[LEAD..].chunks_exact_mut(size.max(1)).enumerate() {
            pack_panel(panel, w, p);
        }
        Packed { bytes, dtype: w.dtype(), n: w.n(), k: w.k() }
    }

    pub(crate) fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.bytes[LEAD..], self.dtype, Order::Panels, self.n, self.k, 0).unwrap()
    }
}

/// `x [rows, k]` packed by `of` workers.
pub(crate) fn pack(ops: &Ops, x: &[f32], rows: usize, k: usize, pack: Pack, of: usize) -> Vec<f32> {
    let (words, piece) = (ops.packed_words(rows, k, pack), ops.pack_piece(rows, k, pack));
    let mut out = vec![f32::NAN; words];
    for worker in 0..of {
        let pieces = words.checked_div(piece).unwrap_or(0);
        let mut tile = TileMut::part(&mut out, pieces, piece, Cut::Pieces(piece.max(1)), worker, of);
        ops.pack(&mut tile, x, rows, k, pack);
    }
    out
}

/// Operands of one product.
pub(crate) struct Case<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) w: Matrix<'a>,
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) add: Option<&'a [f32]>,
}

impl Case<'_> {
    /// `[rows, n]`, by `of` workers, over scratch and output full of NaN.
    pub(crate) fn run(&self, ops: &Ops, of: usize) -> Vec<f32> {
        let (n, k, dtype) = (self.w.n(), self.w.k(), self.w.dtype());
        let packed = pack(ops, self.x, self.rows, k, Pack::of(dtype), of);
        let mut out = vec![f32::NAN; self.rows * n];
        for worker in 0..of {
            let mut scratch = vec![f32::NAN; ops.linear_scratch(k, dtype)];
            let mut tile = TileMut::part(&mut out, self.rows, n, Cut::Cols(PANEL), worker, of);
            ops.linear(&mut tile, &packed, self.rows, &self.w, self.bias, self.add, &mut scratch);
        }
        out
    }
}

/// Bits, with every NaN alike: the sign and payload of a NaN are no part of the contract.
pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { 0x7FC0_0000 } else { x.to_bits() }).collect()
}
