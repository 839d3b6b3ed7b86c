//! Floor 4: rewrites a program into one that computes the same bits in fewer verbs. Knows no kernels.
//!
//! The activation of an MLP, its product with the other half, and the layout that the next linear reads are taken of a
//! tile of sums while it is near, and of many rows the other half is computed beside them: what lies between is never written.
//! This is the one place that decides so. Whoever wants to see a buffer has it kept, and then it is there. Programs that learn
//! look back at everything and do not come here.

use crate::verb::{Buf, Fused, Verb};
use crate::weights::P;
use kernels::linear::{BY_ROWS, PANEL};

/// The verbs, where possible fused; those of `kept` buffers are left as they are. `cols` tells the columns of a buffer, `alike`
/// whether two matrices are of one type and take as much.
pub fn fuse(
    verbs: Vec<Verb>,
    cols: &dyn Fn(Buf) -> usize,
    alike: &dyn Fn(P, P) -> bool,
    kept: &[Buf],
) -> Vec<Verb> {
    let verbs = rewrite(&verbs, &|verb| packed_mlp(&verbs, verb, cols, kept));
    rewrite(&verbs, &|verb| with_other_half(&verbs, verb, alike, kept))
}

/// The verbs without those at the places that a rule names for one of them, which becomes what the rule says.
fn rewrite(verbs: &[Verb], rule: &dyn Fn(Verb) -> Option<(Vec<usize>, Verb)>) -> Vec<Verb> {
    let mut out: Vec<Option<Verb>> = verbs.iter().copied().map(Some).collect();
    for (at, verb) in verbs.iter().enumerate() {
        if let Some((gone, fused)) = rule(*verb) {
            gone.into_iter().for_each(|gone| out[gone] = None);
            out[at] = Some(fused);
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
) -> Option<(Vec<usize>, Verb)> {
    let Verb::Pack { out, x: acted, pack } = pack else { return None };
    let act_at = only_for(verbs, acted, kept)?;
    let Verb::Act { x: sums, up: times, act, .. } = verbs[act_at] else { return None };
    let linear_at = only_for(verbs, sums, kept)?;
    let Verb::Linear { x, rows, w, bias, add, then: None, .. } = verbs[linear_at] else { return None };
    if !cols(sums).is_multiple_of(PANEL) {
        return None;
    }
    let then = Some(Fused { act, times, by: None, pack });
    Some((vec![linear_at, act_at], Verb::Linear { out, x, rows, w, bias, add, then }))
}

/// Which linear computes what a fused one multiplies by, if of the same rows, of many, and for nobody else; and both as one.
fn with_other_half(
    verbs: &[Verb],
    fused: Verb,
    alike: &dyn Fn(P, P) -> bool,
    kept: &[Buf],
) -> Option<(Vec<usize>, Verb)> {
    let Verb::Linear { out, x, rows, w, bias, add, then: Some(then) } = fused else { return None };
    let at = only_for(verbs, then.times?, kept)?;
    let Verb::Linear { x: of, rows: n, w: by, bias: None, add: None, then: None, .. } = verbs[at] else {
        return None;
    };
    if of != x || n != rows || rows < BY_ROWS || !alike(w, by) {
        return None;
    }
    let then = Some(Fused { times: None, by: Some(by), ..then });
    Some((vec![at], Verb::Linear { out, x, rows, w, bias, add, then }))
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

    fn linear(out: u32, x: u32, rows: usize) -> Verb {
        Verb::Linear { out: Buf(out), x: Buf(x), rows, w: P(out), bias: None, add: None, then: None }
    }

    /// A gated MLP: two linears of buffer 0, and what the next one reads.
    fn gated(rows: usize) -> Vec<Verb> {
        let act = Verb::Act { out: Buf(3), x: Buf(2), up: Some(Buf(1)), act: Act::Silu };
        vec![
            linear(1, 0, rows),
            linear(2, 0, rows),
            act,
            Verb::Pack { out: Buf(4), x: Buf(3), pack: Pack::F32 },
            linear(5, 4, rows),
        ]
    }

    fn count(verbs: Vec<Verb>, cols: usize, kept: &[Buf]) -> usize {
        fuse(verbs, &|_| cols, &|_, _| true, kept).len()
    }

    #[test]
    fn an_mlp_becomes_its_linears() {
        for (rows, alike, one) in [(3, true, false), (200, false, false), (200, true, true)] {
            let got = fuse(gated(rows), &|_| 64, &|_, _| alike, &[Buf(5)]);
            let (times, by) = if one { (None, Some(P(1))) } else { (Some(Buf(1)), None) };
            let then = Some(Fused { act: Act::Silu, times, by, pack: Pack::F32 });
            let both = Verb::Linear { out: Buf(4), x: Buf(0), rows, w: P(2), bias: None, add: None, then };
            let last = linear(5, 4, rows);
            let want = if one { vec![both, last] } else { vec![linear(1, 0, rows), both, last] };
            assert_eq!(got, want, "{rows} rows, alike: {alike}");
        }
    }

    #[test]
    fn what_somebody_else_wants_stays() {
        for kept in [2, 3] {
            assert_eq!(count(gated(200), 64, &[Buf(kept)]), 5, "buffer {kept} is kept");
            let mut verbs = gated(200);
            verbs.push(Verb::Rows { out: Buf(6), x: Buf(kept) });
            assert_eq!(count(verbs, 64, &[]), 6, "buffer {kept} is read");
        }
        assert_eq!(count(gated(200), 48, &[]), 5, "a panel that ends early");
        assert_eq!(count(gated(200), 64, &[Buf(1)]), 3, "the other half is there anyway");
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
            for rows in [1, 5, 40, 70] {
                let ids: Vec<u32> = (0..rows).map(|i| i * 7 % 50).collect();
                let logits = |observe| {
                    let mut runner = Runner::observing(model.arch(), Cache::F32, observe);
                    let mut seq = runner.pool.open(128).unwrap();
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
