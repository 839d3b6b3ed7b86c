//! Floor 4: one backward verb on one worker's tile: looks up operands, calls a kernel.

use super::verb::{Attended, Back, By, Seed};
use crate::arch::Position;
use crate::layout::Layout;
use crate::run::Ctx;
use crate::verb::Buf;
use kernels::Part;

/// Runs `v` on the worker's part `p`.
pub fn back(v: &Back, p: &mut Part, c: &Ctx, l: &Layout) {
    let (t, ops, norm) = (c.tables, c.ops, c.stack.norm);
    let (cols, rows) = (|b: Buf| l.buf(b).cols, |b: Buf| l.buf(b).rows);
    match *v {
        Back::Seeds { dx, of } => {
            let seeds = if of == Seed::Values { &t.value_seeds } else { &t.seeds };
            let (n, mut out) = (cols(dx), p.write(l.buf(dx)));
            for r in out.rows() {
                out.row(r).copy_from_slice(&seeds[r * n..][..n]);
            }
        }
        Back::Add { out, a, b } => {
            let (a, b) = (p.read(l.buf(a)), p.read(l.buf(b)));
            kernels::embed::add(&mut p.write(l.buf(out)), a, b, cols(out));
        }
        Back::EmbedDtable { table, dy, by, scale } => {
            let ids = match by {
                By::Ids => &t.ids,
                By::Places => &t.places,
                By::Types => &t.types,
            };
            kernels::embed::embed_bwd(&mut p.write(l.grad(table)), p.read(l.buf(dy)), ids, scale);
        }
        Back::NormDx { dx, dy, x, gain, add } => {
            let (dy, x, add) = (p.read(l.buf(dy)), p.read(l.buf(x)), add.map(|b| p.read(l.buf(b))));
            (ops.norm_dx)(&mut p.write(l.buf(dx)), dy, x, c.vector(gain), norm.eps, norm.kind, add);
        }
        Back::NormDgain { gain, bias, dy, x } => {
            let (dy, x, n) = (p.read(l.buf(dy)), p.read(l.buf(x)), l.width(gain));
            let mut dgain = p.write(l.grad(gain));
            let mut dbias = bias.map(|bias| p.write(l.grad(bias)));
            (ops.norm_dgain)(&mut dgain, dbias.as_mut(), dy, x, n, norm.eps, norm.kind);
        }
        Back::LinearDx { dx, dy, w, add } => {
            let (dy, add) = (p.read(l.buf(dy)), add.map(|b| p.read(l.buf(b))));
            let scratch = p.scratch();
            ops.linear_dx(&mut p.write(l.buf(dx)), dy, rows(dx), &c.matrix(w), add, scratch);
        }
        Back::LinearDw { w, dy, x } => {
            let n = rows(x);
            let (dy, x, scratch) = (p.read(l.buf(dy)), p.read(l.buf(x)), p.scratch());
            ops.linear_dw(&mut p.write(l.grad(w)), dy, x, n, scratch);
        }
        Back::BiasDb { bias, dy } => {
            kernels::linear::bias_db(&mut p.write(l.grad(bias)), p.read(l.buf(dy)), cols(dy));
        }
        Back::RopeDx { dx, dy, local } => {
            let Position::Rope { all, local: other } = &c.stack.position else { return };
            let (rope, turns) =
                if local { (other.as_ref().unwrap_or(all), &t.turns[1]) } else { (all, &t.turns[0]) };
            let (dy, n, dim) = (p.read(l.buf(dy)), cols(dx), c.stack.head_dim);
            (ops.rope_bwd)(&mut p.write(l.buf(dx)), dy, n, dim, rope.rot_dim, rope.interleaved, turns);
        }
        Back::AttendDq { dq, delta, from } => {
            attend_dq(p, c, l, [dq, delta], from);
        }
        Back::AttendDkv { dk, dv, delta, from } => {
            attend_dkv(p, c, l, [dk, dv, delta], from);
        }
        Back::ActDx { dx, dup, dy, x, up, act } => {
            let (dy, x, up) = (p.read(l.buf(dy)), p.read(l.buf(x)), up.map(|b| p.read(l.buf(b))));
            let mut dx_tile = p.write(l.buf(dx));
            let mut dup = dup.map(|dup| p.write(l.buf(dup)));
            (ops.act_bwd)(&mut dx_tile, dup.as_mut(), dy, x, up, cols(dx), act);
        }
        Back::RowsDx { dx, dy } => {
            kernels::embed::rows_bwd(&mut p.write(l.buf(dx)), p.read(l.buf(dy)), cols(dx), &t.picks);
        }
        Back::MeanDx { dx, dy } => {
            kernels::embed::means_bwd(&mut p.write(l.buf(dx)), p.read(l.buf(dy)), cols(dx), &t.starts);
        }
        Back::LogprobDx { dx, logits, logprob } => {
            let (n, logits, logprob) = (cols(dx), p.read(l.buf(logits)), p.read(l.buf(logprob)));
            (ops.logprob_bwd)(&mut p.write(l.buf(dx)), logits, n, logprob, &t.targets, &t.seeds);
        }
    }
}

// PROVISIONAL
fn probs(c: &Ctx, q: &[f32], k: &[f32], from: &Attended, r: usize, h: usize) -> (Vec<usize>, Vec<f32>) {
    let (t, s) = (c.tables, c.stack);
    let a = s.attention();
    let (dim, group) = (s.head_dim, s.n_heads / s.n_kv_heads);
    let row = t.rows[r];
    let first = t.starts[row.seq as usize] as usize;
    let end = t.starts[row.seq as usize + 1] as usize;
    let end = if a.causal { first + row.pos as usize + 1 } else { end };
    let window = if let crate::verb::Of::Own { window } = from.of { window } else { None };
    let keys: Vec<usize> = (first..end)
        .filter(|j| {
            let p = j - first;
            window.is_none_or(|w| p + w as usize > row.pos as usize && p < row.pos as usize + w as usize)
        })
        .collect();
    let bias = c.bias();
    let mut s: Vec<f32> = keys
        .iter()
        .map(|j| {
            let qk: f32 = (0..dim).map(|d| q[(r * s.n_heads + h) * dim + d] * k[(j * s.n_kv_heads + h / group) * dim + d]).sum();
            qk * a.scale + bias.at(h, (j - first) as i64 - i64::from(row.pos))
        })
        .collect();
    let max = s.iter().fold(f32::MIN, |a, b| a.max(*b));
    s.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f32 = s.iter().sum();
    s.iter_mut().for_each(|x| *x /= sum);
    (keys, s)
}

fn attend_dq(p: &mut Part, c: &Ctx, l: &Layout, [dq, _]: [Buf; 2], from: Attended) {
    let [dout, out, q, k, v] = [from.dout, from.out, from.q, from.k, from.v].map(|b| p.read(l.buf(b)));
    let s = c.stack;
    let (dim, group) = (s.head_dim, s.n_heads / s.n_kv_heads);
    let mut tile = p.write(l.buf(dq));
    for cell in tile.cells() {
        for r in cell.rows.clone() {
            for h in cell.cols.start / dim..cell.cols.end / dim {
                let (keys, w) = probs(c, q, k, &from, r, h);
                let at = (r * s.n_heads + h) * dim;
                let delta: f32 = (0..dim).map(|d| dout[at + d] * out[at + d]).sum();
                let mut g = vec![0.0; dim];
                for (j, w) in keys.iter().zip(&w) {
                    let kv = (j * s.n_kv_heads + h / group) * dim;
                    let dp: f32 = (0..dim).map(|d| dout[at + d] * v[kv + d]).sum();
                    let ds = w * (dp - delta) * s.attention().scale;
                    (0..dim).for_each(|d| g[d] += ds * k[kv + d]);
                }
                tile.cell_row(&cell, r)[h * dim - cell.cols.start..][..dim].copy_from_slice(&g);
            }
        }
    }
}

fn attend_dkv(p: &mut Part, c: &Ctx, l: &Layout, [dk, dv, _]: [Buf; 3], from: Attended) {
    let [dout, out, q, k, v] = [from.dout, from.out, from.q, from.k, from.v].map(|b| p.read(l.buf(b)));
    let s = c.stack;
    let (dim, group) = (s.head_dim, s.n_heads / s.n_kv_heads);
    let (mut tk, mut tv) = (p.write(l.buf(dk)), p.write(l.buf(dv)));
    for i in tk.rows() {
        tk.row(i).fill(0.0);
        tv.row(i).fill(0.0);
    }
    for i in tk.rows() {
        let (j, g) = (i / s.n_kv_heads, i % s.n_kv_heads);
        for r in 0..c.tables.rows.len() {
            for h in g * group..(g + 1) * group {
                let (keys, w) = probs(c, q, k, &from, r, h);
                let Some(w) = keys.iter().position(|key| *key == j).map(|at| w[at]) else { continue };
                let at = (r * s.n_heads + h) * dim;
                let delta: f32 = (0..dim).map(|d| dout[at + d] * out[at + d]).sum();
                let kv = i * dim;
                let dp: f32 = (0..dim).map(|d| dout[at + d] * v[kv + d]).sum();
                let ds = w * (dp - delta) * s.attention().scale;
                (0..dim).for_each(|d| {
                    tk.row(i)[d] += ds * q[at + d];
                    tv.row(i)[d] += w * dout[at + d];
                });
            }
        }
    }
}
