//! Floor 4: the transformer, once: for every family and every device. Writes verbs, computes nothing.

use crate::arch::{Arch, Mlp, Position};
use crate::exec::Exec;
use crate::verb::Buf;
use crate::weights::{Layer, Weights};

/// Tokens to logits of the picked rows.
pub fn model(e: &mut Exec, a: &Arch, m: &Weights) -> Buf {
    let mut h = e.embed(m.tokens, m.positions);
    for (i, layer) in m.layers.iter().enumerate() {
        h = block(e, a, layer, i as u32, h);
    }
    let h = e.rows(h);
    let h = e.norm(h, &m.norm);
    e.linear(h, &m.head)
}

/// One block: attention, then the MLP, each behind a norm and beside a residual.
fn block(e: &mut Exec, a: &Arch, w: &Layer, layer: u32, h: Buf) -> Buf {
    let x = e.norm(h, &w.attn_norm);
    let (mut q, mut k, v) = (e.linear(x, &w.q), e.linear(x, &w.k), e.linear(x, &w.v));
    if let Position::Rope(_) = a.position {
        (q, k) = (e.rope(q), e.rope(k));
    }
    let o = e.attend(layer, q, k, v);
    let h = e.linear_add(o, &w.o, h);

    let x = e.norm(h, &w.mlp_norm);
    let up = e.linear(x, &w.up);
    let y = match (a.mlp, &w.gate) {
        (Mlp::Gated(act), Some(gate)) => {
            let gate = e.linear(x, gate);
            e.act(act, gate, Some(up))
        }
        (Mlp::Gated(act) | Mlp::Plain(act), _) => e.act(act, up, None),
    };
    e.linear_add(y, &w.down, h)
}
