//! Floor 0: gradients of rows that were looked up, picked or averaged, and sums of gradients. Plain loops over memory, each
//! element in a fixed order. Knows nothing of tokens.

use crate::plan::TileMut;
use std::ops::Range;

/// dtable `[vocab, n]`, cut by columns: row `ids[r]` `+= scale * dy[r]`, r in order; dy `[rows, n]`.
///
/// Panics where an id is beyond the table.
pub fn embed_bwd(dtable: &mut TileMut, dy: &[f32], ids: &[u32], scale: f32) {
    let (cols, vocab) = (dtable.cols(), dtable.rows());
    if cols.is_empty() || ids.is_empty() {
        return;
    }
    let n = dy.len() / ids.len();
    for (dy, id) in dy.chunks_exact(n).zip(ids) {
        assert!(vocab.contains(&(*id as usize)), "row {id} of {}", vocab.end);
        for (out, dy) in dtable.row(*id as usize).iter_mut().zip(&dy[cols.clone()]) {
            *out += scale * dy;
        }
    }
}

/// dx `[rows, n]`, cut in rows: the rows of `dy [picks, n]`, each where it was picked, in order where one was picked more
/// than once, and zeros where none was.
///
/// Panics where there are fewer rows of dy than picks.
pub fn rows_bwd(dx: &mut TileMut, dy: &[f32], n: usize, picks: &[u32]) {
    let own = dx.rows();
    own.clone().for_each(|r| dx.row(r).fill(0.0));
    for (i, pick) in picks.iter().enumerate().filter(|(_, pick)| own.contains(&(**pick as usize))) {
        for (dx, dy) in dx.row(*pick as usize).iter_mut().zip(&dy[i * n..][..n]) {
            *dx += dy;
        }
    }
}

/// dx `[rows, n]`, cut in rows: of `dy [sequences, n]`, a row of each of `starts[i]..starts[i + 1]` is that of the sequence
/// over their number; rows of no sequence are zeros.
///
/// Panics where there are fewer rows of dy than sequences.
pub fn means_bwd(dx: &mut TileMut, dy: &[f32], n: usize, starts: &[u32]) {
    for r in dx.rows() {
        let i = starts.partition_point(|start| *start as usize <= r);
        let dx = dx.row(r);
        if i == 0 || i == starts.len() {
            dx.fill(0.0);
            continue;
        }
        let len = (starts[i] - starts[i - 1]) as f32;
        for (dx, dy) in dx.iter_mut().zip(&dy[(i - 1) * n..][..n]) {
            *dx = dy / len;
        }
    }
}

/// Of rows `[_, n]`, what belongs to row `r` of a tile.
fn part(r: usize, n: usize, cols: &Range<usize>) -> Range<usize> {
    r * n + cols.start..r * n + cols.end
}

/// out `[rows, n]`, cut in pieces of n or by columns: `a + b`, both `[rows, n]`.
///
/// Panics where the sizes do not fit.
pub fn add(out: &mut TileMut, a: &[f32], b: &[f32], n: usize) {
    let cols = out.cols();
    for r in out.rows() {
        let at = part(r, n, &cols);
        for ((out, a), b) in out.row(r).iter_mut().zip(&a[at.clone()]).zip(&b[at]) {
            *out = a + b;
        }
    }
}

/// out `[rows, n]`, cut in pieces of n or by columns: `+= x`, which is `[rows, n]`.
///
/// Panics where the sizes do not fit.
pub fn accumulate(out: &mut TileMut, x: &[f32], n: usize) {
    let cols = out.cols();
    for r in out.rows() {
        for (out, x) in out.row(r).iter_mut().zip(&x[part(r, n, &cols)]) {
            *out += x;
        }
    }
}
