//! Floor 0: `y = x W^T + bias + add` with W where it lies in its file. Each output is one chain of fused multiply-adds
//! over k in order (pairs of k for bf16, the odd one first), for one row or many: lanes hold different outputs, never
//! parts of one sum, so tiles and threads change no bit. Knows no models.

mod elem;
mod matrix;
mod panel;
mod row;
mod tile;

pub use matrix::{Matrix, MatrixError, Order};

use crate::dtype::DType;
use crate::ops::{Ops, per_isa};
use crate::plan::TileMut;
use crate::simd::{LANES, Simd, to_bf16};
use elem::{Bf16, Elem, F16, F32};

/// Outputs that lie side by side: two vectors, so that a tile of 14 rows fills the registers of AVX-512.
pub const PANEL: usize = 32;

/// How rows are laid out (and rounded) for a linear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pack {
    /// f32, for f32, f16 and quantised weights.
    F32,
    /// Rounded to bf16, in pairs, for bf16 weights.
    Bf16,
}

impl Pack {
    /// What weights of a type take.
    #[must_use]
    pub fn of(dtype: DType) -> Pack {
        if dtype == DType::BF16 { Pack::Bf16 } else { Pack::F32 }
    }

    /// Words of a row of k.
    fn words(self, k: usize) -> usize {
        if self == Pack::Bf16 { k.div_ceil(2) } else { k }
    }
}

impl Ops {
    /// Words of `rows` packed rows: pieces of `pack_piece` words, each of which holds as many rows as a tile takes.
    #[must_use]
    pub fn packed_words(&self, rows: usize, k: usize, pack: Pack) -> usize {
        if rows <= 1 {
            rows * pack.words(k)
        } else {
            rows.div_ceil(self.tile_rows) * self.pack_piece(rows, k, pack)
        }
    }

    /// Words of a piece.
    #[must_use]
    pub fn pack_piece(&self, rows: usize, k: usize, pack: Pack) -> usize {
        if rows <= 1 { pack.words(k).max(1) } else { (self.tile_rows * pack.words(k)).max(1) }
    }

    /// Scratch words of a linear.
    #[must_use]
    pub fn linear_scratch(&self, k: usize, dtype: DType, _rows: usize) -> usize {
        panel::words(k, dtype)
    }
}

per_isa! {
    /// out: packed rows, cut in pieces of [`Ops::pack_piece`]: `[words of k][tile rows]` each, or one plain row. x `[rows, k]`.
    pub fn pack(out: &mut TileMut, x: &[f32], rows: usize, k: usize, pack: Pack) = pack_with as pack_isa;
}

#[inline(always)]
fn pack_with<S: Simd>(_: S, out: &mut TileMut, x: &[f32], rows: usize, k: usize, pack: Pack) {
    let stride = if rows <= 1 { 1 } else { tile::rows::<S>() };
    for piece in out.rows() {
        let (first, out) = (piece * stride, out.row(piece));
        for i in 0..stride.min(rows - first) {
            let x = &x[(first + i) * k..][..k];
            match pack {
                Pack::F32 => {
                    for (out, x) in out[i..].iter_mut().step_by(stride).zip(x) {
                        *out = *x;
                    }
                }
                Pack::Bf16 => {
                    let (pairs, rest) = x.as_chunks::<2>();
                    for (out, x) in out[i..].iter_mut().step_by(stride).zip(pairs) {
                        *out = f32::from_bits(to_bf16(x[0]) | (to_bf16(x[1]) << 16));
                    }
                    if let [x] = rest {
                        out[i + pairs.len() * stride] = f32::from_bits(to_bf16(*x));
                    }
                }
            }
        }
    }
}

per_isa! {
    /// out `[rows, n]`, cut by columns in groups of [`PANEL`]: `x W^T + bias + add`. x packed for w's type; bias `[n]`;
    /// add `[rows, n]`; scratch [`Ops::linear_scratch`] words.
    ///
    /// Panics where the sizes do not fit.
    pub fn linear(
        out: &mut TileMut,
        x: &[f32],
        rows: usize,
        w: &Matrix,
        bias: Option<&[f32]>,
        add: Option<&[f32]>,
        scratch: &mut [f32],
    ) = linear_with as linear_isa;
}

#[inline(always)]
fn linear_with<S: Simd>(
    s: S,
    out: &mut TileMut,
    x: &[f32],
    rows: usize,
    w: &Matrix,
    bias: Option<&[f32]>,
    add: Option<&[f32]>,
    scratch: &mut [f32],
) {
    let (cols, pack, k) = (out.cols(), Pack::of(w.dtype()), w.k());
    if rows == 0 || cols.is_empty() {
        return;
    }
    assert!(cols.end <= w.n(), "{} outputs of {}", cols.end, w.n());
    let (after, words) = (After { n: w.n(), bias, add }, pack.words(k));
    let (panel, spare) = scratch.split_at_mut(words * PANEL);
    let panel = panel.as_chunks_mut::<PANEL>().0;
    // Few rows take the weights straight from the file; for more it pays to transpose them once, into scratch.
    let few = rows <= row::most::<S>() && w.order() == Order::Nk && w.dtype().block() == 1;
    for first in cols.clone().step_by(PANEL) {
        if out.stop() {
            return;
        }
        let lanes = PANEL.min(cols.end - first);
        if few && lanes == PANEL {
            for half in [0, LANES] {
                match w.dtype() {
                    DType::F32 => few_rows::<S, F32>(s, out, w, x, rows, first + half, &after),
                    DType::F16 => few_rows::<S, F16>(s, out, w, x, rows, first + half, &after),
                    _ => few_rows::<S, Bf16>(s, out, w, x, rows, first + half, &after),
                }
            }
            continue;
        }
        panel::fill(s, panel, spare, w, first);
        let (stride, mut r) = (if rows == 1 { 1 } else { tile::rows::<S>() }, 0);
        while r < rows {
            let m = stride.min(rows - r);
            let x = &x[r * words..][..words * stride];
            match pack {
                Pack::F32 => some_rows::<S, F32>(s, out, panel, x, [r, m, stride], first, lanes, &after),
                Pack::Bf16 => some_rows::<S, Bf16>(s, out, panel, x, [r, m, stride], first, lanes, &after),
            }
            r += m;
        }
    }
}

/// What happens to a finished sum.
struct After<'a> {
    n: usize,
    bias: Option<&'a [f32]>,
    add: Option<&'a [f32]>,
}

impl After<'_> {
    /// Writes the sums of outputs `first..` of row `r`.
    #[inline(always)]
    fn store(&self, out: &mut TileMut, r: usize, first: usize, sums: &[f32]) {
        let at = first - out.cols().start;
        let out = &mut out.row(r)[at..];
        let out = &mut out[..sums.len()];
        out.copy_from_slice(sums);
        if let Some(bias) = self.bias {
            for (out, bias) in out.iter_mut().zip(&bias[first..first + sums.len()]) {
                *out += bias;
            }
        }
        if let Some(add) = self.add {
            for (out, add) in out.iter_mut().zip(&add[r * self.n + first..][..sums.len()]) {
                *out += add;
            }
        }
    }
}

/// Sixteen outputs of all `rows`, straight from the file, in the next larger number of rows that is compiled.
#[inline(always)]
fn few_rows<S: Simd, E: Elem>(
    s: S,
    out: &mut TileMut,
    w: &Matrix,
    x: &[f32],
    rows: usize,
    first: usize,
    after: &After,
) {
    macro_rules! sums {
        ($($m:literal)*) => {
            match rows {
                $(..=$m => {
                    for (r, sums) in row::sixteen::<S, E, $m>(s, w, first, x).into_iter().enumerate().take(rows) {
                        let mut lanes = [0.0; LANES];
                        s.store(sums, &mut lanes);
                        after.store(out, r, first, &lanes);
                    }
                })*
                _ => unreachable!("{rows} rows are not few"),
            }
        };
    }
    if const { S::REGISTERS >= 32 } {
        sums!(1 2 4 8);
    } else {
        sums!(1);
    }
}

/// A tile of `m` rows from row `r`, packed with `stride`. The next larger width that is compiled takes them: the rows
/// beyond are computed from whatever the packed piece holds there, and dropped.
#[inline(always)]
fn some_rows<S: Simd, E: Elem>(
    s: S,
    out: &mut TileMut,
    panel: &[[f32; PANEL]],
    x: &[f32],
    [r, m, stride]: [usize; 3],
    first: usize,
    lanes: usize,
    after: &After,
) {
    macro_rules! tiles {
        ($($m:literal)*) => {
            match m {
                $(..=$m => {
                    let sums = tile::tile::<S, E, $m>(s, panel, x, stride);
                    for i in 0..m {
                        after.store(out, r + i, first, &sums[i][..lanes]);
                    }
                })*
                _ => unreachable!("a tile of {m} rows"),
            }
        };
    }
    // A constant block, so that the widths of the other instruction sets are not even compiled.
    if const { S::REGISTERS >= 32 } {
        tiles!(1 2 4 8 14);
    } else if const { S::REGISTERS >= 16 } {
        tiles!(1 2 4 6);
    } else {
        tiles!(1);
    }
}
