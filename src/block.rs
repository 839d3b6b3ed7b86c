//! Floor 4: the transformer, once: for every family and every device. Writes verbs, computes nothing.

use crate::arch::{Mlp, Position};
use crate::exec::{Exec, Want};
use crate::verb::Buf;
use crate::weights::{AroundW, AttentionW, HeadW, Layer, LinearW, StackW, Weights};
use std::ops::Range;

/// A block that was written.
#[cfg_attr(not(feature = "train"), expect(dead_code))] // who learns asks
#[derive(Clone, Debug)]
pub struct Block {
    /// Its verbs.
    pub verbs: Range<usize>,
    /// The buffers that came with it.
    pub bufs: Range<u32>,
    /// The one that is read after it.
    pub out: Buf,
}

/// Tokens to what is wanted of the picked rows; an encoder's output also becomes keys and values for the decoder.
pub fn model(e: &mut Exec, m: &Weights) -> Buf {
    let w = e.stack_of(m);
    let mut h = embed(e, w);
    for (i, layer) in w.layers.iter().enumerate() {
        let (verbs, bufs) = (e.verbs.len(), e.bufs.len() as u32);
        h = block(e, layer, i, h);
        e.blocks.push(Block { verbs: verbs..e.verbs.len(), bufs: bufs..e.bufs.len() as u32, out: h });
    }
    h = match (e.writes_source(), e.picks_rows()) {
        (false, true) => {
            let h = e.pick(h);
            e.maybe_norm(h, w.norm)
        }
        (source, _) => {
            let h = e.maybe_norm(h, w.norm);
            if source {
                source_keys(e, m, h);
            }
            e.pick(h)
        }
    };
    if let Some(project) = &w.project_out {
        h = e.linear(h, project);
    }
    e.value(h, m.value.as_ref());
    match &m.head {
        Some(w) if e.want() == Want::Head => head(e, w, h),
        _ => h,
    }
}

fn embed(e: &mut Exec, w: &StackW) -> Buf {
    let (of_tokens, of_stream) = match e.stack().places_stream() {
        true => (None, w.positions),
        false => (w.positions, None),
    };
    let mut h = e.embed(w.tokens, of_tokens, w.types);
    if let Some(prompt) = w.prompt {
        h = e.lead(h, prompt, of_tokens, w.types);
    }
    let h = e.maybe_norm(h, w.embed_norm);
    match (&w.project, of_stream) {
        (Some(project), Some(positions)) => {
            let places = e.places(positions);
            e.linear_add(h, project, places)
        }
        (Some(project), None) => e.linear(h, project),
        (None, _) => h,
    }
}

/// Keys and values of every block of the decoder that attends to `h`, the encoder's output.
fn source_keys(e: &mut Exec, m: &Weights, h: Buf) {
    let layers = m.decoder.iter().flat_map(|decoder| &decoder.layers);
    for (i, cross) in layers.filter_map(|layer| layer.cross.as_ref()).enumerate() {
        let (k, v) = (e.linear(h, &cross.k), e.linear(h, &cross.v));
        e.append_source(i, k, v);
    }
}

/// One block: attention, attention to the source, the MLP, each with its norms and beside a residual.
fn block(e: &mut Exec, w: &Layer, layer: usize, h: Buf) -> Buf {
    let x = e.maybe_norm(h, w.attn.around.before);
    let o = attend(e, &w.attn, layer, x);
    let mut y = add(e, &w.attn.around, o, &w.attn.o, h);
    if let Some(cross) = &w.cross {
        let x = e.maybe_norm(y, cross.around.before);
        let q = e.linear(x, &cross.q);
        let o = e.attend_source(layer, q);
        y = add(e, &cross.around, o, &cross.o, y);
    }
    let x = match (e.stack().parallel, w.mlp.before) {
        (false, norm) => e.maybe_norm(y, norm),
        (true, None) => x,
        (true, norm) => e.maybe_norm(h, norm),
    };
    let z = mlp(e, w, x);
    add(e, &w.mlp, z, &w.down, y)
}

fn attend(e: &mut Exec, w: &AttentionW, layer: usize, x: Buf) -> Buf {
    let (mut q, mut k, mut v) = (e.linear(x, &w.q), e.linear(x, &w.k), e.linear(x, &w.v));
    if let Some([of_q, of_k]) = w.qk_norm {
        (q, k) = (e.norm(q, of_q), e.norm(k, of_k));
    }
    if let Position::Rope { .. } = e.stack().position {
        (q, k) = (e.rope(layer, q), e.rope(layer, k));
    }
    if let Some([of_k, of_v]) = w.prefix {
        (k, v) = (e.lead(k, of_k, None, None), e.lead(v, of_v, None, None));
    }
    e.attend(layer, q, k, v)
}

fn mlp(e: &mut Exec, w: &Layer, x: Buf) -> Buf {
    let up = e.linear(x, &w.up);
    match (e.stack().mlp, &w.gate) {
        (Mlp::Gated(act), Some(gate)) => {
            let gate = e.linear(x, gate);
            e.act(act, gate, Some(up))
        }
        (Mlp::Gated(act) | Mlp::Plain(act), _) => e.act(act, up, None),
    }
}

/// The end of half a block: its last linear, and the residual `h`.
fn add(e: &mut Exec, norms: &AroundW, x: Buf, out: &LinearW, h: Buf) -> Buf {
    let y = match norms.inner {
        None => e.linear_add(x, out, h),
        Some(inner) => {
            let y = e.linear(x, out);
            e.norm_add(y, inner, h)
        }
    };
    e.maybe_norm(y, norms.after)
}

/// States to logits.
fn head(e: &mut Exec, w: &HeadW, mut h: Buf) -> Buf {
    let a = *e.head();
    if a.scale != 1.0 {
        h = e.act(kernels::act::Act::Scale(a.scale), h, None);
    }
    if let Some(dense) = &w.dense {
        h = e.linear(h, dense);
    }
    if let Some(act) = a.act {
        h = e.act(act, h, None);
    }
    h = e.maybe_norm(h, w.norm);
    if let Some(out) = &w.out {
        h = e.linear(h, out);
    }
    match a.cap {
        Some(cap) => e.act(kernels::act::Act::Cap(cap), h, None),
        None => h,
    }
}
