//! Floor 4: the backward half of a program: the forward list, walked in reverse, writes it. Computes nothing.
//!
//! There is no "save for backward": a buffer that the second half reads lives longer, and the layout sees to that. Blocks may
//! be computed again instead: see [`again`].

mod again;
pub mod run;
pub mod verb;

use crate::arch::{Arch, Position, Side};
use crate::block;
use crate::crossing::Crossing;
use crate::exec::{Exec, Shape, Want};
use crate::learns::Learns;
use crate::verb::{Buf, Of, Verb};
use crate::weights::{P, Weights};
use kernels::Ops;
use kernels::linear::Pack;
use std::ops::Range;
use verb::{Attended, Back, By, Seed};

/// Where gradients enter a program, and where they go. Those of an encoder before a decoder enter by what crosses to it.
#[derive(Clone, Copy)]
pub struct Ends {
    /// What the model answers; seeds are its derivatives where nothing is scored.
    pub answer: Buf,
    /// Whether log-probabilities are: then seeds belong to them.
    pub scored: bool,
    /// What the value head says.
    pub values: Option<Buf>,
    /// The stack's biases by distance.
    pub distances: Option<P>,
}

/// Writes the backward half of what `e` has written so far.
pub fn backward(e: &mut Exec, learns: &Learns, ends: Ends) {
    let (verbs, crossing) = (e.verbs.clone(), e.crossing.clone());
    let all = Past { verbs: &verbs, crossing: &crossing, distances: ends.distances };
    let is_read_by_others = e.writes_source();
    let mut tape = Tape::new(e, learns, all);
    if is_read_by_others {
        tape.seed_crossing(&crossing);
    } else if !ends.scored {
        tape.seed(ends.answer, Seed::Answer);
    }
    if let Some(values) = ends.values {
        tape.seed(values, Seed::Values);
    }
    let blocks = if learns.recompute { tape.e.blocks.clone() } else { Vec::new() };
    let mut end = verbs.len();
    for block in blocks.iter().rev() {
        tape.walk(all, block.verbs.end..end);
        tape.again(all, block);
        end = block.verbs.start;
    }
    tape.walk(all, 0..end);
}

/// Whether anything learns that the encoder before a decoder reads, or what makes keys and values of what it returns.
pub fn encoder_learns(a: &Arch, m: &Weights, ops: &'static Ops, learns: &Learns) -> bool {
    let shape = Shape { side: Side::Encoder, want: Want::Hidden, ..Shape::decode(1, 1) };
    let mut e = Exec::new(a, ops, shape, None);
    block::model(&mut e, m);
    let all = Past { verbs: &e.verbs, crossing: &[], distances: e.stack_of(m).distances };
    e.verbs.iter().any(|verb| all.params(verb).any(|p| learns.has(p)))
}

/// What stands before a verb.
#[derive(Clone, Copy)]
struct Past<'v> {
    verbs: &'v [Verb],
    crossing: &'v [(Buf, Crossing)],
    distances: Option<P>,
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
    fn new(e: &'e mut Exec<'m>, learns: &'l Learns, all: Past) -> Self {
        let mut wanted = vec![false; e.bufs.len()];
        if !e.writes_source() && learns.encoder {
            all.crossing.iter().for_each(|(b, _)| wanted[b.0 as usize] = true);
        }
        for (at, verb) in all.verbs.iter().enumerate() {
            let (past, Some(out)) = (all.until(at), verb.writes()) else { continue };
            let learned = past.params(verb).any(|p| learns.has(p));
            let reached = verb.reads().chain(past.kept(verb)).any(|b| wanted[b.0 as usize]);
            wanted[out.0 as usize] = learned || reached;
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

    /// What the decoder will have said of the keys and values that it reads.
    fn seed_crossing(&mut self, crossing: &[(Buf, Crossing)]) {
        for &(x, place) in crossing {
            if self.wants(x) {
                let dx = self.cross(x, place);
                self.settle(x, dx);
            }
        }
    }

    /// The gradient of what crosses.
    fn cross(&mut self, x: Buf, place: Crossing) -> Buf {
        let dx = self.like(x);
        self.e.crossing.push((dx, place.grad()));
        dx
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

    /// Writes what flows through some of the verbs, the last one first.
    fn walk(&mut self, all: Past, verbs: Range<usize>) {
        for at in verbs.rev() {
            self.verb(all.until(at), &all.verbs[at]);
        }
    }

    fn verb(&mut self, past: Past, verb: &Verb) {
        match *verb {
            Verb::Append { .. } | Verb::Pack { .. } | Verb::Back(_) => {} // their readers name what they read
            Verb::Merge { .. } => unreachable!("a program that learns splits no attention"),
            Verb::Logprob { out, logits } => {
                self.flow(logits, |dx| Back::LogprobDx { dx, logits, logprob: out });
            }
            _ => {
                let Some(out) = verb.writes() else { return };
                let Some(dy) = self.grad_of(out) else { return };
                self.through(past, verb, dy);
            }
        }
    }

    fn through(&mut self, past: Past, verb: &Verb, dy: Buf) {
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
                } else {
                    self.bias(bias, dy);
                }
                self.flow_onto(x, |dx, add| Back::NormDx { dx, dy, x, gain, add });
                self.flow_same(add, dy);
            }
            Verb::Linear { x, w, bias, add, .. } => {
                let x = past.unpacked(x);
                if self.learns.has(w) {
                    self.push(Back::LinearDw { w, dy, x });
                }
                self.bias(bias, dy);
                if self.wants(x) {
                    let packed = self.e.pack(dy, Pack::F32);
                    self.flow_onto(x, |dx, add| Back::LinearDx { dx, dy: packed, w, add });
                }
                self.flow_same(add, dy);
            }
            Verb::Rope { x, local, .. } => self.flow(x, |dx| Back::RopeDx { dx, dy, local }),
            Verb::Attend { layer, out, q, of, stat: Some(stat), .. } => {
                let Some((k, v)) = past.appended(layer, of) else { return };
                self.attend(past, out, Attended { dout: dy, stat, q, k, v, of });
            }
            Verb::Act { x, up, act, .. } => {
                let (dx, dup) = (self.like(x), up.map(|up| self.like(up)));
                self.push(Back::ActDx { dx, dup, dy, x, up, act });
                for (of, grad) in [(Some(x), Some(dx)), (up, dup)] {
                    if let (Some(of), Some(grad)) = (of.filter(|of| self.wants(*of)), grad) {
                        self.settle(of, grad);
                    }
                }
            }
            Verb::Affine { x, factors, shifts, add, .. } => {
                self.affine(x, [factors, shifts], dy);
                self.flow_same(add, dy);
            }
            Verb::Lead { x, table, .. } => {
                let tokens = self.learns.span(table).map_or(0, |span| span.rows);
                if tokens > 0 {
                    self.push(Back::LeadDtable { table, dy });
                }
                self.flow(x, |dx| Back::LeadDx { dx, dy, tokens });
            }
            Verb::Rows { x, .. } => self.flow(x, |dx| Back::RowsDx { dx, dy }),
            Verb::Mean { x, .. } => self.flow(x, |dx| Back::MeanDx { dx, dy }),
            _ => {}
        }
    }

    fn bias(&mut self, bias: Option<P>, dy: Buf) {
        if let Some(bias) = bias.filter(|bias| self.learns.has(*bias)) {
            self.push(Back::BiasDb { bias, dy });
        }
    }

    fn affine(&mut self, x: Buf, [factors, shifts]: [Option<P>; 2], dy: Buf) {
        if let Some(factors) = factors.filter(|p| self.learns.has(*p)) {
            self.push(Back::AffineDfactors { factors, dy, x });
        }
        self.bias(shifts, dy);
        match factors {
            None => self.flow_same(Some(x), dy),
            Some(_) if !self.wants(x) => {}
            Some(_) => {
                let dx = self.e.affine(dy, factors, None, self.grad_of(x));
                self.grad[x.0 as usize] = Some(dx);
            }
        }
    }

    fn table(&mut self, table: Option<P>, dy: Buf, by: By, scale: f32) {
        if let Some(table) = table.filter(|table| self.learns.has(*table)) {
            self.push(Back::EmbedDtable { table, dy, by, scale });
        }
    }

    fn attend(&mut self, past: Past, out: Buf, from: Attended) {
        let (rows, cols) = self.e.bufs[from.stat.0 as usize];
        let delta = self.e.buf(rows, cols / 2);
        self.push(Back::AttendDelta { delta, dout: from.dout, out });
        self.flow(from.q, |dq| Back::AttendDq { dq, delta, from });
        if self.wants(from.k) || self.wants(from.v) {
            let [dk, dv] = [from.k, from.v].map(|x| match past.place(x).filter(|_| from.of == Of::Source) {
                Some(place) => self.cross(x, place),
                None => self.like(x),
            });
            self.push(Back::AttendDkv { dk, dv, delta, from });
            self.flow_same(Some(from.k), dk);
            self.flow_same(Some(from.v), dv);
        }
        if let (Some(table), Of::Own { .. }) = (past.distances.filter(|p| self.learns.has(*p)), from.of) {
            self.distances(table, delta, from);
        }
    }

    /// The biases by distance that a block added to its scores.
    fn distances(&mut self, table: P, delta: Buf, from: Attended) {
        let stack = self.e.stack();
        let Position::Relative { far, .. } = stack.position else { return };
        let by_distance = self.e.buf(stack.n_heads, 2 * far + 1);
        self.push(Back::AttendDbias { out: by_distance, delta, from });
        self.push(Back::DistancesDb { table, dy: by_distance });
    }
}

impl<'v> Past<'v> {
    /// What stands before verb `at`.
    fn until(self, at: usize) -> Past<'v> {
        Past { verbs: &self.verbs[..at], ..self }
    }

    /// What a linear reads, before it was packed.
    fn unpacked(self, packed: Buf) -> Buf {
        let source = self.verbs.iter().rev().find_map(|verb| match verb {
            Verb::Pack { out, x, .. } if *out == packed => Some(*x),
            _ => None,
        });
        source.unwrap_or(packed)
    }

    /// Keys and values that attention sees, as they were appended, or as an encoder left them.
    fn appended(self, layer: u32, of: Of) -> Option<(Buf, Buf)> {
        if of == Of::Source {
            let find = |wanted| self.crossing.iter().find(|(_, place)| *place == wanted).map(|(b, _)| *b);
            let [k, v] = Crossing::pair(layer as usize).map(find);
            return k.zip(v);
        }
        self.verbs.iter().rev().find_map(|verb| match *verb {
            Verb::Append { layer: at, k, v, of } if at == layer && of != Of::Source => Some((k, v)),
            _ => None,
        })
    }

    /// Where a buffer crosses.
    fn place(self, b: Buf) -> Option<Crossing> {
        self.crossing.iter().find(|(known, _)| *known == b).map(|(_, place)| *place)
    }

    /// What a verb reads that it does not name: attention, keys and values as they were appended.
    fn kept(self, verb: &Verb) -> impl Iterator<Item = Buf> {
        let kept = match *verb {
            Verb::Attend { layer, of, .. } => self.appended(layer, of).map(|(k, v)| [k, v]),
            _ => None,
        };
        kept.into_iter().flatten()
    }

    /// Parameters that a verb reads.
    fn params(self, verb: &Verb) -> impl Iterator<Item = P> {
        let all = match *verb {
            Verb::Embed { tokens, positions, types, .. } => [Some(tokens), positions, types],
            Verb::Places { positions, .. } => [Some(positions), None, None],
            Verb::Norm { gain, bias, .. } => [Some(gain), bias, None],
            Verb::Linear { w, bias, .. } => [Some(w), bias, None],
            Verb::Affine { factors, shifts, .. } => [factors, shifts, None],
            Verb::Lead { table, .. } => [Some(table), None, None],
            Verb::Attend { of: Of::Own { .. }, .. } => [self.distances, None, None],
            _ => [None; 3],
        };
        all.into_iter().flatten()
    }
}
