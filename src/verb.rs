//! Floor 4: the closed vocabulary of a program: what it can say, and what each verb reads and writes.

use crate::layout::Layout;
use crate::weights::P;
use kernels::act::Act;
use kernels::linear::{PANEL, Pack};
use kernels::{Access, Cut, Task};

/// A numbered buffer of a program; each is written by exactly one verb.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Buf(pub u32);

/// One step of a program. Shapes are those of the buffers; what changes from call to call is in the tables.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Verb {
    /// Rows of the table by token, plus rows of the positions' table.
    Embed { out: Buf, tokens: P, positions: Option<P> },
    /// RMSNorm or LayerNorm of each row.
    Norm { out: Buf, x: Buf, gain: P, bias: Option<P> },
    /// Rows laid out (and rounded) for linears with weights of one kind; several linears share one.
    Pack { out: Buf, x: Buf, pack: Pack },
    /// `x W^T + bias + add`, x packed.
    Linear { out: Buf, x: Buf, w: P, bias: Option<P>, add: Option<Buf> },
    /// Queries or keys turned by their positions.
    Rope { out: Buf, x: Buf },
    /// Keys and values into the pages of their sequences.
    Append { layer: u32, k: Buf, v: Buf },
    /// Attention of the queries over the pages of their sequences; with `split`, its parts.
    Attend { layer: u32, out: Buf, q: Buf, split: bool },
    /// Attention of its parts.
    Merge { out: Buf, parts: Buf },
    /// `act(x) * up`, or `act(x)`.
    Act { out: Buf, x: Buf, up: Option<Buf>, act: Act },
    /// The rows that the tables pick.
    Rows { out: Buf, x: Buf },
    /// `[rows, 2]`: log-probability of each row's target, log-sum-exp.
    Logprob { out: Buf, logits: Buf },
}

impl Verb {
    /// What the verb touches and how workers share it.
    pub fn task(&self, l: &Layout) -> Task {
        let read = |b: Buf| Access::Read(l.buf(b));
        let rows = |b: Buf| Access::Write(l.buf(b), Cut::Pieces(l.buf(b).cols));
        let cols = |b: Buf| Access::Write(l.buf(b), Cut::Cols(PANEL));
        match *self {
            Verb::Embed { out, .. } => vec![rows(out)],
            Verb::Norm { out, x, .. }
            | Verb::Pack { out, x, .. }
            | Verb::Rope { out, x }
            | Verb::Rows { out, x }
            | Verb::Logprob { out, logits: x } => vec![read(x), rows(out)],
            Verb::Linear { out, x, w, add, .. } => {
                let mut task = vec![read(x), cols(out), Access::Scratch(l.linear_scratch(w))];
                task.extend(add.map(read));
                task
            }
            Verb::Append { layer, k, v } => {
                vec![read(k), read(v), Access::WriteState(layer as usize, l.head_words)]
            }
            Verb::Attend { layer, out, q, split } => vec![
                read(q),
                Access::ReadState(layer as usize),
                Access::Write(l.buf(out), l.attend_cut(q, split)),
                Access::Scratch(l.attend_scratch),
            ],
            Verb::Merge { out, parts } => vec![read(parts), Access::Write(l.buf(out), l.merge_cut())],
            Verb::Act { out, x, up, .. } => {
                let mut task = vec![read(x), cols(out)];
                task.extend(up.map(read));
                task
            }
        }
    }
}
