//! Floor 4: one backward verb on one worker's tile: looks up operands, calls a kernel.

use super::verb::{Attended, Back, By, Seed};
use crate::arch::Position;
use crate::layout::Layout;
use crate::run::Ctx;
use crate::verb::{Buf, Of};
use kernels::Part;
use kernels::attention::{BackArgs, Kept};

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
            (ops.back.norm_dx)(&mut p.write(l.buf(dx)), dy, x, c.vector(gain), norm.eps, norm.kind, add);
        }
        Back::NormDgain { gain, bias, dy, x } => {
            let (dy, x, n) = (p.read(l.buf(dy)), p.read(l.buf(x)), l.width(gain));
            let mut dgain = p.write(l.grad(gain));
            let mut dbias = bias.map(|bias| p.write(l.grad(bias)));
            (ops.back.norm_dgain)(&mut dgain, dbias.as_mut(), dy, x, n, norm.eps, norm.kind);
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
            (ops.back.rope_bwd)(&mut p.write(l.buf(dx)), dy, n, dim, rope.rot_dim, rope.interleaved, turns);
        }
        Back::AttendDelta { delta, dout, out } => {
            let (dout, out) = (p.read(l.buf(dout)), p.read(l.buf(out)));
            (ops.back.attend_delta)(&mut p.write(l.buf(delta)), dout, out, c.stack.head_dim);
        }
        Back::AttendDq { dq, delta, from } => {
            let (of, scratch) = (kept(p, l, delta, &from), p.scratch());
            (ops.back.attend_dq)(&mut p.write(l.buf(dq)), &of, &c.back_args(from.of), scratch);
        }
        Back::AttendDkv { dk, dv, delta, from } => {
            let (of, scratch) = (kept(p, l, delta, &from), p.scratch());
            let (mut dk, mut dv) = (p.write(l.buf(dk)), p.write(l.buf(dv)));
            (ops.back.attend_dkv)(&mut dk, &mut dv, &of, &c.back_args(from.of), scratch);
        }
        Back::AttendDbias { out, delta, from } => {
            let (of, scratch) = (kept(p, l, delta, &from), p.scratch());
            let mut out = p.write(l.buf(out));
            out.rows().for_each(|head| out.row(head).fill(0.0));
            (ops.back.attend_dbias)(&mut out, &of, &c.back_args(from.of), scratch);
        }
        Back::DistancesDb { table, dy } => {
            let (mut out, dy, width) = (p.write(l.grad(table)), p.read(l.buf(dy)), cols(dy));
            let heads = out.cols();
            for (distance, range) in crate::positions::ranges(c.stack).into_iter().enumerate() {
                for (out, head) in out.row(range).iter_mut().zip(heads.clone()) {
                    *out += dy[head * width + distance];
                }
            }
        }
        Back::ActDx { dx, dup, dy, x, up, act } => {
            let (dy, x, up) = (p.read(l.buf(dy)), p.read(l.buf(x)), up.map(|b| p.read(l.buf(b))));
            let mut dx_tile = p.write(l.buf(dx));
            let mut dup = dup.map(|dup| p.write(l.buf(dup)));
            (ops.back.act_bwd)(&mut dx_tile, dup.as_mut(), dy, x, up, cols(dx), act);
        }
        Back::AffineDfactors { factors, dy, x } => {
            let (dy, x, n) = (p.read(l.buf(dy)), p.read(l.buf(x)), cols(x));
            kernels::affine::affine_dfactors(&mut p.write(l.grad(factors)), dy, x, n);
        }
        Back::LeadDx { dx, dy, tokens } => {
            let (dy, n) = (p.read(l.buf(dy)), cols(dx));
            kernels::affine::lead_dx(&mut p.write(l.buf(dx)), dy, n, tokens, &t.positions);
        }
        Back::LeadDtable { table, dy } => {
            let (dy, n) = (p.read(l.buf(dy)), cols(dy));
            kernels::affine::lead_dtable(&mut p.write(l.grad(table)), dy, n, &t.positions);
        }
        Back::RowsDx { dx, dy } => {
            kernels::embed::rows_bwd(&mut p.write(l.buf(dx)), p.read(l.buf(dy)), cols(dx), &t.picks);
        }
        Back::MeanDx { dx, dy } => {
            kernels::embed::means_bwd(&mut p.write(l.buf(dx)), p.read(l.buf(dy)), cols(dx), &t.starts);
        }
        Back::LogprobDx { dx, logits, logprob } => {
            let (n, logits, logprob) = (cols(dx), p.read(l.buf(logits)), p.read(l.buf(logprob)));
            (ops.back.logprob_bwd)(&mut p.write(l.buf(dx)), logits, n, logprob, &t.targets, &t.seeds);
        }
    }
}

impl<'a> Ctx<'a> {
    /// What attention of the rows saw, whole sequences from their first positions on.
    fn back_args(&self, of: Of) -> BackArgs<'a> {
        let starts = &self.tables.starts[..];
        let key_starts = if of == Of::Source { &self.tables.source_starts[..] } else { starts };
        let of = self.attend_args(of);
        BackArgs {
            shape: of.shape,
            scale: of.scale,
            cap: of.cap,
            bias: of.bias,
            window: of.window,
            causal: of.causal,
            starts,
            key_starts,
        }
    }
}

/// What attention kept, and its gradients.
fn kept<'a>(p: &Part<'a>, l: &Layout, delta: Buf, from: &Attended) -> Kept<'a> {
    let [q, k, v, dout, stat, delta] =
        [from.q, from.k, from.v, from.dout, from.stat, delta].map(|b| p.read(l.buf(b)));
    Kept { q, k, v, dout, stat, delta }
}
