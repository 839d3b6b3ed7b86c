//! Floor 4: one verb on one worker's tile: looks up operands, calls a kernel.

use crate::arch::{Arch, Position, Stack};
use crate::layout::Layout;
use crate::tables::Tables;
use crate::verb::{Buf, Fused, Of, Verb};
use crate::weights::{P, StackW, Weights};
use kernels::attention::{AttendArgs, AttendShape, Bias, Cache};
use kernels::linear::Then;
use kernels::{Matrix, Ops, Part};

/// What a run reads besides buffers and state.
#[derive(Clone, Copy)]
pub struct Ctx<'a> {
    /// The family.
    pub arch: &'a Arch,
    /// The stack that runs.
    pub stack: &'a Stack,
    /// All parameters.
    pub weights: &'a Weights,
    /// Those of the stack.
    pub own: &'a StackW,
    /// The kernels of this machine.
    pub ops: &'static Ops,
    /// Type of cached keys and values.
    pub cache: Cache,
    /// What changes from call to call.
    pub tables: &'a Tables,
}

impl<'a> Ctx<'a> {
    pub(crate) fn matrix(&self, p: P) -> Matrix<'a> {
        self.weights.params[p.0 as usize].matrix()
    }

    pub(crate) fn vector(&self, p: P) -> &'a [f32] {
        self.weights.params[p.0 as usize].vector()
    }

    fn shape(&self, s: &Stack) -> AttendShape {
        AttendShape { heads: s.n_heads, kv_heads: s.n_kv_heads, dim: s.head_dim, cache: self.cache }
    }

    /// Attention of the rows over what `of` says.
    pub(crate) fn attend_args(&self, of: Of) -> AttendArgs<'a> {
        let (t, attention) = (self.tables, self.stack.attention());
        let args = AttendArgs {
            shape: self.shape(self.stack),
            scale: attention.scale,
            cap: attention.cap,
            bias: Bias::None,
            window: None,
            causal: false,
            rows: &t.rows,
            pages: &t.pages,
            seqs: &t.seqs,
            lens: &t.lens,
        };
        match of {
            Of::Own { window } => AttendArgs { bias: self.bias(), window, causal: attention.causal, ..args },
            Of::Source => {
                AttendArgs { pages: &t.source_pages, seqs: &t.source_seqs, lens: &t.source_lens, ..args }
            }
        }
    }

    /// Where the rows' keys and values go: as this stack's own, or as what the decoder sees of a source.
    fn append_args(&self, of: Of) -> AttendArgs<'a> {
        let own = self.attend_args(Of::Own { window: None });
        match of {
            Of::Own { .. } => own,
            Of::Source => AttendArgs { shape: self.shape(self.arch.last()), ..own },
        }
    }

    pub(crate) fn bias(&self) -> Bias<'a> {
        bias(self.stack, self.own, self.weights)
    }
}

/// What a stack's attention adds to its scores.
pub fn bias<'a>(stack: &Stack, own: &StackW, weights: &'a Weights) -> Bias<'a> {
    let vector = |p: P| weights.params[p.0 as usize].vector();
    match (own.bias, &stack.position) {
        (Some(p), Position::Relative { far, .. }) => Bias::Distance { table: vector(p), far: *far },
        (Some(p), Position::Alibi { coarse: true, .. }) => {
            let table = vector(p);
            Bias::Positions { table, len: table.len() / stack.n_heads }
        }
        (Some(p), _) => Bias::Slopes(vector(p)),
        (None, _) => Bias::None,
    }
}

/// Runs `v` on the worker's part `p`.
pub fn verb(v: &Verb, p: &mut Part, c: &Ctx, l: &Layout) {
    let (t, ops) = (c.tables, c.ops);
    let cols = |b: Buf| l.buf(b).cols;
    match *v {
        Verb::Graft(ref graft) => crate::graft::run(graft, p, c, l),
        Verb::Embed { out, tokens, positions, types } => {
            let (positions, types) = (positions.map(|p| c.matrix(p)), types.map(|p| c.matrix(p)));
            let positions = positions.as_ref().map(|table| (table, &t.places[..]));
            let types = types.as_ref().map(|table| (table, &t.types[..]));
            let scale = c.stack.embed.scale;
            let (out, tokens) = (&mut p.write(l.buf(out)), &c.matrix(tokens));
            match (positions, types) {
                (None, None) => (ops.embed)(out, tokens, &t.ids, scale, &[]),
                (Some(one), None) | (None, Some(one)) => (ops.embed)(out, tokens, &t.ids, scale, &[one]),
                (Some(a), Some(b)) => (ops.embed)(out, tokens, &t.ids, scale, &[a, b]),
            }
        }
        Verb::Places { out, positions } => {
            (ops.embed)(&mut p.write(l.buf(out)), &c.matrix(positions), &t.places, 1.0, &[]);
        }
        Verb::Norm { out, x, gain, bias, width: _, add } => {
            let (gain, bias) = (c.vector(gain), bias.map(|b| c.vector(b)));
            let (x, add, norm) = (p.read(l.buf(x)), add.map(|b| p.read(l.buf(b))), c.stack.norm);
            (ops.norm)(&mut p.write(l.buf(out)), x, gain, bias, norm.eps, norm.kind, add);
        }
        Verb::Pack { out, x, pack } => {
            let span = l.buf(x);
            ops.pack(&mut p.write(l.buf(out)), p.read(span), span.rows, span.cols, pack);
        }
        Verb::Linear { out, x, rows, w, bias, add, then } => {
            let (bias, add) = (bias.map(|b| c.vector(b)), add.map(|b| p.read(l.buf(b))));
            let plain = Then { bias, add, ..Then::default() };
            let by = then.and_then(|then| then.by).map(|w| c.matrix(w));
            let then = then.map_or(plain, |Fused { act, times, pack, .. }| {
                let times = times.map(|b| p.read(l.buf(b)));
                Then { act: Some(act), times, by: by.as_ref(), pack: Some(pack), ..plain }
            });
            let (x, w, scratch) = (p.read(l.buf(x)), c.matrix(w), p.scratch());
            for mut out in p.pieces(l.buf(out)) {
                ops.linear_then(&mut out, x, rows, &w, &then, scratch);
            }
        }
        Verb::Rope { out, x, local } => {
            let Position::Rope { all, local: other } = &c.stack.position else { return };
            let (rope, turns) =
                if local { (other.as_ref().unwrap_or(all), &t.turns[1]) } else { (all, &t.turns[0]) };
            let (x, n, dim) = (p.read(l.buf(x)), cols(x), c.stack.head_dim);
            (ops.rope)(&mut p.write(l.buf(out)), x, n, dim, rope.rot_dim, rope.interleaved, turns);
        }
        Verb::Append { layer, k, v, of } => {
            let (k, v) = (p.read(l.buf(k)), p.read(l.buf(v)));
            (ops.append)(&mut p.state_mut(layer as usize), k, v, &c.append_args(of));
        }
        Verb::Attend { layer, out, q, of, split, stat } => {
            let (q, state, scratch) = (p.read(l.buf(q)), p.state(layer as usize), p.scratch());
            let (out, args) = (l.buf(out), c.attend_args(of));
            match stat {
                #[cfg(feature = "train")]
                Some(stat) => {
                    let (mut out, mut stat) = (p.write(out), p.write(l.buf(stat)));
                    (ops.back.attend_stat)(&mut out, &mut stat, q, &state, &args, scratch);
                }
                _ => {
                    for mut out in p.pieces(out) {
                        (ops.attend)(&mut out, q, &state, &args, split, scratch);
                    }
                }
            }
        }
        Verb::Merge { out, parts, of } => {
            let parts = p.read(l.buf(parts));
            (ops.merge)(&mut p.write(l.buf(out)), parts, &c.attend_args(of));
        }
        Verb::Act { out, x, up, act } => {
            let (n, x, up) = (cols(out), p.read(l.buf(x)), up.map(|b| p.read(l.buf(b))));
            ops.act(&mut p.write(l.buf(out)), x, up, n, act);
        }
        Verb::Affine { out, x, factors, shifts, add } => {
            let [factors, shifts] = [factors, shifts].map(|v| v.map(|v| c.vector(v)));
            let (n, x, add) = (cols(x), p.read(l.buf(x)), add.map(|b| p.read(l.buf(b))));
            kernels::affine::affine(&mut p.write(l.buf(out)), x, n, factors, shifts, add);
        }
        Verb::Lead { out, x, table, positions, types } => {
            let (table, [of_places, of_types]) =
                (c.matrix(table), [positions, types].map(|p| p.map(|p| c.matrix(p))));
            let places = of_places.as_ref().map(|table| (table, &t.places[..]));
            let more: Vec<_> =
                places.into_iter().chain(of_types.as_ref().map(|table| (table, &t.types[..]))).collect();
            kernels::affine::lead(&mut p.write(l.buf(out)), p.read(l.buf(x)), &table, &t.positions, &more);
        }
        Verb::Rows { out, x } => {
            kernels::embed::rows(&mut p.write(l.buf(out)), p.read(l.buf(x)), cols(x), &t.picks);
        }
        Verb::Mean { out, x } => {
            kernels::embed::means(&mut p.write(l.buf(out)), p.read(l.buf(x)), cols(x), &t.starts);
        }
        Verb::Logprob { out, logits } => {
            (ops.logprob)(&mut p.write(l.buf(out)), p.read(l.buf(logits)), cols(logits), &t.targets);
        }
        #[cfg(feature = "train")]
        Verb::Back(ref back) => crate::backward::run::back(back, p, c, l),
    }
}
