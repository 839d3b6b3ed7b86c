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
    /// Buffers that are read.
    pub fn reads(&self) -> Vec<Buf> {
        let with =
            |reads: &[Buf], add: Option<Buf>| -> Vec<Buf> { reads.iter().copied().chain(add).collect() };
        match *self {
            Back::Seeds { .. } => Vec::new(),
            Back::Add { a, b, .. } => vec![a, b],
            Back::NormDx { dy, x, add, .. } => with(&[dy, x], add),
            Back::LinearDx { dy, add, .. } => with(&[dy], add),
            Back::ActDx { dy, x, up, .. } => with(&[dy, x], up),
            Back::NormDgain { dy, x, .. }
            | Back::LinearDw { dy, x, .. }
            | Back::AffineDfactors { dy, x, .. } => vec![dy, x],
            Back::AttendDelta { dout, out, .. } => vec![dout, out],
            Back::AttendDq { delta, from, .. }
            | Back::AttendDkv { delta, from, .. }
            | Back::AttendDbias { delta, from, .. } => with(&from.bufs(), Some(delta)),
            Back::LogprobDx { logits, logprob, .. } => vec![logits, logprob],
            Back::EmbedDtable { dy, .. }
            | Back::BiasDb { dy, .. }
            | Back::RopeDx { dy, .. }
            | Back::DistancesDb { dy, .. }
            | Back::LeadDx { dy, .. }
            | Back::LeadDtable { dy, .. }
            | Back::RowsDx { dy, .. }
            | Back::MeanDx { dy, .. } => vec![dy],
        }
    }

    /// What the verb touches and how workers share it.
    pub fn task(&self, l: &Layout) -> Task {
        let rows = |b: Buf| Access::Write(l.buf(b), Cut::Pieces(l.buf(b).cols));
        let cols = |b: Buf| Access::Write(l.buf(b), Cut::Cols(PANEL));
        let grad = |p: P, group: usize| Access::Write(l.grad(p), Cut::Cols(group));
        let attends = || Access::Scratch(l.attend_back_scratch());
        let mut task: Task = self.reads().into_iter().map(|b| Access::Read(l.buf(b))).collect();
        match *self {
            Back::Seeds { dx, .. }
            | Back::Add { out: dx, .. }
            | Back::RopeDx { dx, .. }
            | Back::LeadDx { dx, .. }
            | Back::RowsDx { dx, .. }
            | Back::MeanDx { dx, .. }
            | Back::AttendDelta { delta: dx, .. }
            | Back::LogprobDx { dx, .. } => task.push(rows(dx)),
            Back::EmbedDtable { table: p, .. }
            | Back::BiasDb { bias: p, .. }
            | Back::AffineDfactors { factors: p, .. }
            | Back::LeadDtable { table: p, .. }
            | Back::DistancesDb { table: p, .. } => task.push(grad(p, 16)),
            Back::NormDx { dx, gain, .. } => {
                task.push(Access::Write(l.buf(dx), Cut::Pieces(l.width(gain))));
            }
            Back::NormDgain { gain, bias, .. } => {
                task.push(grad(gain, 16));
                task.extend(bias.map(|bias| grad(bias, 16)));
            }
            Back::LinearDx { dx, w, .. } => task.extend([cols(dx), Access::Scratch(l.dx_scratch(w))]),
            Back::LinearDw { w, .. } => {
                let span = l.grad(w);
                let cut = kernels::linear::dw_cut(span.rows, span.cols);
                task.extend([Access::Write(span, cut), Access::Scratch(l.dw_scratch())]);
            }
            Back::AttendDq { dq, from, .. } => {
                task.extend([Access::Write(l.buf(dq), l.attend_cut(from.q, false)), attends()]);
            }
            Back::AttendDkv { dk, dv, from, .. } => {
                let write = |b: Buf| Access::Write(l.buf(b), l.attend_dkv_cut(from.k));
                task.extend([write(dk), write(dv), attends()]);
            }
            Back::AttendDbias { out, .. } => task.extend([rows(out), attends()]),
            Back::ActDx { dx, dup, .. } => {
                task.push(cols(dx));
                task.extend(dup.map(cols));
            }
        }
        task
    }
}
