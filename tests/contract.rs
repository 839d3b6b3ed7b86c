//! The promise: the same bits for any thread count, split of the prompt, fork, rewind, and instruction set.

mod common;

use common::{Random, all_configs, all_logits, bits, engine, open, session, write_model};
use inlaid::encode::{Ask, Text, run};
use inlaid::kernels::attention::Cache;
use inlaid::kernels::{DType, Ops};
use inlaid::model::Model;
use inlaid::session::{Session, SessionConfig};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Weights and caches that a run can have.
const TYPES: [(DType, Cache); 6] = [
    (DType::F32, Cache::F32),
    (DType::F32, Cache::BF16),
    (DType::F32, Cache::Q8),
    (DType::F16, Cache::F16),
    (DType::BF16, Cache::F16),
    (DType::BF16, Cache::F32),
];

#[test]
fn threads_splits_and_steps_do_not_matter() {
    for (family, config) in all_configs() {
        for (dtype, cache) in TYPES {
            let dir = write_model(&config, dtype);
            let ids = Random(3).ids(150, 77); // three pages, the last one partly filled
            let mut want = None;
            for threads in [1, 2, 3, 7] {
                let model = open(&engine(threads, None), dir.path(), Some(cache));
                let got = all_logits(&mut session(&model), &ids);
                assert!(got.windows(2).any(|w| w[0] != w[1]), "{family}: flat logits");
                let want = want.get_or_insert(got.clone());
                assert_eq!(got, *want, "{family} {dtype:?}/{cache:?}: {threads} threads");
                for chunk in [7, 64, 90] {
                    let config = SessionConfig { chunk, ..SessionConfig::default() };
                    let mut s = Session::new(&model, config).expect("a session");
                    s.prefill(&ids).expect("prefill");
                    let last = bits(s.logits().expect("logits"));
                    let at = want.len() - last.len();
                    assert_eq!(
                        last,
                        want[at..],
                        "{family} {dtype:?}/{cache:?}: {threads} threads, chunks of {chunk}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_position_has_the_bits_of_stepping_there() {
    for (family, config) in all_configs() {
        let dir = write_model(&config, DType::BF16);
        let model = open(&engine(2, None), dir.path(), None);
        let ids = Random(5).ids(70, 77);
        let want = all_logits(&mut session(&model), &ids);
        let mut s = session(&model);
        for (id, want) in ids.iter().zip(want.chunks(model.arch().vocab())) {
            s.accept(*id).expect("accept");
            assert_eq!(bits(s.logits().expect("logits")), want, "{family}");
        }
    }
}

#[test]
fn instruction_sets_agree() {
    for (family, config) in all_configs() {
        for (dtype, cache) in TYPES {
            let dir = write_model(&config, dtype);
            let ids = Random(4).ids(75, 77);
            let mut want = None;
            for ops in Ops::all() {
                let model = open(&engine(2, Some(ops.isa())), dir.path(), Some(cache));
                let got = all_logits(&mut session(&model), &ids);
                let want = want.get_or_insert(got.clone());
                assert!(got == *want, "{family} {dtype:?}/{cache:?}: {} differs", ops.name());
            }
        }
    }
}

#[test]
fn forks_rewinds_and_resumes_keep_their_past() {
    for (family, config) in all_configs() {
        let dir = write_model(&config, DType::F32);
        let model = open(&engine(2, None), dir.path(), None);
        let (ids, other) = (Random(9).ids(100, 77), Random(10).ids(30, 77));
        // By another model, whose sessions cannot take over pages of those that are tested.
        let reference = open(&engine(2, None), dir.path(), None);
        let logits_of = |ids: &[u32]| {
            let mut s = session(&reference);
            s.prefill(ids).expect("prefill");
            bits(s.logits().expect("logits"))
        };
        let want = logits_of(&ids);
        let mut a = session(&model);
        a.prefill(&ids[..80]).expect("prefill");
        let mut b = a.fork().expect("fork");
        a.prefill(&other).expect("prefill");
        b.prefill(&ids[80..]).expect("prefill");
        assert_eq!(
            bits(b.logits().expect("logits")),
            want,
            "{family}: the fork's twin wrote into shared pages"
        );
        a.rewind(80);
        a.prefill(&ids[80..]).expect("prefill");
        assert_eq!(bits(a.logits().expect("logits")), want, "{family}: rewind");
        a.rewind(100);
        assert_eq!(bits(a.logits().expect("logits")), want, "{family}: rewind to where it stands");
        let joined = [&ids[..90], &other].concat();
        assert_eq!(a.resume(&joined).expect("resume"), 90);
        assert_eq!(bits(a.logits().expect("logits")), logits_of(&joined), "{family}: resume");
    }
}

/// Golden models that read whole texts: one of each wiring, and encoder-decoders.
const READERS: [&str; 7] = ["bert", "modernbert-mlm", "mpnet", "distilbert-mlm", "t5", "bart", "m2m_100"];

/// States of some texts of very different lengths; of an encoder-decoder also the logits after each of some ids.
fn read(model: &Arc<Model>, texts: &[Vec<u32>], alone: bool) -> Vec<u32> {
    let inputs: Vec<Text> = texts.iter().map(|ids| Text { ids, types: &[] }).collect();
    let (never, mut out) = (AtomicBool::new(false), Vec::new());
    let groups = if alone { 1 } else { inputs.len() };
    for group in inputs.chunks(groups) {
        let mut each = |_: usize, rows: &[f32], _: usize| out.extend(bits(rows));
        run(model, group, Ask::Hidden, &never, &mut None, &mut each).expect("states");
    }
    if model.arch().decoder.is_some() {
        let mut session = session(model);
        session.set_source(&texts[2]).expect("a source");
        let ids: Vec<u32> = texts[1].iter().chain(&texts[3]).copied().collect();
        if alone {
            for id in ids {
                session.accept(id).expect("accept");
                out.extend(bits(session.logits().expect("logits")));
            }
        } else {
            out.extend(all_logits(&mut session, &ids));
        }
    }
    out
}

#[test]
fn whole_texts_have_the_same_bits() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for name in READERS {
        let texts: Vec<Vec<u32>> = [1, 5, 70, 16, 64].map(|n| Random(n as u64).ids(n, 50)).to_vec();
        let mut want = None;
        for ops in Ops::all() {
            for threads in [1, 2, 3, 7] {
                let model = open(&engine(threads, Some(ops.isa())), &root.join(name), None);
                for alone in [false, true] {
                    let got = read(&model, &texts, alone);
                    let want = want.get_or_insert(got.clone());
                    assert!(got == *want, "{name}: {}, {threads} threads, alone: {alone}", ops.name());
                }
            }
        }
    }
}
