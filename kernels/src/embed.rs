//! Floor 0: rows of tables by number. Knows nothing of tokens.

#[cfg(feature = "train")]
mod back;

#[cfg(feature = "train")]
pub use back::{accumulate, add, embed_bwd, means_bwd, rows_bwd};

use crate::linear::{Matrix, Order, ask_row, embed_row};
use crate::plan::TileMut;
use crate::quant::dequantize_row;

/// Elements expanded at once: a whole number of blocks of every type.
const PIECE: usize = 256;

/// out `[rows, n]`, cut in rows: row `ids[r]` of `tokens [_, n]` times `scale`, plus row `of[r]` of each `(table [_, n],
/// of)` of `more`, in order. Those tables are in file layout.
///
/// Panics where an id is beyond its table.
pub fn embed(out: &mut TileMut, tokens: &Matrix, ids: &[u32], scale: f32, more: &[(&Matrix, &[u32])]) {
    let rows = out.rows();
    for r in rows.clone() {
        let out = out.row(r);
        if tokens.order() == Order::Panels {
            if r + 1 < rows.end {
                ask_row(tokens, ids[r + 1] as usize);
            }
            embed_row(tokens, ids[r] as usize, out);
        } else {
            dequantize_row(tokens.dtype(), tokens.row(ids[r] as usize), out);
        }
        if scale != 1.0 {
            out.iter_mut().for_each(|x| *x *= scale);
        }
        for (table, of) in more {
            add_row(out, table, of[r] as usize);
        }
    }
}

pub(crate) fn add_row(out: &mut [f32], table: &Matrix, row: usize) {
    let (mut bytes, mut piece) = (table.row(row), [0.0; PIECE]);
    for out in out.chunks_mut(PIECE) {
        let piece = &mut piece[..out.len()];
        let (now, rest) = bytes.split_at(out.len() / table.dtype().block() * table.dtype().block_bytes());
        bytes = rest;
        dequantize_row(table.dtype(), now, piece);
        for (out, x) in out.iter_mut().zip(piece) {
            *out += *x;
        }
    }
}

/// out `[picks, n]`, cut in rows: the rows of `x [_, n]` that `picks` names.
///
/// Panics where one does not exist.
pub fn rows(out: &mut TileMut, x: &[f32], n: usize, picks: &[u32]) {
    for r in out.rows() {
        out.row(r).copy_from_slice(&x[picks[r] as usize * n..][..n]);
    }
}

/// out `[sequences, n]`, cut in rows: the mean of the rows `starts[i]..starts[i + 1]` of `x [_, n]`, added in order; zeros
/// where there are none.
///
/// Panics where one does not exist.
pub fn means(out: &mut TileMut, x: &[f32], n: usize, starts: &[u32]) {
    for i in out.rows() {
        let (out, rows) = (out.row(i), starts[i] as usize..starts[i + 1] as usize);
        out.fill(0.0);
        for x in x[rows.start * n..rows.end * n].chunks_exact(n) {
            for (out, x) in out.iter_mut().zip(x) {
                *out += x;
            }
        }
        let len = rows.len().max(1) as f32;
        out.iter_mut().for_each(|out| *out /= len);
    }
}
