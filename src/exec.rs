//! Floor 4: `Exec` writes the program: each method appends a verb and returns the buffer it fills.

use crate::adapter::Need;
use crate::arch::{Arch, Head, Position, Side, Stack};
use crate::block::Block;
use crate::crossing::Crossing;
use crate::graft::Graft;
use crate::verb::{Buf, Of, Verb};
use crate::weights::{AddedW, LinearW, NormW, P, Sites, StackW, Weights};
use kernels::act::Act;
use kernels::attention::{AttendShape, Cache, part_words, parts, splits};
use kernels::linear::Pack;
use kernels::{DType, Ops};

/// All that a program depends on, besides the model: two calls of one shape share a program.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Shape {
    /// Tokens of the call, over all sequences.
    pub rows: usize,
    /// Rows of the answer: those that are picked, or with `mean` one for each sequence.
    pub picks: usize,
    /// Whether log-probabilities of targets are wanted for the picked rows.
    pub score: bool,
    /// Which stack runs.
    pub side: Side,
    /// What is wanted of the picked rows.
    pub want: Want,
    /// Whether the mean of each sequence's rows is wanted in the place of rows.
    pub mean: bool,
    /// Whether gradients will be wanted.
    pub learn: bool,
    /// Where they will be, tokens of all sources that a decoder's rows attend to.
    pub sources: usize,
    /// Number of what adapters of the rows need; 0: nothing.
    pub graft: u32,
    /// What the rows are.
    pub lead: Lead,
}

/// Whether rows are tokens, or come before them from an adapter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lead {
    /// Tokens.
    None,
    /// Vectors in the place of tokens' own.
    Prompt,
    /// Keys and values of every block.
    Prefix,
}

/// What a run returns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Want {
    /// What the head makes of states.
    Head,
    /// The states of the stack's last norm.
    Hidden,
}

impl Shape {
    /// Logits of a decoder.
    pub fn decode(rows: usize, picks: usize) -> Shape {
        let (side, want) = (Side::Decoder, Want::Head);
        Shape {
            rows,
            picks,
            score: false,
            side,
            want,
            mean: false,
            learn: false,
            sources: 0,
            graft: 0,
            lead: Lead::None,
        }
    }
}

/// Queries or keys of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watched {
    /// The block.
    pub layer: usize,
    /// Whose keys are compared.
    pub of: Of,
    /// Whether these are queries.
    pub query: bool,
}

/// Writes verbs over numbered buffers.
pub struct Exec<'m> {
    arch: &'m Arch,
    stack: &'m Stack,
    ops: &'static Ops,
    shape: Shape,
    /// What has been written.
    pub verbs: Vec<Verb>,
    /// The blocks among it.
    pub blocks: Vec<Block>,
    /// Rows and columns of each buffer. Of a packed one: pieces, and words of a piece.
    pub bufs: Vec<(usize, usize)>,
    /// What each linear reads, before it is packed.
    pub inputs: Vec<(P, Buf)>,
    /// What attention compares.
    pub watched: Vec<(Watched, Buf)>,
    /// What the value head says of the picked rows.
    pub values: Option<Buf>,
    /// Buffers that lie where the program of the other stack finds them.
    pub crossing: Vec<(Buf, Crossing)>,
    /// Packed forms that exist already.
    packed: Vec<(Buf, Pack, Buf)>,
    /// Where adapters can be grafted, and what those of the rows need there.
    grafts: Option<(&'m Sites, &'m [Need])>,
}

impl<'m> Exec<'m> {
    /// An empty program. Panics where the model has no such side.
    pub fn new(
        arch: &'m Arch,
        ops: &'static Ops,
        shape: Shape,
        grafts: Option<(&'m Sites, &'m [Need])>,
    ) -> Self {
        let (stack, inputs) = (arch.side(shape.side).expect("a stack that the model has"), Vec::new());
        Exec {
            arch,
            stack,
            ops,
            shape,
            verbs: Vec::new(),
            blocks: Vec::new(),
            bufs: Vec::new(),
            inputs,
            watched: Vec::new(),
            values: None,
            crossing: Vec::new(),
            packed: Vec::new(),
            grafts,
        }
    }

    /// Rows of the call.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// The stack that is written.
    pub fn stack(&self) -> &'m Stack {
        self.stack
    }

    /// Its parameters.
    pub fn stack_of<'w>(&self, m: &'w Weights) -> &'w StackW {
        m.side(self.shape.side).expect("parameters of each stack")
    }

    /// The model's head.
    pub fn head(&self) -> &'m Head {
        &self.arch.head
    }

    /// What is wanted. An encoder before a decoder has no head of its own.
    pub fn want(&self) -> Want {
        if self.writes_source() { Want::Hidden } else { self.shape.want }
    }

    /// Whether a decoder will attend to what this stack returns.
    pub fn writes_source(&self) -> bool {
        self.shape.side == Side::Encoder && self.arch.decoder.is_some()
    }

    /// Whether the answer is rows as they are, not their mean.
    pub fn picks_rows(&self) -> bool {
        !self.shape.mean
    }

    /// Where adapters can be grafted, where rows of the call have any.
    pub fn sites(&self) -> Option<&'m Sites> {
        Some(self.grafts?.0)
    }

    /// What they need, by place.
    pub fn needs(&self) -> &'m [Need] {
        self.grafts.map_or(&[], |(_, needs)| needs)
    }

    /// A buffer that the next verb fills.
    pub(crate) fn buf(&mut self, rows: usize, cols: usize) -> Buf {
        self.bufs.push((rows, cols));
        Buf(self.bufs.len() as u32 - 1)
    }

    pub(crate) fn like(&mut self, x: Buf) -> Buf {
        let (rows, cols) = self.bufs[x.0 as usize];
        self.buf(rows, cols)
    }

    /// `[rows, width]` from the tables of tokens, positions and token types.
    pub fn embed(&mut self, tokens: P, positions: Option<P>, types: Option<P>) -> Buf {
        let out = self.buf(self.shape.rows, self.stack.embed.width);
        if self.shape.lead == Lead::Prompt {
            self.verbs.push(Verb::Graft(Graft::Prompt { out, positions, types }));
            return out;
        }
        self.verbs.push(Verb::Embed { out, tokens, positions, types });
        self.grafted_table(out, tokens)
    }

    /// `[rows, d_model]` from the table of positions alone.
    pub fn places(&mut self, positions: P) -> Buf {
        let out = self.buf(self.shape.rows, self.stack.d_model);
        self.verbs.push(Verb::Places { out, positions });
        out
    }

    /// The stack's norm, of each row or of each head of a row.
    pub fn norm(&mut self, x: Buf, w: NormW) -> Buf {
        let out = self.like(x);
        self.verbs.push(Verb::Norm { out, x, gain: w.gain, bias: w.bias, width: w.width, add: None });
        self.grafted_norm(out, x, w, None)
    }

    /// `norm` where there is one, else `x` itself.
    pub fn maybe_norm(&mut self, x: Buf, w: Option<NormW>) -> Buf {
        w.map_or(x, |w| self.norm(x, w))
    }

    /// `norm` with a residual added.
    pub fn norm_add(&mut self, x: Buf, w: NormW, add: Buf) -> Buf {
        let out = self.like(x);
        self.verbs.push(Verb::Norm { out, x, gain: w.gain, bias: w.bias, width: w.width, add: Some(add) });
        self.grafted_norm(out, x, w, Some(add))
    }

    /// `x W^T + bias`.
    pub fn linear(&mut self, x: Buf, w: &LinearW) -> Buf {
        self.linear_with(x, w, None)
    }

    /// `linear` with the residual in its epilogue.
    pub fn linear_add(&mut self, x: Buf, w: &LinearW, add: Buf) -> Buf {
        self.linear_with(x, w, Some(add))
    }

    /// A linear and what an adapter that learns adds to it.
    fn linear_with(&mut self, x: Buf, w: &LinearW, add: Option<Buf>) -> Buf {
        let grafted = self.grafted(x, w, add);
        grafted.unwrap_or_else(|| self.plain_linear(x, w, add))
    }

    /// `x W^T + bias + add` of the model alone.
    pub(crate) fn plain_linear(&mut self, x: Buf, w: &LinearW, add: Option<Buf>) -> Buf {
        self.inputs.push((w.w, x));
        match w.added == AddedW::default() {
            true => self.product(x, w.w, w.bias, w.n, w.dtype, add),
            false => self.added(x, w, add),
        }
    }

    pub(crate) fn product(
        &mut self,
        x: Buf,
        w: P,
        bias: Option<P>,
        n: usize,
        dtype: DType,
        add: Option<Buf>,
    ) -> Buf {
        let rows = self.bufs[x.0 as usize].0;
        let x = self.pack(x, Pack::of(dtype));
        let out = self.buf(rows, n);
        self.verbs.push(Verb::Linear { out, x, rows, w, bias, add, then: None });
        out
    }

    /// The packed form of `x`, written once for all linears that read it.
    pub(crate) fn pack(&mut self, x: Buf, pack: Pack) -> Buf {
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

    /// Rotary positions of a block.
    pub fn rope(&mut self, layer: usize, x: Buf) -> Buf {
        let out = self.like(x);
        let has_local = matches!(self.stack.position, Position::Rope { local: Some(_), .. });
        let local = has_local && self.stack.attention().window_of(layer).is_some();
        self.verbs.push(Verb::Rope { out, x, local });
        out
    }

    /// Appends k and v, which a block of the decoder will attend to, to the pages of the call's sequences.
    pub fn append_source(&mut self, layer: usize, k: Buf, v: Buf) {
        self.watched.push((Watched { layer, of: Of::Source, query: false }, k));
        if self.shape.learn {
            self.crossing.extend([k, v].into_iter().zip(Crossing::pair(layer)));
        }
        self.verbs.push(Verb::Append { layer: layer as u32, k, v, of: Of::Source });
    }

    /// Appends k and v to the pages of a block, then attends over them.
    pub fn attend(&mut self, layer: usize, q: Buf, k: Buf, v: Buf) -> Buf {
        let attention = self.stack.attention();
        // Who sees all at once keeps nothing: one layer of pages serves all blocks.
        let state = if attention.causal { layer } else { 0 };
        let of = Of::Own { window: attention.window_of(layer) };
        self.verbs.push(Verb::Append { layer: state as u32, k, v, of });
        self.watched.push((Watched { layer, of, query: true }, q));
        self.watched.push((Watched { layer, of, query: false }, k));
        self.attend_over(of, state, q)
    }

    /// Attends over the source's keys and values of a block.
    pub fn attend_source(&mut self, layer: usize, q: Buf) -> Buf {
        self.watched.push((Watched { layer, of: Of::Source, query: true }, q));
        if self.shape.learn {
            for place in Crossing::pair(layer) {
                let written_before = self.buf(self.shape.sources, self.stack.kv_cols());
                self.crossing.push((written_before, place));
            }
        }
        self.attend_over(Of::Source, layer, q)
    }

    fn attend_over(&mut self, of: Of, layer: usize, q: Buf) -> Buf {
        let (out, layer) = (self.like(q), layer as u32);
        let (s, rows) = (self.stack, self.bufs[q.0 as usize].0);
        // What the cache rounds to does not matter here.
        let shape =
            AttendShape { heads: s.n_heads, kv_heads: s.n_kv_heads, dim: s.head_dim, cache: Cache::F32 };
        if self.shape.learn || !splits(&shape, rows) {
            let stat = self.shape.learn.then(|| self.buf(rows, 2 * s.n_heads));
            self.verbs.push(Verb::Attend { layer, out, q, of, split: false, stat });
            return out;
        }
        // Few rows: workers share the keys as well, and fold what they found afterwards.
        let cols = s.n_heads * part_words(s.head_dim);
        let parts = self.buf(parts(self.arch.max_positions) * rows, cols);
        self.verbs.push(Verb::Attend { layer, out: parts, q, of, split: true, stat: None });
        self.verbs.push(Verb::Merge { out, parts, of });
        out
    }

    /// `act(x) * up`, or `act(x)`.
    pub fn act(&mut self, act: Act, x: Buf, up: Option<Buf>) -> Buf {
        let out = self.like(x);
        self.verbs.push(Verb::Act { out, x, up, act });
        out
    }

    /// `x * factors + shifts + add`, of what there is.
    pub fn affine(&mut self, x: Buf, factors: Option<P>, shifts: Option<P>, add: Option<Buf>) -> Buf {
        let out = self.like(x);
        self.verbs.push(Verb::Affine { out, x, factors, shifts, add });
        out
    }

    /// Rows of `table` at the first positions, plus rows of the tables of positions and token types; else `x`.
    pub fn lead(&mut self, x: Buf, table: P, positions: Option<P>, types: Option<P>) -> Buf {
        let out = self.like(x);
        self.verbs.push(Verb::Lead { out, x, table, positions, types });
        out
    }

    /// The rows that the tables pick, or the means of sequences; all rows, in order, cost no copy.
    pub fn pick(&mut self, x: Buf) -> Buf {
        let (rows, cols) = self.bufs[x.0 as usize];
        if self.shape.picks == rows && !self.shape.mean {
            return x;
        }
        let out = self.buf(self.shape.picks, cols);
        self.verbs.push(if self.shape.mean { Verb::Mean { out, x } } else { Verb::Rows { out, x } });
        out
    }

    /// What the value head, if there is one, says of states. It knows nothing of an encoder's before a decoder.
    pub fn value(&mut self, h: Buf, w: Option<&LinearW>) {
        self.values = w.filter(|_| !self.writes_source()).map(|w| self.linear(h, w));
    }

    /// Log-probabilities of the targets in the tables.
    pub fn logprob(&mut self, logits: Buf) -> Buf {
        let out = self.buf(self.bufs[logits.0 as usize].0, 2);
        self.verbs.push(Verb::Logprob { out, logits });
        out
    }
}
