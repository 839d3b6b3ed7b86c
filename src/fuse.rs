//! Floor 4: rewrites a program into one that computes the same bits in fewer verbs. Knows no kernels.
//!
//! The activation of an MLP, its product with the other half, and the layout that the next linear reads are taken of a
//! tile of sums while it is near: what lies between is never written. This is the one place that decides so. Whoever wants
//! to see a buffer has it kept, and then it is there. Programs that learn look back at everything and do not come here.

use crate::verb::{Buf, Fused, Verb};
use kernels::linear::PANEL;

/// The verbs, where possible fused; those of `kept` buffers are left as they are. `cols` tells the columns of a buffer.
pub fn fuse(verbs: Vec<Verb>, cols: &dyn Fn(Buf) -> usize, kept: &[Buf]) -> Vec<Verb> {
    let mut out: Vec<Option<Verb>> = verbs.iter().copied().map(Some).collect();
    for (at, verb) in verbs.iter().enumerate() {
        if let Some((linear, act, fused)) = packed_mlp(&verbs, *verb, cols, kept) {
            (out[linear], out[act], out[at]) = (None, None, Some(fused));
        }
    }
    out.into_iter().flatten().collect()
}

/// Which linear and activation a packing is the end of, if nobody else reads what lies between, and all three as one.
fn packed_mlp(
    verbs: &[Verb],
    pack: Verb,
    cols: &dyn Fn(Buf) -> usize,
    kept: &[Buf],
) -> Option<(usize, usize, Verb)> {
    let Verb::Pack { out, x: acted, pack } = pack else { return None };
    let act_at = only_for(verbs, acted, kept)?;
    let Verb::Act { x: sums, up: times, act, .. } = verbs[act_at] else { return None };
    let linear_at = only_for(verbs, sums, kept)?;
    let Verb::Linear { x, rows, w, bias, add, then: None, .. } = verbs[linear_at] else { return None };
    if !cols(sums).is_multiple_of(PANEL) {
        return None;
    }
    let then = Some(Fused { act, times, pack });
    Some((linear_at, act_at, Verb::Linear { out, x, rows, w, bias, add, then }))
}

/// The verb that writes `buf`, if one verb alone reads it.
fn only_for(verbs: &[Verb], buf: Buf, kept: &[Buf]) -> Option<usize> {
    let readers = verbs.iter().flat_map(Verb::reads).filter(|read| *read == buf).count();
    if readers != 1 || kept.contains(&buf) {
        return None;
    }
    verbs.iter().position(|verb| verb.writes() == Some(buf))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::P;
    use kernels::act::Act;
    use kernels::linear::Pack;

    fn linear(out: u32, x: u32) -> Verb {
        Verb::Linear { out: Buf(out), x: Buf(x), rows: 3, w: P(0), bias: None, add: None, then: None }
    }

    /// A gated MLP: two linears of buffer 0, and what the next one reads.
    fn gated() -> Vec<Verb> {
        let act = Verb::Act { out: Buf(3), x: Buf(2), up: Some(Buf(1)), act: Act::Silu };
        vec![
            linear(1, 0),
            linear(2, 0),
            act,
            Verb::Pack { out: Buf(4), x: Buf(3), pack: Pack::F32 },
            linear(5, 4),
        ]
    }

    fn count(verbs: Vec<Verb>, cols: usize, kept: &[Buf]) -> usize {
        fuse(verbs, &|_| cols, kept).len()
    }

    #[test]
    fn an_mlp_becomes_its_linears() {
        let got = fuse(gated(), &|_| 64, &[Buf(5)]);
        let then = Some(Fused { act: Act::Silu, times: Some(Buf(1)), pack: Pack::F32 });
        let both = Verb::Linear { out: Buf(4), x: Buf(0), rows: 3, w: P(0), bias: None, add: None, then };
        assert_eq!(got, [linear(1, 0), both, linear(5, 4)]);
    }

    #[test]
    fn what_somebody_else_wants_stays() {
        for kept in [2, 3] {
            assert_eq!(count(gated(), 64, &[Buf(kept)]), 5, "buffer {kept} is kept");
            let mut verbs = gated();
            verbs.push(Verb::Rows { out: Buf(6), x: Buf(kept) });
            assert_eq!(count(verbs, 64, &[]), 6, "buffer {kept} is read");
        }
        assert_eq!(count(gated(), 48, &[]), 5, "a panel that ends early");
        assert_eq!(count(gated(), 64, &[Buf(1)]), 3, "the other half is there anyway");
    }

    /// The model that ships, with what linears read kept (so that nothing is fused), and as usual.
    #[test]
    fn what_is_fused_has_the_bits_of_what_is_not() {
        use crate::engine::{Engine, EngineConfig};
        use crate::format::files::Files;
        use crate::model::{Model, ModelConfig};
        use crate::pack::Hold;
        use crate::runner::{Feed, Observe, Pick, Runner};
        use kernels::attention::Cache;
        use std::sync::atomic::AtomicBool;
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
        let (files, never) = (Files::at(&dir).unwrap(), AtomicBool::new(false));
        for weights in [Hold::Mapped, Hold::Packed, Hold::Q8, Hold::Q4] {
            let engine = Engine::new(EngineConfig { threads: 2, ..EngineConfig::default() }).unwrap();
            let model =
                Model::open(&engine, &files, ModelConfig { weights, ..ModelConfig::default() }).unwrap();
            for rows in [1, 5, 40] {
                let ids: Vec<u32> = (0..rows).map(|i| i * 7 % 50).collect();
                let logits = |observe| {
                    let mut runner = Runner::observing(model.arch(), Cache::F32, observe);
                    let mut seq = runner.pool.open(64).unwrap();
                    let feed = Feed { pick: Pick::All, ..Feed::new(&mut seq, &ids) };
                    let shape = runner.run(model.parts(), feed, &never).unwrap();
                    let bits: Vec<u32> = runner.answer(shape).iter().map(|x| x.to_bits()).collect();
                    runner.pool.close(&mut seq);
                    bits
                };
                let (fused, apart) = (logits(Observe::Nothing), logits(Observe::Inputs));
                assert!(fused.len() > rows as usize && fused == apart, "{weights:?}, {rows} rows");
            }
        }
    }
}
