//! Floor 4: the closed vocabulary of a program: what it can say, and what each verb reads and writes.

#[cfg(feature = "train")]
use crate::backward::verb::Back;
use crate::graft::Graft;
use crate::layout::Layout;
use crate::weights::P;
use kernels::act::Act;
use kernels::linear::{PANEL, Pack};
use kernels::{Access, Cut, Task};

/// A numbered buffer of a program; each is written by exactly one verb.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Buf(pub u32);

/// Whose keys and values attention sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Of {
    /// The rows' own sequences, through a window or not.
    Own { window: Option<u32> },
    /// Those of the sequences' sources.
    Source,
}

/// What is made of the sums of a linear before they are written: `act(sums) * times`, laid out for the next linear.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Fused {
    /// The activation.
    pub act: Act,
    /// What it is multiplied by, if anything.
    pub times: Option<Buf>,
    /// Another matrix, by whose products with the same x it is multiplied.
    pub by: Option<P>,
    /// What the next linear takes.
    pub pack: Pack,
}

/// One step of a program. Shapes are those of the buffers; what changes from call to call is in the tables.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Verb {
    /// Rows of the table by token, plus rows of the tables of positions and token types.
    Embed { out: Buf, tokens: P, positions: Option<P>, types: Option<P> },
    /// Rows of the table of positions alone.
    Places { out: Buf, positions: P },
    /// RMSNorm or LayerNorm of each `width` elements, plus `add`.
    Norm { out: Buf, x: Buf, gain: P, bias: Option<P>, width: usize, add: Option<Buf> },
    /// Rows laid out (and rounded) for linears with weights of one kind; several linears share one.
    Pack { out: Buf, x: Buf, pack: Pack },
    /// `x W^T + bias + add` of so many rows, x packed, and what follows at once.
    Linear { out: Buf, x: Buf, rows: usize, w: P, bias: Option<P>, add: Option<Buf>, then: Option<Fused> },
    /// Queries or keys turned by their positions, by the angles of blocks with a window where `local`.
    Rope { out: Buf, x: Buf, local: bool },
    /// Keys and values into the pages of their sequences: a stack's own, or those that the decoder will see of a source.
    Append { layer: u32, k: Buf, v: Buf, of: Of },
    /// Attention of the queries over pages; with `split`, its parts; with `stat`, the largest score and the sum of each row
    /// and head beside.
    Attend { layer: u32, out: Buf, q: Buf, of: Of, split: bool, stat: Option<Buf> },
    /// Attention of its parts.
    Merge { out: Buf, parts: Buf, of: Of },
    /// `act(x) * up`, or `act(x)`.
    Act { out: Buf, x: Buf, up: Option<Buf>, act: Act },
    /// `x * factors + shifts + add`, of what there is.
    Affine { out: Buf, x: Buf, factors: Option<P>, shifts: Option<P>, add: Option<Buf> },
    /// Rows of a table at the first positions, plus rows of the tables of positions and token types; else `x`.
    Lead { out: Buf, x: Buf, table: P, positions: Option<P>, types: Option<P> },
    /// The rows that the tables pick.
    Rows { out: Buf, x: Buf },
    /// The mean of each sequence's rows.
    Mean { out: Buf, x: Buf },
    /// `[rows, 2]`: log-probability of each row's target, log-sum-exp.
    Logprob { out: Buf, logits: Buf },
    /// A step of the backward half.
    #[cfg(feature = "train")]
    Back(Back),
    /// What adapters add.
    Graft(Graft),
}

impl Verb {
    /// Buffers that are read. The backward half says none: see [`fuse`](crate::fuse).
    pub fn reads(&self) -> impl Iterator<Item = Buf> {
        let all = match *self {
            Verb::Embed { .. } | Verb::Places { .. } => [None; 3],
            #[cfg(feature = "train")]
            Verb::Back(_) => [None; 3],
            Verb::Norm { x, add, .. } => [Some(x), add, None],
            Verb::Linear { x, add, then, .. } => [Some(x), add, then.and_then(|then| then.times)],
            Verb::Append { k, v, .. } => [Some(k), Some(v), None],
            Verb::Act { x, up, .. } => [Some(x), up, None],
            Verb::Affine { x, add, .. } => [Some(x), add, None],
            Verb::Pack { x, .. }
            | Verb::Rope { x, .. }
            | Verb::Attend { q: x, .. }
            | Verb::Merge { parts: x, .. }
            | Verb::Lead { x, .. }
            | Verb::Rows { x, .. }
            | Verb::Mean { x, .. }
            | Verb::Logprob { logits: x, .. } => [Some(x), None, None],
            Verb::Graft(graft) => graft.reads(),
        };
        all.into_iter().flatten()
    }

    /// The buffer that is written.
    pub fn writes(&self) -> Option<Buf> {
        match *self {
            Verb::Append { .. } => None,
            #[cfg(feature = "train")]
            Verb::Back(_) => None,
            Verb::Embed { out, .. }
            | Verb::Places { out, .. }
            | Verb::Norm { out, .. }
            | Verb::Linear { out, .. }
            | Verb::Act { out, .. }
            | Verb::Affine { out, .. }
            | Verb::Lead { out, .. }
            | Verb::Pack { out, .. }
            | Verb::Rope { out, .. }
            | Verb::Attend { out, .. }
            | Verb::Merge { out, .. }
            | Verb::Rows { out, .. }
            | Verb::Mean { out, .. }
            | Verb::Logprob { out, .. } => Some(out),
            Verb::Graft(graft) => Some(graft.writes()),
        }
    }

    /// Every buffer that a verb of a forward half names.
    #[cfg(feature = "train")]
    pub fn bufs_mut(&mut self) -> impl Iterator<Item = &mut Buf> {
        let all = match self {
            Verb::Embed { out, .. } | Verb::Places { out, .. } => [Some(out), None, None, None],
            Verb::Norm { out, x, add, .. } | Verb::Affine { out, x, add, .. } => {
                [Some(out), Some(x), add.as_mut(), None]
            }
            Verb::Linear { out, x, add, then, .. } => {
                let times = then.as_mut().and_then(|then| then.times.as_mut());
                [Some(out), Some(x), add.as_mut(), times]
            }
            Verb::Append { k, v, .. } => [Some(k), Some(v), None, None],
            Verb::Attend { out, q, stat, .. } => [Some(out), Some(q), stat.as_mut(), None],
            Verb::Act { out, x, up, .. } => [Some(out), Some(x), up.as_mut(), None],
            Verb::Pack { out, x, .. }
            | Verb::Rope { out, x, .. }
            | Verb::Merge { out, parts: x, .. }
            | Verb::Lead { out, x, .. }
            | Verb::Rows { out, x }
            | Verb::Mean { out, x }
            | Verb::Logprob { out, logits: x } => [Some(out), Some(x), None, None],
            // Who learns runs without adapters of others.
            Verb::Back(_) | Verb::Graft(_) => [None, None, None, None],
        };
        all.into_iter().flatten()
    }

    /// What the verb touches and how workers share it.
    pub fn task(&self, l: &Layout) -> Task {
        let read = |b: Buf| Access::Read(l.buf(b));
        let rows = |b: Buf| Access::Write(l.buf(b), Cut::Pieces(l.buf(b).cols));
        let cols = |b: Buf| Access::Write(l.buf(b), Cut::Cols(PANEL));
        match *self {
            Verb::Graft(graft) => graft.task(l),
            Verb::Embed { out, .. } | Verb::Places { out, .. } => vec![rows(out)],
            Verb::Norm { out, x, width, add, .. } => {
                let mut task = vec![read(x), Access::Write(l.buf(out), Cut::Pieces(width))];
                task.extend(add.map(read));
                task
            }
            Verb::Pack { out, x, .. }
            | Verb::Rope { out, x, .. }
            | Verb::Lead { out, x, .. }
            | Verb::Rows { out, x }
            | Verb::Mean { out, x }
            | Verb::Logprob { out, logits: x } => vec![read(x), rows(out)],
            Verb::Linear { out, x, rows, w, add, then, .. } => {
                let out = match then {
                    None => Access::Deal(l.buf(out), Cut::Cols(PANEL)),
                    Some(then) => Access::Deal(l.buf(out), l.packed_cut(rows, then.pack)),
                };
                let mut task = vec![read(x), out, Access::Scratch(l.linear_scratch(w))];
                task.extend(add.map(read));
                task.extend(then.and_then(|then| then.times).map(read));
                task
            }
            Verb::Append { layer, k, v, of } => {
                vec![read(k), read(v), Access::WriteState(layer as usize, l.head_words(of))]
            }
            Verb::Attend { layer, out, q, split, stat, .. } => {
                let (out, cut) = (l.buf(out), l.attend_cut(q, split));
                let mut task =
                    vec![read(q), Access::ReadState(layer as usize), Access::Scratch(l.attend_scratch)];
                match stat {
                    // What is kept beside the outputs is shared as they are: nothing of both is dealt.
                    Some(stat) => {
                        task.extend([Access::Write(out, cut), Access::Write(l.buf(stat), l.stat_cut(q))]);
                    }
                    None => task.push(Access::Deal(out, cut)),
                }
                task
            }
            Verb::Merge { out, parts, .. } => vec![read(parts), Access::Write(l.buf(out), l.merge_cut())],
            Verb::Act { out, x, up, .. } => {
                let mut task = vec![read(x), cols(out)];
                task.extend(up.map(read));
                task
            }
            Verb::Affine { out, x, add, .. } => {
                let mut task = vec![read(x), cols(out)];
                task.extend(add.map(read));
                task
            }
            #[cfg(feature = "train")]
            Verb::Back(back) => back.task(l),
        }
    }
}
