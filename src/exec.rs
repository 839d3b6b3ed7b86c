//! Floor 4: `Exec` writes the program: each method appends a verb and returns the buffer it fills.

use crate::arch::Arch;
use crate::verb::{Buf, Verb};
use crate::weights::{LinearW, NormW, P};
use kernels::Ops;
use kernels::act::Act;
use kernels::attention::{AttendShape, Cache, part_words, parts, splits};
use kernels::linear::Pack;

/// All that a program depends on, besides the model: two calls of one shape share a program.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Shape {
    /// Tokens of the call, over all sequences.
    pub rows: usize,
    /// Rows whose logits are wanted.
    pub picks: usize,
    /// Whether log-probabilities of targets are wanted for the picked rows.
    pub score: bool,
}

/// Writes verbs over numbered buffers.
pub struct Exec<'m> {
    arch: &'m Arch,
    ops: &'static Ops,
    shape: Shape,
    /// What has been written.
    pub verbs: Vec<Verb>,
    /// Rows and columns of each buffer. Of a packed one: pieces, and words of a piece.
    pub bufs: Vec<(usize, usize)>,
    /// What each linear reads, before it is packed.
    pub inputs: Vec<(P, Buf)>,
    /// Packed forms that exist already.
    packed: Vec<(Buf, Pack, Buf)>,
}

impl<'m> Exec<'m> {
    /// An empty program.
    pub fn new(arch: &'m Arch, ops: &'static Ops, shape: Shape) -> Self {
        Exec { arch, ops, shape, verbs: Vec::new(), bufs: Vec::new(), inputs: Vec::new(), packed: Vec::new() }
    }

    fn buf(&mut self, rows: usize, cols: usize) -> Buf {
        self.bufs.push((rows, cols));
        Buf(self.bufs.len() as u32 - 1)
    }

    fn like(&mut self, x: Buf) -> Buf {
        let (rows, cols) = self.bufs[x.0 as usize];
        self.buf(rows, cols)
    }

    /// `[rows, d_model]` from the token and position tables.
    pub fn embed(&mut self, tokens: P, positions: Option<P>) -> Buf {
        let out = self.buf(self.shape.rows, self.arch.d_model);
        self.verbs.push(Verb::Embed { out, tokens, positions });
        out
    }

    /// The family's norm of each row.
    pub fn norm(&mut self, x: Buf, w: &NormW) -> Buf {
        let out = self.like(x);
        self.verbs.push(Verb::Norm { out, x, gain: w.gain, bias: w.bias });
        out
    }

    /// `x W^T + bias`.
    pub fn linear(&mut self, x: Buf, w: &LinearW) -> Buf {
        self.linear_with(x, w, None)
    }

    /// `linear` with the residual in its epilogue.
    pub fn linear_add(&mut self, x: Buf, w: &LinearW, add: Buf) -> Buf {
        self.linear_with(x, w, Some(add))
    }

    fn linear_with(&mut self, x: Buf, w: &LinearW, add: Option<Buf>) -> Buf {
        let rows = self.bufs[x.0 as usize].0;
        self.inputs.push((w.w, x));
        let x = self.pack(x, Pack::of(w.dtype));
        let out = self.buf(rows, w.n);
        self.verbs.push(Verb::Linear { out, x, w: w.w, bias: w.bias, add });
        out
    }

    /// The packed form of `x`, written once for all linears that read it.
    fn pack(&mut self, x: Buf, pack: Pack) -> Buf {
        let known = self.packed.iter().find(|(from, p, _)| *from == x && *p == pack);
        if let Some((_, _, out)) = known {
            return *out;
        }
        let (rows, k) = self.bufs[x.0 as usize];
        let piece = self.ops.pack_piece(rows, k, pack);
        let out = self.buf(self.ops.packed_words(rows, k, pack).checked_div(piece).unwrap_or(0), piece);
        self.verbs.push(Verb::Pack { out, x, pack });
        self.packed.push((x, pack, out));
        out
    }

    /// Rotary positions.
    pub fn rope(&mut self, x: Buf) -> Buf {
        let out = self.like(x);
        self.verbs.push(Verb::Rope { out, x });
        out
    }

    /// Appends k and v to the pages of `layer`, then attends over them.
    pub fn attend(&mut self, layer: u32, q: Buf, k: Buf, v: Buf) -> Buf {
        let out = self.like(q);
        self.verbs.push(Verb::Append { layer, k, v });
        let (a, rows) = (self.arch, self.bufs[q.0 as usize].0);
        // What the cache rounds to does not matter here.
        let shape =
            AttendShape { heads: a.n_heads, kv_heads: a.n_kv_heads, dim: a.head_dim, cache: Cache::F32 };
        if !splits(&shape, rows) {
            self.verbs.push(Verb::Attend { layer, out, q, split: false });
            return out;
        }
        // Few rows: workers share the keys as well, and fold what they found afterwards.
        let parts = self.buf(parts(a.max_positions) * rows, a.n_heads * part_words(a.head_dim));
        self.verbs.push(Verb::Attend { layer, out: parts, q, split: true });
        self.verbs.push(Verb::Merge { out, parts });
        out
    }

    /// `act(x) * up`, or `act(x)`.
    pub fn act(&mut self, act: Act, x: Buf, up: Option<Buf>) -> Buf {
        let out = self.like(x);
        self.verbs.push(Verb::Act { out, x, up, act });
        out
    }

    /// The rows that the tables pick; all of them, in order, cost no copy.
    pub fn rows(&mut self, x: Buf) -> Buf {
        let (rows, cols) = self.bufs[x.0 as usize];
        if self.shape.picks == rows {
            return x;
        }
        let out = self.buf(self.shape.picks, cols);
        self.verbs.push(Verb::Rows { out, x });
        out
    }

    /// Log-probabilities of the targets in the tables.
    pub fn logprob(&mut self, logits: Buf) -> Buf {
        let out = self.buf(self.bufs[logits.0 as usize].0, 2);
        self.verbs.push(Verb::Logprob { out, logits });
        out
    }
}
