//! Floor 4: the backward half of a program: the forward list, walked in reverse, writes it. Computes nothing.
//!
//! There is no "save for backward": a buffer that the second half reads lives longer, and the layout sees to that.

pub mod run;
pub mod verb;

use crate::exec::Exec;
use crate::learns::Learns;
use crate::verb::{Buf, Of, Verb};
use crate::weights::P;
use kernels::linear::Pack;
use verb::{Attended, Back, By, Seed};

/// Where gradients enter a program.
#[derive(Clone, Copy)]
pub struct Ends {
    /// What the model answers; seeds are its derivatives where nothing is scored.
    pub answer: Buf,
    /// Whether log-probabilities are: then seeds belong to them.
    pub scored: bool,
    /// What the value head says.
    pub values: Option<Buf>,
}

/// Writes the backward half of what `e` has written so far.
pub fn backward(e: &mut Exec, learns: &Learns, ends: Ends) {
    let verbs = e.verbs.clone();
    let mut tape = Tape::new(e, learns, &verbs);
    if !ends.scored {
        tape.seed(ends.answer, Seed::Answer);
    }
    if let Some(values) = ends.values {
        tape.seed(values, Seed::Values);
    }
    for (at, verb) in verbs.iter().enumerate().rev() {
        tape.verb(&verbs[..at], verb);
    }
}

struct Tape<'e, 'm, 'l> {
    e: &'e mut Exec<'m>,
    learns: &'l Learns,
    /// The gradient of each forward buffer, once something has flowed to it.
    grad: Vec<Option<Buf>>,
    /// Whether anything that learns lies behind a buffer.
    wanted: Vec<bool>,
}

impl<'e, 'm, 'l> Tape<'e, 'm, 'l> {
    fn new(e: &'e mut Exec<'m>, learns: &'l Learns, verbs: &[Verb]) -> Self {
        let mut wanted = vec![false; e.bufs.len()];
        for (at, verb) in verbs.iter().enumerate() {
            let (out, inputs, params) = ties(&verbs[..at], verb);
            if let Some(out) = out {
                let learned = params.into_iter().flatten().any(|p| learns.has(p));
                let reached = inputs.into_iter().flatten().any(|b| wanted[b.0 as usize]);
                wanted[out.0 as usize] = learned || reached;
            }
        }
        Tape { grad: vec![None; e.bufs.len()], e, learns, wanted }
    }

    fn push(&mut self, back: Back) {
        self.e.verbs.push(Verb::Back(back));
    }

    fn grad_of(&self, b: Buf) -> Option<Buf> {
        self.grad[b.0 as usize]
    }

    fn wants(&self, b: Buf) -> bool {
        self.wanted[b.0 as usize]
    }

    fn like(&mut self, b: Buf) -> Buf {
        let (rows, cols) = self.e.bufs[b.0 as usize];
        self.e.buf(rows, cols)
    }

    fn seed(&mut self, of: Buf, seed: Seed) {
        if self.wants(of) {
            let dx = self.like(of);
            self.push(Back::Seeds { dx, of: seed });
            self.settle(of, dx);
        }
    }

    /// `dx` flows to `x`, beside what has flowed there already.
    fn settle(&mut self, x: Buf, dx: Buf) {
        let sum = match self.grad_of(x) {
            None => dx,
            Some(a) => {
                let out = self.like(x);
                self.push(Back::Add { out, a, b: dx });
                out
            }
        };
        self.grad[x.0 as usize] = Some(sum);
    }

    /// A verb writes what flows to `x`.
    fn flow(&mut self, x: Buf, write: impl FnOnce(Buf) -> Back) {
        if self.wants(x) {
            let dx = self.like(x);
            self.push(write(dx));
            self.settle(x, dx);
        }
    }

    /// A verb adds what flows to `x` to what has flowed there already.
    fn flow_onto(&mut self, x: Buf, write: impl FnOnce(Buf, Option<Buf>) -> Back) {
        if self.wants(x) {
            let dx = self.like(x);
            let back = write(dx, self.grad_of(x));
            self.push(back);
            self.grad[x.0 as usize] = Some(dx);
        }
    }

    /// The gradient of a sum is that of each of its terms.
    fn flow_same(&mut self, x: Option<Buf>, dy: Buf) {
        if let Some(x) = x.filter(|x| self.wants(*x)) {
            self.settle(x, dy);
        }
    }

    fn verb(&mut self, before: &[Verb], verb: &Verb) {
        match *verb {
            Verb::Append { .. } | Verb::Pack { .. } | Verb::Back(_) => {} // their readers name what they read
            Verb::Merge { .. } => unreachable!("a program that learns splits no attention"),
            Verb::Logprob { out, logits } => {
                self.flow(logits, |dx| Back::LogprobDx { dx, logits, logprob: out });
            }
            _ => {
                let (Some(out), ..) = ties(before, verb) else { return };
                let Some(dy) = self.grad_of(out) else { return };
                self.through(before, verb, dy);
            }
        }
    }

    fn through(&mut self, before: &[Verb], verb: &Verb, dy: Buf) {
        match *verb {
            Verb::Embed { tokens, positions, types, .. } => {
                let scale = self.e.stack().embed.scale;
                let tables =
                    [(Some(tokens), By::Ids, scale), (positions, By::Places, 1.0), (types, By::Types, 1.0)];
                for (table, by, scale) in tables {
                    self.table(table, dy, by, scale);
                }
            }
            Verb::Places { positions, .. } => self.table(Some(positions), dy, By::Places, 1.0),
            Verb::Norm { x, gain, bias, add, .. } => {
                if self.learns.has(gain) {
                    let bias = bias.filter(|bias| self.learns.has(*bias));
                    self.push(Back::NormDgain { gain, bias, dy, x });
                } else if let Some(bias) = bias.filter(|bias| self.learns.has(*bias)) {
                    self.push(Back::BiasDb { bias, dy });
                }
                self.flow_onto(x, |dx, add| Back::NormDx { dx, dy, x, gain, add });
                self.flow_same(add, dy);
            }
            Verb::Linear { x, w, bias, add, .. } => {
                let x = unpacked(before, x);
                if self.learns.has(w) {
                    self.push(Back::LinearDw { w, dy, x });
                }
                if let Some(bias) = bias.filter(|bias| self.learns.has(*bias)) {
                    self.push(Back::BiasDb { bias, dy });
                }
                if self.wants(x) {
                    let packed = self.e.pack(dy, Pack::F32);
                    self.flow_onto(x, |dx, add| Back::LinearDx { dx, dy: packed, w, add });
                }
                self.flow_same(add, dy);
            }
            Verb::Rope { x, local, .. } => self.flow(x, |dx| Back::RopeDx { dx, dy, local }),
            Verb::Attend { layer, out, q, of, stat: Some(stat), .. } => {
                let Some((k, v)) = appended(before, layer, of) else { return };
                self.attend(out, Attended { dout: dy, stat, q, k, v, of });
            }
            Verb::Act { x, up, act, .. } => {
                let dx = self.like(x);
                let dup = up.map(|up| self.like(up));
                self.push(Back::ActDx { dx, dup, dy, x, up, act });
                for (of, grad) in [(Some(x), Some(dx)), (up, dup)] {
                    if let (Some(of), Some(grad)) = (of.filter(|of| self.wants(*of)), grad) {
                        self.settle(of, grad);
                    }
                }
            }
            Verb::Rows { x, .. } => self.flow(x, |dx| Back::RowsDx { dx, dy }),
            Verb::Mean { x, .. } => self.flow(x, |dx| Back::MeanDx { dx, dy }),
            _ => {}
        }
    }

    fn table(&mut self, table: Option<P>, dy: Buf, by: By, scale: f32) {
        if let Some(table) = table.filter(|table| self.learns.has(*table)) {
            self.push(Back::EmbedDtable { table, dy, by, scale });
        }
    }

    fn attend(&mut self, out: Buf, from: Attended) {
        let (rows, cols) = self.e.bufs[from.stat.0 as usize];
        let delta = self.e.buf(rows, cols / 2);
        let [dq, dk, dv] = [from.q, from.k, from.v].map(|x| self.like(x));
        self.push(Back::AttendDelta { delta, dout: from.dout, out });
        if self.wants(from.q) {
            self.push(Back::AttendDq { dq, delta, from });
        }
        if self.wants(from.k) || self.wants(from.v) {
            self.push(Back::AttendDkv { dk, dv, delta, from });
        }
        for (x, dx) in [(from.q, dq), (from.k, dk), (from.v, dv)] {
            if self.wants(x) {
                self.settle(x, dx);
            }
        }
    }
}

/// What a linear reads, before it was packed.
fn unpacked(before: &[Verb], packed: Buf) -> Buf {
    let source = before.iter().rev().find_map(|verb| match verb {
        Verb::Pack { out, x, .. } if *out == packed => Some(*x),
        _ => None,
    });
    source.unwrap_or(packed)
}

/// Keys and values that attention sees, as they were appended.
fn appended(before: &[Verb], layer: u32, of: Of) -> Option<(Buf, Buf)> {
    let source = of == Of::Source;
    before.iter().rev().find_map(|verb| match *verb {
        Verb::Append { layer: at, k, v, of } if at == layer && (of == Of::Source) == source => Some((k, v)),
        _ => None,
    })
}

/// What a verb writes, and what that depends on: buffers and parameters.
fn ties(before: &[Verb], verb: &Verb) -> (Option<Buf>, [Option<Buf>; 3], [Option<P>; 3]) {
    let (none, nobody) = ([None; 3], [None; 3]);
    match *verb {
        Verb::Embed { out, tokens, positions, types } => (Some(out), none, [Some(tokens), positions, types]),
        Verb::Places { out, positions } => (Some(out), none, [Some(positions), None, None]),
        Verb::Norm { out, x, gain, bias, add, .. } => {
            (Some(out), [Some(x), add, None], [Some(gain), bias, None])
        }
        Verb::Linear { out, x, w, bias, add, .. } => {
            (Some(out), [Some(unpacked(before, x)), add, None], [Some(w), bias, None])
        }
        Verb::Attend { layer, out, q, of, .. } => {
            let (k, v) = appended(before, layer, of).unzip();
            (Some(out), [Some(q), k, v], nobody)
        }
        Verb::Act { out, x, up, .. } => (Some(out), [Some(x), up, None], nobody),
        Verb::Pack { out, x, .. }
        | Verb::Rope { out, x, .. }
        | Verb::Rows { out, x }
        | Verb::Mean { out, x }
        | Verb::Merge { out, parts: x, .. }
        | Verb::Logprob { out, logits: x } => (Some(out), [Some(x), None, None], nobody),
        // Who learns runs without adapters of others.
        Verb::Append { .. } | Verb::Back(_) | Verb::Graft(_) => (None, none, nobody),
    }
}
