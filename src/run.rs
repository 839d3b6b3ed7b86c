//! Floor 4: one verb on one worker's tile: looks up operands, calls a kernel.

use crate::arch::{Arch, Mixer, Position};
use crate::layout::Layout;
use crate::state::Tables;
use crate::verb::{Buf, Verb};
use crate::weights::{P, Weights};
use kernels::attention::{AttendArgs, AttendShape, Cache};
use kernels::{Matrix, Ops, Part};

/// What a run reads besides buffers and state.
#[derive(Clone, Copy)]
pub struct Ctx<'a> {
    /// The family.
    pub arch: &'a Arch,
    /// Its parameters.
    pub weights: &'a Weights,
    /// The kernels of this machine.
    pub ops: &'static Ops,
    /// Type of cached keys and values.
    pub cache: Cache,
    /// What changes from call to call.
    pub tables: &'a Tables,
}

impl<'a> Ctx<'a> {
    fn matrix(&self, p: P) -> Matrix<'a> {
        self.weights.params[p.0 as usize].matrix()
    }

    fn vector(&self, p: P) -> &'a [f32] {
        self.weights.params[p.0 as usize].vector()
    }

    fn attend_args(&self) -> AttendArgs<'a> {
        let (a, t) = (self.arch, self.tables);
        let Mixer::Attention { scale, window } = a.mixer;
        AttendArgs {
            shape: AttendShape {
                heads: a.n_heads,
                kv_heads: a.n_kv_heads,
                dim: a.head_dim,
                cache: self.cache,
            },
            scale,
            window,
            causal: true,
            rows: &t.rows,
            pages: &t.pages,
            seqs: &t.seqs,
        }
    }
}

/// Runs `v` on the worker's part `p`.
pub fn verb(v: &Verb, p: &mut Part, c: &Ctx, l: &Layout) {
    let (t, ops, a) = (c.tables, c.ops, c.arch);
    let cols = |b: Buf| l.buf(b).cols;
    match *v {
        Verb::Embed { out, tokens, positions } => {
            let positions = positions.map(|table| c.matrix(table));
            let positions = positions.as_ref().map(|table| (table, &t.positions[..]));
            (ops.embed)(&mut p.write(l.buf(out)), &c.matrix(tokens), &t.ids, positions);
        }
        Verb::Norm { out, x, gain, bias } => {
            let bias = bias.map(|b| c.vector(b));
            (ops.norm)(&mut p.write(l.buf(out)), p.read(l.buf(x)), c.vector(gain), bias, a.eps, a.norm);
        }
        Verb::Pack { out, x, pack } => {
            let span = l.buf(x);
            (ops.pack)(&mut p.write(l.buf(out)), p.read(span), span.rows, span.cols, pack);
        }
        Verb::Linear { out, x, w, bias, add } => {
            let (x, rows) = (p.read(l.buf(x)), l.buf(out).rows);
            let (bias, add) = (bias.map(|b| c.vector(b)), add.map(|b| p.read(l.buf(b))));
            let scratch = p.scratch();
            ops.linear(&mut p.write(l.buf(out)), x, rows, &c.matrix(w), bias, add, scratch);
        }
        Verb::Rope { out, x } => {
            let Position::Rope(rope) = &a.position else { return };
            let x_all = p.read(l.buf(x));
            (ops.rope)(
                &mut p.write(l.buf(out)),
                x_all,
                cols(x),
                a.head_dim,
                rope.rot_dim,
                rope.interleaved,
                &t.turns,
            );
        }
        Verb::Append { layer, k, v } => {
            let (k, v) = (p.read(l.buf(k)), p.read(l.buf(v)));
            (ops.append)(&mut p.state_mut(layer as usize), k, v, &c.attend_args());
        }
        Verb::Attend { layer, out, q, split } => {
            let (q, state, scratch) = (p.read(l.buf(q)), p.state(layer as usize), p.scratch());
            (ops.attend)(&mut p.write(l.buf(out)), q, &state, &c.attend_args(), split, scratch);
        }
        Verb::Merge { out, parts } => {
            let parts = p.read(l.buf(parts));
            (ops.merge)(&mut p.write(l.buf(out)), parts, &c.attend_args());
        }
        Verb::Act { out, x, up, act } => {
            let (n, x, up) = (cols(out), p.read(l.buf(x)), up.map(|b| p.read(l.buf(b))));
            (ops.act)(&mut p.write(l.buf(out)), x, up, n, act);
        }
        Verb::Rows { out, x } => {
            kernels::embed::rows(&mut p.write(l.buf(out)), p.read(l.buf(x)), cols(x), &t.picks);
        }
        Verb::Logprob { out, logits } => {
            (ops.logprob)(&mut p.write(l.buf(out)), p.read(l.buf(logits)), cols(logits), &t.targets);
        }
    }
}
