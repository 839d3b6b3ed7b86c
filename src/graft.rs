//! Floor 4: what adapters add to a program: their verbs, how `Exec` writes them around the model's own, and how a worker
//! runs them. Knows no files.
//!
//! Rows of a call may have different adapters, or none: every verb looks up the rows' adapters in the tables. What a
//! narrow product adds is computed before the model's own product and enters where the residual does, so
//! `out = (x W^T + bias) + (residual + B A x)`: no pass over the outputs is spent, epilogues stay what they are, and rows
//! without an adapter have the bits of a program without one. Programs without adapters have none of these verbs.

mod learning;
mod run;

pub use run::run;

use crate::adapter::{Grafts, Need};
use crate::exec::Exec;
use crate::layout::Layout;
use crate::verb::{Buf, Of, Verb};
use crate::weights::{LinearW, NormW, P, Role};
use kernels::graft::CUT;
use kernels::linear::PANEL;
use kernels::{Access, Cut, Task};
use std::ops::Range;
use std::sync::Arc;

/// Rows that have adapters.
pub struct Grafted {
    /// Which rows of the call.
    pub rows: Range<usize>,
    /// Which rows of the answer.
    pub picks: Range<usize>,
    /// Which adapters.
    pub by: Arc<Grafts>,
}

/// A step for the adapters of a place. Rows without any pass what they would have been.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Graft {
    /// `[rows, rank]`: `scale * A x`; other columns hold anything.
    Down { out: Buf, x: Buf, site: u32 },
    /// The same of a table: the columns of `A` that the rows' tokens name.
    Lookup { out: Buf, site: u32 },
    /// `add + B t + W' x`: `t` from narrow products, `x` what whole matrices read.
    Up { out: Buf, t: Option<Buf>, x: Option<Buf>, add: Option<Buf>, site: u32 },
    /// `add + B t + (row of T' - row of T)`, of a table.
    Entry { out: Buf, t: Option<Buf>, add: Buf, table: P, site: u32 },
    /// `[rows, neck]`: `scale * act(down x + bias)` of small MLPs; `raw` and `sum` are what they read.
    Squeeze { out: Buf, raw: Option<Buf>, sum: Option<Buf>, site: u32 },
    /// `add` plus what small MLPs make of `t`.
    Widen { out: Buf, t: Buf, add: Buf, site: u32 },
    /// Inputs times factors.
    Scale { out: Buf, x: Buf, site: u32 },
    /// `y + add`.
    Sum { out: Buf, y: Buf, add: Option<Buf> },
    /// `y * factors + shifts + add`.
    Adjust { out: Buf, y: Buf, add: Option<Buf>, site: u32 },
    /// Vectors of a prompt in the place of tokens' own, plus rows of the tables of positions and types.
    Prompt { out: Buf, positions: Option<P>, types: Option<P> },
    /// Keys or values of a prefix for one block.
    Prefix { out: Buf, layer: u32, values: bool },
    /// The norm of `x` with other parameters, plus `add`; `y` where the rows have none.
    Norm { out: Buf, y: Buf, x: Buf, add: Option<Buf>, width: usize, site: u32 },
}

impl Graft {
    /// Buffers that are read.
    pub fn reads(&self) -> [Option<Buf>; 3] {
        match *self {
            Graft::Lookup { .. } | Graft::Prompt { .. } | Graft::Prefix { .. } => [None; 3],
            Graft::Down { x, .. } | Graft::Scale { x, .. } => [Some(x), None, None],
            Graft::Up { t, x, add, .. } => [t, x, add],
            Graft::Entry { t, add, .. } => [t, Some(add), None],
            Graft::Squeeze { raw, sum, .. } => [raw, sum, None],
            Graft::Widen { t, add, .. } => [Some(t), Some(add), None],
            Graft::Adjust { y, add, .. } | Graft::Sum { y, add, .. } => [Some(y), add, None],
            Graft::Norm { y, x, add, .. } => [Some(y), Some(x), add],
        }
    }

    /// The buffer that is written.
    pub fn writes(&self) -> Buf {
        match *self {
            Graft::Down { out, .. }
            | Graft::Lookup { out, .. }
            | Graft::Up { out, .. }
            | Graft::Entry { out, .. }
            | Graft::Scale { out, .. }
            | Graft::Squeeze { out, .. }
            | Graft::Widen { out, .. }
            | Graft::Sum { out, .. }
            | Graft::Prompt { out, .. }
            | Graft::Prefix { out, .. }
            | Graft::Adjust { out, .. }
            | Graft::Norm { out, .. } => out,
        }
    }

    /// What the step touches and how workers share it.
    pub fn task(&self, l: &Layout) -> Task {
        let read = |b: Buf| Access::Read(l.buf(b));
        let out = l.buf(self.writes());
        let cut = match *self {
            Graft::Down { .. } | Graft::Squeeze { .. } => CUT,
            Graft::Lookup { .. } | Graft::Prompt { .. } | Graft::Prefix { .. } => Cut::Pieces(out.cols),
            Graft::Norm { width, .. } => Cut::Pieces(width),
            _ => Cut::Cols(PANEL),
        };
        let mut task = vec![Access::Write(out, cut)];
        for b in self.reads().into_iter().flatten() {
            if !task.contains(&read(b)) {
                task.push(read(b));
            }
        }
        task
    }
}

impl Exec<'_> {
    /// What the call's rows need where `w` plays this role.
    fn need(&self, role: Role, w: P) -> Option<(u32, Need)> {
        let site = self.sites()?.find(role, w)?;
        let need = *self.needs().get(site as usize)?;
        need.any().then_some((site, need))
    }

    /// `x W^T + bias + add` with the adapters of this place; `None` where no row has any.
    pub fn grafted(&mut self, x: Buf, w: &LinearW, add: Option<Buf>) -> Option<Buf> {
        let (site, need) = self.need(Role::Linear, w.w)?;
        if need.neck == 0 {
            return Some(self.grafted_linear(x, w, add, (site, need)));
        }
        let (raw, full) = if need.raw {
            let y = self.grafted_linear(x, w, None, (site, need));
            let out = self.like(y);
            self.verbs.push(Verb::Graft(Graft::Sum { out, y, add }));
            (Some(y), out)
        } else {
            (None, self.grafted_linear(x, w, add, (site, need)))
        };
        let after = self.sites().and_then(|sites| sites.list()[site as usize].after);
        let sum = need.sum.then(|| self.maybe_norm(full, after));
        let rows = self.bufs[x.0 as usize].0;
        let t = self.buf(rows, need.neck as usize);
        self.verbs.push(Verb::Graft(Graft::Squeeze { out: t, raw, sum, site }));
        let out = self.like(full);
        self.verbs.push(Verb::Graft(Graft::Widen { out, t, add: full, site }));
        Some(out)
    }

    /// The same without small MLPs.
    fn grafted_linear(&mut self, x: Buf, w: &LinearW, add: Option<Buf>, (site, need): (u32, Need)) -> Buf {
        let rows = self.bufs[x.0 as usize].0;
        let t = (need.rank > 0).then(|| {
            let out = self.buf(rows, need.rank as usize);
            self.verbs.push(Verb::Graft(Graft::Down { out, x, site }));
            out
        });
        let mut delta = add;
        if t.is_some() || need.full {
            let (out, x) = (self.buf(rows, w.n), need.full.then_some(x));
            self.verbs.push(Verb::Graft(Graft::Up { out, t, x, add, site }));
            delta = Some(out);
        }
        let mut input = x;
        if need.inputs {
            input = self.like(x);
            self.verbs.push(Verb::Graft(Graft::Scale { out: input, x, site }));
        }
        if !need.outputs {
            return self.plain_linear(input, w, delta);
        }
        let y = self.plain_linear(input, w, None);
        let out = self.like(y);
        self.verbs.push(Verb::Graft(Graft::Adjust { out, y, add: delta, site }));
        out
    }

    /// Embeddings `h` with the adapters of the table of tokens.
    pub fn grafted_table(&mut self, h: Buf, tokens: P) -> Buf {
        let Some((site, need)) = self.need(Role::Table, tokens) else { return h };
        let rows = self.bufs[h.0 as usize].0;
        let t = (need.rank > 0).then(|| {
            let out = self.buf(rows, need.rank as usize);
            self.verbs.push(Verb::Graft(Graft::Lookup { out, site }));
            out
        });
        let out = self.like(h);
        self.verbs.push(Verb::Graft(Graft::Entry { out, t, add: h, table: tokens, site }));
        out
    }

    /// Keys and values of a prefix, appended to the pages of every block.
    pub fn prefix(&mut self) -> Buf {
        let (rows, stack) = (self.rows(), self.stack());
        let mut last = self.buf(rows, stack.kv_cols());
        self.verbs.push(Verb::Graft(Graft::Prefix { out: last, layer: 0, values: false }));
        for layer in 0..stack.n_layers as u32 {
            let [k, v] = [false, true].map(|values| {
                let out = self.buf(rows, stack.kv_cols());
                self.verbs.push(Verb::Graft(Graft::Prefix { out, layer, values }));
                out
            });
            let window = stack.attention().window_of(layer as usize);
            self.verbs.push(Verb::Append { layer, k, v, of: Of::Own { window } });
            last = v;
        }
        last
    }

    /// The norm `y` of `x`, plus `add`, with the adapters of its parameters.
    pub fn grafted_norm(&mut self, y: Buf, x: Buf, w: NormW, add: Option<Buf>) -> Buf {
        let Some((site, _)) = self.need(Role::Norm, w.gain) else { return y };
        let (out, width) = (self.like(y), w.width);
        self.verbs.push(Verb::Graft(Graft::Norm { out, y, x, add, width, site }));
        out
    }
}
