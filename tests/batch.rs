//! Sessions that step together get the bits that each gets alone, and share what they have in common.

mod common;

use common::{Random, bits, configs, engine, greedy, open, write_model};
use inlaid::error::Error;
use inlaid::kernels::DType;
use inlaid::kernels::attention::Cache;
use inlaid::model::Model;
use inlaid::sample::SamplerConfig;
use inlaid::session::batch::{self, Stepped};
use inlaid::session::{Overflow, Session, SessionConfig};
use std::sync::Arc;

const STEPS: usize = 9;

/// How session number `i` of a batch is made: all kinds of samplers.
fn config(i: usize) -> SessionConfig {
    let seed = i as u64;
    let sampler = match i % 4 {
        0 => greedy(),
        1 => SamplerConfig { temperature: 0.9, seed, ..SamplerConfig::default() },
        2 => SamplerConfig { temperature: 1.3, top_k: 11, top_p: 0.9, seed, ..SamplerConfig::default() },
        _ => SamplerConfig { repetition_penalty: 1.2, frequency_penalty: 0.3, ..SamplerConfig::default() },
    };
    SessionConfig { sampler, context: 250, ..SessionConfig::default() }
}

/// Its prompt: of one token, of several pages, of whatever lies between.
fn prompt(i: usize) -> Vec<u32> {
    let n = [150, 1, 64, 5, 65, 128, 33][i % 7] + i / 7;
    Random(i as u64).ids(n, 77)
}

fn begin(model: &Arc<Model>, config: SessionConfig, prompt: &[u32]) -> Session {
    let mut session = Session::new(model, config).expect("a session");
    session.resume(prompt).expect("a prompt");
    session
}

/// Tokens and last logits of a session that steps alone.
fn alone(model: &Arc<Model>, config: SessionConfig, prompt: &[u32], steps: usize) -> (Vec<u32>, Vec<u32>) {
    let mut session = begin(model, config, prompt);
    let ids = (0..steps).map(|_| session.step().expect("a step")).collect();
    (ids, bits(session.logits().expect("logits")))
}

fn step(sessions: &mut [Session], rows: usize) -> Vec<Stepped> {
    let mut seats: Vec<&mut Session> = sessions.iter_mut().collect();
    let mut out: Vec<Stepped> = seats.iter().map(|_| Ok(None)).collect();
    batch::step(&mut seats, rows, &mut out).expect("a batch");
    out
}

#[test]
fn each_session_gets_the_bits_it_gets_alone() {
    for (family, text) in [&configs()[0], &configs()[3]] {
        let dir = write_model(text, DType::BF16);
        let reference = open(&engine(2, None), dir.path(), None);
        let want: Vec<_> = (0..17).map(|i| alone(&reference, config(i), &prompt(i), STEPS)).collect();
        for threads in [1, 2, 5] {
            let model = open(&engine(threads, None), dir.path(), None);
            for (n, rows) in [(1, 0), (2, 0), (5, 0), (17, 0), (5, 20), (17, 1)] {
                let mut sessions: Vec<Session> =
                    (0..n).map(|i| begin(&model, config(i), &prompt(i))).collect();
                let mut ids = vec![Vec::new(); n];
                let mut passes = 0;
                while ids.iter().any(|ids: &Vec<u32>| ids.len() < STEPS) {
                    // Those that are done leave; the others go on in a smaller batch.
                    let busy: Vec<usize> = (0..n).filter(|i| ids[*i].len() < STEPS).collect();
                    let mut seats: Vec<&mut Session> = sessions
                        .iter_mut()
                        .enumerate()
                        .filter(|(i, _)| busy.contains(i))
                        .map(|(_, s)| s)
                        .collect();
                    let mut out: Vec<Stepped> = seats.iter().map(|_| Ok(None)).collect();
                    batch::step(&mut seats, rows, &mut out).expect("a batch");
                    for (i, stepped) in busy.into_iter().zip(out) {
                        let id = stepped.expect("a step");
                        assert!(rows > 0 || id.is_some(), "without a limit everybody gets a token");
                        ids[i].extend(id);
                    }
                    passes += 1;
                }
                assert!(rows == 0 || passes > STEPS, "the longest prompt takes several passes");
                for (i, session) in sessions.iter_mut().enumerate() {
                    let got = (ids[i].clone(), bits(session.logits().expect("logits")));
                    assert_eq!(got, want[i], "{family}: session {i} of {n}, {threads} threads, {rows} rows");
                }
            }
        }
    }
}

#[test]
fn a_session_that_cannot_step_does_not_disturb_the_others() {
    let dir = write_model(&configs()[0].1, DType::F32);
    let (model, reference) =
        (open(&engine(2, None), dir.path(), None), open(&engine(2, None), dir.path(), None));
    let full = SessionConfig { context: 64, ..config(0) };
    let drops = SessionConfig { overflow: Overflow::DropOldest { keep: 3 }, ..full.clone() };
    let banned = SamplerConfig {
        logit_bias: (0..101).map(|id| (id, f32::NEG_INFINITY)).collect(),
        ..SamplerConfig::default()
    };
    let banned = SessionConfig { sampler: banned, ..config(0) };
    let empty = Session::new(&model, config(0)).expect("a session");
    let mut sessions = vec![
        begin(&model, config(1), &prompt(0)),
        begin(&model, full, &prompt(2)),
        begin(&model, config(0), &prompt(3)),
        empty,
        begin(&model, banned, &prompt(4)),
        begin(&model, drops.clone(), &prompt(2)),
        begin(&model, config(2), &prompt(5)),
    ];
    sessions[2].cancel().cancel();
    let want = [(0, config(1), 0), (5, drops, 2), (6, config(2), 5)]
        .map(|(at, config, of)| (at, alone(&reference, config, &prompt(of), 3)));
    for round in 0..3 {
        let out = step(&mut sessions, 0);
        for (at, (ids, _)) in &want {
            assert_eq!(*out[*at].as_ref().expect("a step"), Some(ids[round]), "session {at}");
        }
        assert!(matches!(out[1], Err(Error::ContextFull { used: 64, .. })), "{:?}", out[1]);
        assert!(matches!(out[3], Err(Error::Argument { name: "session", .. })), "{:?}", out[3]);
        assert!(matches!(out[4], Err(Error::Argument { name: "logits", .. })), "{:?}", out[4]);
        // A cancel ends one call and leaves the session as it was.
        assert!(if round == 0 { matches!(out[2], Err(Error::Cancelled)) } else { out[2].is_ok() });
        assert_eq!(sessions[2].tokens().len(), prompt(3).len() + round);
    }
    assert_eq!(sessions[1].tokens(), prompt(2));
    let (ids, _) = alone(&reference, config(0), &prompt(3), 2);
    assert_eq!(sessions[2].tokens()[prompt(3).len()..], ids);
}

#[test]
fn a_batch_is_of_one_model_and_has_a_place_for_every_result() {
    let dir = write_model(&configs()[0].1, DType::F32);
    let [mut a, mut b] =
        [(); 2].map(|()| begin(&open(&engine(1, None), dir.path(), None), config(0), &prompt(3)));
    let mut out: Vec<Stepped> = vec![Ok(None), Ok(None)];
    let refused = batch::step(&mut [&mut a, &mut b], 0, &mut out).expect_err("two models").to_string();
    assert_eq!(refused, "sessions: expected sessions of one model, found another one's at 1");
    assert!(batch::step(&mut [&mut a], 0, &mut out).is_err());
    assert_eq!((a.tokens(), b.tokens()), (&prompt(3)[..], &prompt(3)[..]));
    batch::step::<&mut Session>(&mut [], 0, &mut []).expect("nothing to do");
}

#[test]
fn prompts_that_begin_alike_are_computed_once() {
    let dir = write_model(&configs()[0].1, DType::F32);
    let (model, reference) =
        (open(&engine(2, None), dir.path(), None), open(&engine(2, None), dir.path(), None));
    let start = Random(1).ids(150, 101);
    let prompts: Vec<Vec<u32>> = (0..5).map(|i| [&start[..], &Random(50 + i).ids(7, 101)].concat()).collect();
    let mut sessions: Vec<Session> = prompts.iter().map(|ids| begin(&model, config(0), ids)).collect();
    let out = step(&mut sessions, 0);
    for (i, (session, stepped)) in sessions.iter_mut().zip(out).enumerate() {
        let (ids, logits) = alone(&reference, config(0), &prompts[i], 1);
        assert_eq!(stepped.expect("a step"), Some(ids[0]));
        assert_eq!(bits(session.logits().expect("logits")), logits, "session {i}");
        let (t, shared) = (session.timings(), if i == 0 { 0 } else { 128 });
        assert_eq!((t.shared_tokens, t.prefill_tokens), (shared, 157 - shared), "session {i}");
    }
}

#[test]
fn a_session_takes_over_what_another_one_holds() {
    for cache in [Cache::F32, Cache::Q8] {
        let dir = write_model(&configs()[0].1, DType::F32);
        let open = || open(&engine(2, None), dir.path(), Some(cache));
        let (model, reference) = (open(), open());
        let ids = Random(7).ids(200, 101);
        let want = alone(&reference, config(0), &ids, 20);
        let mut first = begin(&model, config(0), &ids);
        first.step().expect("a step");
        let mut second = begin(&model, config(0), &ids);
        second.step().expect("a step");
        let both = model.engine().used_bytes();
        assert_eq!((first.timings().shared_tokens, second.timings().shared_tokens), (0, 192));
        // The first one goes another way, then ends: what the second one holds is its own.
        first.rewind(70);
        first.prefill(&Random(8).ids(100, 101)).expect("prefill");
        drop(first);
        assert_eq!(model.engine().used_bytes(), both - kv(&model, 250), "each is charged its whole context");
        let mut third = begin(&model, config(0), &ids[..128]);
        third.prefill(&ids[128..]).expect("prefill");
        assert_eq!(third.timings().shared_tokens, 192);
        for session in [&mut second, &mut third] {
            session.rewind(200);
            let got: Vec<u32> = (0..20).map(|_| session.step().expect("a step")).collect();
            assert_eq!((got, bits(session.logits().expect("logits"))), want);
        }
    }
}

/// Bytes that a session of so many tokens is charged with.
fn kv(model: &Model, tokens: u64) -> u64 {
    let plan = model.memory_plan();
    tokens.next_multiple_of(plan.kv_page_tokens) * plan.kv_bytes_per_token
}
