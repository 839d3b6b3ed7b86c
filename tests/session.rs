//! A host's life with a session: overflow, cancel, rewind, budget, threads, and what errors leave behind.

mod common;

use common::{Random, all_logits, bits, configs, engine, greedy, open, session, write_model};
use inlaid::engine::{Engine, EngineConfig};
use inlaid::error::Error;
use inlaid::format::files::Files;
use inlaid::kernels::DType;
use inlaid::model::{Model, ModelConfig};
use inlaid::session::{Overflow, Session, SessionConfig};
use std::sync::Arc;

fn llama() -> (tempfile::TempDir, Arc<Model>) {
    let dir = write_model(&configs()[0].1, DType::F32);
    let model = open(&engine(2, None), dir.path(), None);
    (dir, model)
}

fn with(model: &Arc<Model>, context: usize, overflow: Overflow) -> Session {
    let config = SessionConfig { context, overflow, sampler: greedy(), ..SessionConfig::default() };
    Session::new(model, config).expect("a session")
}

#[test]
fn a_full_context_is_an_error_that_changes_nothing() {
    let (_dir, model) = llama();
    let (ids, mut s) = (Random(1).ids(70, 101), with(&model, 70, Overflow::Stop));
    s.prefill(&ids).expect("70 fit");
    let before = bits(s.logits().expect("logits"));
    let full = s.prefill(&[1]).expect_err("71 do not");
    assert_eq!(full.to_string(), "context is full: 70 tokens are held, 1 more are wanted, 70 fit");
    assert!(matches!(s.step(), Err(Error::ContextFull { .. })));
    assert!(matches!(s.score(&[1, 2]), Err(Error::ContextFull { .. })));
    assert_eq!(s.tokens(), ids);
    assert_eq!(bits(s.logits().expect("logits")), before);
}

#[test]
fn dropping_the_oldest_gives_the_bits_of_a_fresh_session() {
    let (_dir, model) = llama();
    let ids = Random(2).ids(64, 101);
    let mut s = with(&model, 64, Overflow::DropOldest { keep: 5 });
    s.prefill(&ids).expect("64 fit");
    s.accept(7).expect("the oldest make room");
    let kept = [&ids[..5], &ids[5 + 29..], &[7]].concat();
    assert_eq!(s.tokens(), kept);
    assert_eq!(bits(s.logits().expect("logits")), {
        let mut fresh = session(&model);
        fresh.prefill(&kept).expect("prefill");
        bits(fresh.logits().expect("logits"))
    });
    for _ in 0..200 {
        s.step().expect("it goes on");
        assert!(s.tokens().len() <= 64 && s.tokens()[..5] == ids[..5]);
    }
    let keep_all = SessionConfig {
        context: 64,
        overflow: Overflow::DropOldest { keep: 63 },
        ..SessionConfig::default()
    };
    assert!(matches!(Session::new(&model, keep_all), Err(Error::Argument { name: "keep", .. })));
}

#[test]
fn bad_ids_and_empty_sessions_are_refused() {
    let (_dir, model) = llama();
    let mut s = session(&model);
    assert!(matches!(s.step(), Err(Error::Argument { .. })));
    assert!(matches!(s.logits(), Err(Error::Argument { .. })));
    let bad = s.prefill(&[1, 101]).expect_err("beyond the vocabulary");
    assert_eq!(bad.to_string(), "ids: expected ids below 101, found 101");
    assert!(s.tokens().is_empty());
    s.prefill(&[]).expect_err("nothing was fed yet");
    assert!(s.score(&[]).expect("nothing to score").is_empty());
    s.prefill(&[1]).expect("the session works on");
    let too_long = SessionConfig { context: 513, ..SessionConfig::default() };
    assert!(matches!(Session::new(&model, too_long), Err(Error::Argument { name: "context", .. })));
}

#[test]
fn scores_are_the_logprobs_of_the_logits() {
    for (family, config) in configs() {
        let dir = write_model(&config, DType::F32);
        let model = open(&engine(2, None), dir.path(), None);
        let (ids, vocab) = (Random(3).ids(90, 77), model.arch().vocab());
        let logits = all_logits(&mut session(&model), &ids);
        let want: Vec<f64> = (1..ids.len())
            .map(|i| {
                let row: Vec<f64> = logits[(i - 1) * vocab..i * vocab]
                    .iter()
                    .map(|b| f64::from(f32::from_bits(*b)))
                    .collect();
                let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                row[ids[i] as usize] - max - row.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
            })
            .collect();
        let whole = session(&model).score(&ids).expect("scores");
        assert_eq!(whole.len(), ids.len() - 1);
        for (got, want) in whole.iter().zip(&want) {
            // The sum of exponentials errs by some eps per lane's partial sums; logits of up to 64 carry eps each.
            let bound = 64.0 * f64::from(f32::EPSILON) * (1.0 + want.abs());
            assert!((f64::from(*got) - want).abs() <= bound, "{family}: {got} against {want}");
        }
        let mut parts = session(&model);
        parts.score(&ids[..40]).expect("scores");
        let rest = parts.score(&ids[40..]).expect("scores");
        assert_eq!(rest.len(), 50);
        assert_eq!(bits(&rest), bits(&whole[39..]), "{family}: scored in parts");
        let top = parts.top_logprobs(5).expect("top");
        assert!(top.len() == 5 && top.windows(2).all(|w| w[0].1 >= w[1].1), "{top:?}");
    }
}

#[test]
fn a_cancel_ends_the_call_and_leaves_the_session_as_it_was() {
    let (_dir, model) = llama();
    let ids = Random(4).ids(400, 101);
    let mut s = session(&model);
    s.prefill(&ids[..30]).expect("prefill");
    let before = bits(s.logits().expect("logits"));
    let cancel = s.cancel();
    cancel.cancel(); // nothing runs: the next call is meant
    assert!(matches!(s.prefill(&ids[30..]), Err(Error::Cancelled)));
    assert_eq!(s.tokens(), &ids[..30]);
    assert_eq!(bits(s.logits().expect("logits")), before);
    // From another thread, at whatever moment: either the call ended before, or it was cancelled without a trace.
    for pause in 0..20u64 {
        let cancel = s.cancel();
        let other = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_micros(pause * 300));
            cancel.cancel();
        });
        let ran = s.prefill(&ids[30..]);
        other.join().expect("the other thread");
        match ran {
            Ok(()) => assert_eq!(s.tokens(), ids),
            Err(Error::Cancelled) => assert_eq!(s.tokens(), &ids[..30]),
            Err(e) => panic!("{e}"),
        }
        s.rewind(30);
        let _ = s.logits(); // ended by a cancel that came after the call: it is meant for the next one that computes
        assert_eq!(bits(s.logits().expect("logits")), before);
    }
}

#[test]
fn sessions_on_many_threads_get_the_bits_they_get_alone() {
    let (_dir, model) = llama();
    let alone: Vec<Vec<u32>> = (0..4)
        .map(|i| {
            let mut s = session(&model);
            s.prefill(&Random(i).ids(60, 101)).expect("prefill");
            (0..20).map(|_| s.step().expect("a step")).collect()
        })
        .collect();
    std::thread::scope(|scope| {
        for i in 0..4 {
            let (model, want) = (model.clone(), &alone[i as usize]);
            scope.spawn(move || {
                let mut s = session(&model);
                s.prefill(&Random(i).ids(60, 101)).expect("prefill");
                let got: Vec<u32> = (0..20).map(|_| s.step().expect("a step")).collect();
                assert_eq!(got, *want);
            });
        }
    });
}

#[test]
fn a_budget_is_kept_and_given_back() {
    let dir = write_model(&configs()[0].1, DType::F32);
    let files = Files::at(dir.path()).expect("files");
    let bare = || ModelConfig { no_tokenizer: true, ..ModelConfig::default() };
    let plan = Model::plan(&engine(2, None), &files, &bare()).expect("a plan");
    let kv = plan.kv_bytes_per_token * plan.kv_page_tokens * 8; // 512 tokens
    let budgeted =
        |budget| Engine::new(EngineConfig { threads: 2, budget: Some(budget), ..EngineConfig::default() });
    let engine = budgeted(plan.private_bytes + kv).expect("an engine");
    let model = Model::open(&engine, &files, bare()).expect("it fits");
    let mut a = session(&model);
    a.prefill(&Random(1).ids(500, 101)).expect("the plan holds");
    let config = SessionConfig::default();
    let full = Session::new(&model, config.clone()).err().expect("a second session does not fit").to_string();
    assert!(full.starts_with("memory budget: a session's context needs"), "{full}");
    assert!(a.fork().is_err());
    drop(a);
    drop(Session::new(&model, config).expect("now it does"));
    drop(model);
    assert_eq!(engine.used_bytes(), 0);
    let small = budgeted(10).expect("an engine");
    assert!(matches!(Model::open(&small, &files, bare()), Err(Error::Budget { .. })));
}

#[test]
fn a_copying_load_gives_the_same_bits_and_survives_its_file() {
    let dir = write_model(&configs()[0].1, DType::F16);
    let ids = Random(6).ids(40, 101);
    let want = all_logits(&mut session(&open(&engine(2, None), dir.path(), None)), &ids);
    let config = ModelConfig { copy: true, no_tokenizer: true, ..ModelConfig::default() };
    let model =
        Model::open(&engine(2, None), &Files::at(dir.path()).expect("files"), config).expect("a model");
    std::fs::write(dir.path().join("model.safetensors"), b"gone").expect("write");
    assert_eq!(all_logits(&mut session(&model), &ids), want);
}

#[test]
fn an_engine_checks_its_config() {
    let refused = |config| Engine::new(config).err().expect("refused").to_string();
    let many = EngineConfig { threads: 5000, ..EngineConfig::default() };
    assert_eq!(refused(many), "threads: expected at most 1024, found 5000");
}

#[test]
#[cfg(target_os = "linux")]
fn an_engines_own_threads_stay_on_the_cores_it_was_given() {
    let status = || std::fs::read_to_string("/proc/thread-self/status").expect("a status");
    let allowed = || {
        let status = status();
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.expect("a list").trim().to_owned()
    };
    let before = allowed();
    let first: usize = before.split([',', '-']).next().and_then(|n| n.parse().ok()).expect("a number");
    let on = |cores: &[usize], threads| {
        Engine::new(EngineConfig { cores: cores.to_vec(), threads, ..EngineConfig::default() })
    };
    let engine = on(&[first, first], 3).expect("an engine");
    let seen = std::sync::Mutex::new(vec![String::new(); 3]);
    let look = |worker: usize| seen.lock().expect("a lock")[worker] = allowed();
    engine.team().each(&look).expect("no panic");
    assert_eq!(seen.into_inner().expect("a lock"), [before.clone(), first.to_string(), first.to_string()]);
    assert_eq!(allowed(), before, "the host's thread is the host's");
    assert_eq!(on(&[first], 0).expect("an engine").threads(), 1);
    for threads in [1, 2] {
        let refused = on(&[first, 4000], threads).err().expect("no such processor").to_string();
        assert_eq!(refused, "cores: processor 4000 is none that this process may use");
    }
    let dir = write_model(&configs()[0].1, DType::F32);
    let ids = Random(6).ids(40, 101);
    let want = all_logits(&mut session(&open(&common::engine(2, None), dir.path(), None)), &ids);
    assert_eq!(all_logits(&mut session(&open(&engine, dir.path(), None)), &ids), want);
}
