//! Floor 0: products with the small matrices that adapters add to a model's own, of some rows of a batch. Weights are dense
//! f32, a row per output, as adapters have them. Knows no adapters.
//!
//! Each output is one chain of fused multiply-adds over k in order, from zero, as everywhere; what was in the output is
//! added to the finished chain. So the bits do not depend on which rows share a call.

use crate::dtype::DType;
use crate::linear::{Matrix, Order};
use crate::ops::{Ops, per_isa};
use crate::plan::TileMut;
use crate::simd::{LANES, Simd};
use crate::tile::Cut;
use std::ops::Range;

/// Rows that meet a transposed block of weights while it is in registers and the first-level cache.
const ROWS: usize = 8;

/// Rows of a cell of [`cut`]: few enough that workers share a prompt evenly.
const CELL: usize = 32;

/// How workers share the output of [`Ops::narrow`], whose rows are short: in cells.
pub const CUT: Cut = Cut::Blocks { rows: CELL, cols: LANES };

per_isa! {
    /// sums `[rows, 16]`, at most eight rows: the products of each row of `x` with outputs `first..first + 16` of `w`;
    /// zeros for outputs that do not exist. `w` is dense f32, `Order::Nk`.
    pub fn chains(sums: &mut [[f32; LANES]], w: &Matrix, first: usize, x: &[&[f32]]) = chains_with as chains_isa;
}

#[inline(always)]
fn chains_with<S: Simd>(s: S, sums: &mut [[f32; LANES]], w: &Matrix, first: usize, x: &[&[f32]]) {
    assert!(w.dtype() == DType::F32 && w.order() == Order::Nk && x.len() <= ROWS, "rows of dense f32");
    assert!(x.iter().all(|x| x.len() >= w.k()), "a row of x is too short");
    let mut rows: [&[[u8; 4]]; LANES] = [&[]; LANES];
    for (i, row) in rows.iter_mut().enumerate().take(w.n().saturating_sub(first)) {
        *row = w.row(first + i).as_chunks().0;
    }
    if let ([sums], [x]) = (&mut *sums, x) {
        let [sum] = block::<S, 1>(s, &rows, [x], w.k());
        s.store(sum, sums);
        return;
    }
    // Rows that are missing are computed from the first one, and dropped.
    let mut all = [x.first().copied().unwrap_or_default(); ROWS];
    all[..x.len()].copy_from_slice(x);
    if x.is_empty() {
        return;
    }
    let found = block::<S, ROWS>(s, &rows, all, w.k());
    for (sums, found) in sums.iter_mut().zip(found) {
        s.store(found, sums);
    }
}

/// `M` rows times sixteen outputs.
#[inline(always)]
fn block<S: Simd, const M: usize>(s: S, rows: &[&[[u8; 4]]; LANES], x: [&[f32]; M], k: usize) -> [S::V; M] {
    let mut acc = [s.zero(); M];
    for from in (0..k).step_by(LANES) {
        let len = LANES.min(k - from);
        let mut t = [s.zero(); LANES];
        for (t, row) in t.iter_mut().zip(rows) {
            let mut some = [0.0; LANES];
            if let Some(row) = row.get(from..from + len) {
                for (to, bytes) in some.iter_mut().zip(row) {
                    *to = f32::from_le_bytes(*bytes);
                }
            }
            *t = s.load(&some);
        }
        let t = s.transpose(t);
        for i in 0..len {
            for m in 0..M {
                acc[m] = s.fma(t[i], s.splat(x[m][from + i]), acc[m]);
            }
        }
    }
    acc
}

impl Ops {
    /// Columns `at..at + a.n()` of rows `rows` of out `[_, n]`, cut by [`CUT`], become `scale` times the products of rows of
    /// `x [_, a.k()]` with `a`; other elements stay.
    ///
    /// Panics where rows or columns do not exist.
    pub fn narrow(
        &self,
        out: &mut TileMut,
        x: &[f32],
        rows: Range<usize>,
        a: &Matrix,
        at: usize,
        scale: f32,
    ) {
        let k = a.k();
        for cell in out.cells() {
            let cols = cell.cols.start.max(at)..cell.cols.end.min(at + a.n());
            let own = cell.rows.start.max(rows.start)..cell.rows.end.min(rows.end);
            if cols.is_empty() {
                continue;
            }
            for first in own.clone().step_by(ROWS) {
                let some = first..own.end.min(first + ROWS);
                let mut sums = [[0.0; LANES]; ROWS];
                let sums = &mut sums[..some.len()];
                self.block(sums, a, cols.start - at, x, k, some.clone());
                for (r, sums) in some.zip(sums) {
                    let out = &mut out.cell_row(&cell, r)[cols.start - cell.cols.start..];
                    for (out, sum) in out.iter_mut().zip(&sums[..cols.len()]) {
                        *out = sum * scale;
                    }
                }
            }
        }
    }

    /// Rows `rows` of out `[_, b.n()]`, cut by columns, grow by the products of columns `at..at + b.k()` of rows of
    /// `x [_, wide]` with `b`, each output's times its gain.
    ///
    /// Panics where rows or columns do not exist.
    pub fn widen(
        &self,
        out: &mut TileMut,
        x: &[f32],
        wide: usize,
        rows: Range<usize>,
        b: &Matrix,
        at: usize,
        gains: Option<&[f32]>,
    ) {
        let cols = out.cols();
        for first in rows.clone().step_by(ROWS) {
            let some = first..rows.end.min(first + ROWS);
            for col in cols.clone().step_by(LANES) {
                let mut sums = [[0.0; LANES]; ROWS];
                let sums = &mut sums[..some.len()];
                self.block(sums, b, col, &x[at..], wide, some.clone());
                let lanes = LANES.min(cols.end - col);
                for (r, sums) in some.clone().zip(sums) {
                    let out = &mut out.row(r)[col - cols.start..][..lanes];
                    match gains {
                        None => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += *sum),
                        Some(gains) => {
                            let gains = &gains[col..];
                            out.iter_mut().zip(sums).zip(gains).for_each(|((out, s), g)| *out += *s * g);
                        }
                    }
                }
            }
        }
    }

    /// Products of some rows, `stride` words from one to the next, with sixteen outputs.
    fn block(
        &self,
        sums: &mut [[f32; LANES]],
        w: &Matrix,
        first: usize,
        x: &[f32],
        stride: usize,
        rows: Range<usize>,
    ) {
        let mut some: [&[f32]; ROWS] = [&[]; ROWS];
        for (to, r) in some.iter_mut().zip(rows.clone()) {
            *to = &x[r * stride..][..w.k()];
        }
        (self.chains)(sums, w, first, &some[..rows.len()]);
    }
}
