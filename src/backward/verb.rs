//! Floor 4: the closed vocabulary of the backward half of a program: what it can say, and what each verb reads and writes.
//!
//! Every gradient of a buffer is a fresh buffer; sums of several are written by `Add`, or by a verb that has an `add` of its
//! own. Gradients of parameters (`..Dw`, `..Dgain`, ...) are added to what their memory holds, which the host clears.

use crate::layout::Layout;
use crate::verb::{Buf, Of};
use crate::weights::P;
use kernels::act::Act;
use kernels::linear::PANEL;
use kernels::{Access, Cut, Task};

/// Which table of a call says what row of a table of embeddings a row took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// Tokens.
    Ids,
    /// Positions.
    Places,
    /// Token types.
    Types,
}

/// Where a gradient comes from that no verb computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seed {
    /// The derivatives by the answer.
    Answer,
    /// The derivatives by the values.
    Values,
}

/// One step backward.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Back {
    /// What the host says of a loss.
    Seeds { dx: Buf, of: Seed },
    /// `a + b`
    Add { out: Buf, a: Buf, b: Buf },
    /// Of a table of embeddings, `scale` times the rows that took it.
    EmbedDtable { table: P, dy: Buf, by: By, scale: f32 },
    /// Of what a norm reads, plus `add`.
    NormDx { dx: Buf, dy: Buf, x: Buf, gain: P, add: Option<Buf> },
    /// Of a norm's gain and bias.
    NormDgain { gain: P, bias: Option<P>, dy: Buf, x: Buf },
    /// Of what a linear reads, `dy W + add`; dy packed.
    LinearDx { dx: Buf, dy: Buf, w: P, add: Option<Buf> },
    /// Of a linear's matrix, `dy^T x`.
    LinearDw { w: P, dy: Buf, x: Buf },
    /// Of a bias.
    BiasDb { bias: P, dy: Buf },
    /// Of what was turned.
    RopeDx { dx: Buf, dy: Buf, local: bool },
    /// For every row and head the sum of `dout * out`.
    AttendDelta { delta: Buf, dout: Buf, out: Buf },
    /// Of queries.
    AttendDq { dq: Buf, delta: Buf, from: Attended },
    /// Of keys and values.
    AttendDkv { dk: Buf, dv: Buf, delta: Buf, from: Attended },
    /// Of the biases of one block's scores, from `-far` to `far`, `[heads, 2 * far + 1]`.
    AttendDbias { out: Buf, delta: Buf, from: Attended },
    /// Of a table of biases, the sum of its ranges of distances.
    DistancesDb { table: P, dy: Buf },
    /// Of what an activation reads, and of what it is multiplied by.
    ActDx { dx: Buf, dup: Option<Buf>, dy: Buf, x: Buf, up: Option<Buf>, act: Act },
    /// Of factors, the sum of `dy * x`.
    AffineDfactors { factors: P, dy: Buf, x: Buf },
    /// Of rows of which the first `tokens` positions became others.
    LeadDx { dx: Buf, dy: Buf, tokens: usize },
    /// Of what those became.
    LeadDtable { table: P, dy: Buf },
    /// Of rows of which some were picked.
    RowsDx { dx: Buf, dy: Buf },
    /// Of rows whose means were taken.
    MeanDx { dx: Buf, dy: Buf },
    /// Of logits.
    LogprobDx { dx: Buf, logits: Buf, logprob: Buf },
}

/// What attention read and wrote.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Attended {
    /// The gradient of its output.
    pub dout: Buf,
    /// Largest score and sum of each row and head.
    pub stat: Buf,
    /// Queries.
    pub q: Buf,
    /// Keys.
    pub k: Buf,
    /// Values.
    pub v: Buf,
    /// Whose keys and values.
    pub of: Of,
}

impl Attended {
    fn bufs(&self) -> [Buf; 5] {
        [self.dout, self.stat, self.q, self.k, self.v]
    }
}

impl Back {
    /// What the verb touches and how workers share it.
    pub fn task(&self, l: &Layout) -> Task {
        let read = |b: Buf| Access::Read(l.buf(b));
        let rows = |b: Buf| Access::Write(l.buf(b), Cut::Pieces(l.buf(b).cols));
        let cols = |b: Buf| Access::Write(l.buf(b), Cut::Cols(PANEL));
        let grad = |p: P, group: usize| Access::Write(l.grad(p), Cut::Cols(group));
        match *self {
            Back::Seeds { dx, .. } => vec![rows(dx)],
            Back::Add { out, a, b } => vec![read(a), read(b), rows(out)],
            Back::EmbedDtable { table, dy, .. } => vec![read(dy), grad(table, 16)],
            Back::NormDx { dx, dy, x, gain, add } => {
                let mut task = vec![read(dy), read(x), Access::Write(l.buf(dx), Cut::Pieces(l.width(gain)))];
                task.extend(add.map(read));
                task
            }
            Back::NormDgain { gain, bias, dy, x } => {
                let mut task = vec![read(dy), read(x), grad(gain, 16)];
                task.extend(bias.map(|bias| grad(bias, 16)));
                task
            }
            Back::LinearDx { dx, dy, w, add } => {
                let mut task = vec![read(dy), cols(dx), Access::Scratch(l.dx_scratch(w))];
                task.extend(add.map(read));
                task
            }
            Back::LinearDw { w, dy, x } => {
                let span = l.grad(w);
                let cut = kernels::linear::dw_cut(span.rows, span.cols);
                vec![read(dy), read(x), Access::Write(span, cut), Access::Scratch(l.dw_scratch())]
            }
            Back::BiasDb { bias, dy } => vec![read(dy), grad(bias, 16)],
            Back::RopeDx { dx, dy, .. }
            | Back::LeadDx { dx, dy, .. }
            | Back::RowsDx { dx, dy }
            | Back::MeanDx { dx, dy } => vec![read(dy), rows(dx)],
            Back::AffineDfactors { factors, dy, x } => vec![read(dy), read(x), grad(factors, 16)],
            Back::LeadDtable { table, dy } => vec![read(dy), grad(table, 16)],
            Back::AttendDelta { delta, dout, out } => vec![read(dout), read(out), rows(delta)],
            Back::AttendDq { dq, delta, from } => {
                let mut task: Task = from.bufs().map(read).into();
                let write = Access::Write(l.buf(dq), l.attend_cut(from.q, false));
                task.extend([read(delta), write, Access::Scratch(l.attend_back_scratch())]);
                task
            }
            Back::AttendDkv { dk, dv, delta, from } => {
                let mut task: Task = from.bufs().map(read).into();
                let write = |b: Buf| Access::Write(l.buf(b), l.attend_dkv_cut(from.k));
                task.extend([read(delta), write(dk), write(dv), Access::Scratch(l.attend_back_scratch())]);
                task
            }
            Back::AttendDbias { out, delta, from } => {
                let mut task: Task = from.bufs().map(read).into();
                task.extend([read(delta), rows(out), Access::Scratch(l.attend_back_scratch())]);
                task
            }
            Back::DistancesDb { table, dy } => vec![read(dy), grad(table, 16)],
            Back::ActDx { dx, dup, dy, x, up, .. } => {
                let mut task = vec![read(dy), read(x), cols(dx)];
                task.extend(up.map(read));
                task.extend(dup.map(cols));
                task
            }
            Back::LogprobDx { dx, logits, logprob } => vec![read(logits), read(logprob), rows(dx)],
        }
    }
}
