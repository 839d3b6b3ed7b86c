//! Guessing ahead changes the time of an answer and no bit of it.

mod common;

use common::{Random, bits, configs, engine, greedy, open, write_model};
use inlaid::error::Error;
use inlaid::kernels::DType;
use inlaid::model::Model;
use inlaid::sample::SamplerConfig;
use inlaid::session::batch::{self, Stepped};
use inlaid::session::{Overflow, Session, SessionConfig, Speculation};
use std::sync::Arc;

/// The last one knows few tokens, so that what it chooses repeats itself.
fn samplers() -> [SamplerConfig; 4] {
    let varied = SamplerConfig { temperature: 0.7, top_k: 5, seed: 3, ..SamplerConfig::default() };
    let penalised =
        SamplerConfig { temperature: 0.4, repetition_penalty: 1.1, frequency_penalty: 0.2, ..varied.clone() };
    let bans = (4..101).map(|id| (id, f32::NEG_INFINITY)).collect();
    let few = SamplerConfig { temperature: 0.9, logit_bias: bans, seed: 8, ..SamplerConfig::default() };
    [greedy(), varied, penalised, few]
}

/// A model, one with the same weights, and one with others; of the same vocabulary.
fn models() -> (Vec<tempfile::TempDir>, Arc<Model>, Arc<Model>, Arc<Model>) {
    let text = &configs()[0].1;
    let dirs = vec![write_model(text, DType::F32), write_model(text, DType::BF16)];
    let [a, b, c] = [0, 0, 1].map(|i: usize| open(&engine(2, None), dirs[i].path(), None));
    (dirs, a, b, c)
}

fn begin(model: &Arc<Model>, speculation: &Speculation, config: SessionConfig) -> Session {
    Session::new(model, SessionConfig { speculation: speculation.clone(), ..config }).expect("a session")
}

/// A prompt that repeats itself.
fn prompt() -> Vec<u32> {
    let ids = Random(2).ids(20, 101);
    [&ids[..], &ids[..], &ids[..7]].concat()
}

fn kinds(same: &Arc<Model>, other: &Arc<Model>) -> Vec<Speculation> {
    let draft = |model: &Arc<Model>, tokens| Speculation::Draft { model: model.clone(), tokens };
    vec![
        Speculation::Lookup { tokens: 1 },
        Speculation::Lookup { tokens: 16 },
        draft(same, 4),
        draft(other, 3),
        draft(other, 16),
    ]
}

#[test]
fn tokens_and_logits_are_those_of_plain_steps() {
    let (_dirs, model, same, other) = models();
    for sampler in samplers() {
        for overflow in [Overflow::Stop, Overflow::DropOldest { keep: 4 }] {
            let config = || SessionConfig {
                sampler: sampler.clone(),
                context: 120,
                overflow,
                ..SessionConfig::default()
            };
            let mut plain = begin(&model, &Speculation::None, config());
            plain.prefill(&prompt()).expect("prefill");
            let steps = if overflow == Overflow::Stop { 120 - prompt().len() } else { 200 };
            let want: Vec<u32> = (0..steps).map(|_| plain.step().expect("a step")).collect();
            let end = plain.step().map_err(|e| e.to_string());
            let logits = bits(plain.logits().expect("logits"));
            for kind in kinds(&same, &other) {
                let mut s = begin(&model, &kind, config());
                s.prefill(&prompt()).expect("prefill");
                let got: Vec<u32> = (0..steps).map(|_| s.step().expect("a step")).collect();
                assert_eq!(got, want, "{kind:?} {sampler:?}");
                assert_eq!(s.step().map_err(|e| e.to_string()), end, "{kind:?}");
                assert_eq!(s.tokens(), plain.tokens());
                assert_eq!(bits(s.logits().expect("logits")), logits, "{kind:?} {sampler:?}");
                let t = s.timings();
                assert!(t.accepted_tokens <= t.drafted_tokens, "{kind:?} {t:?}");
                let guesses = !sampler.logit_bias.is_empty() || matches!(kind, Speculation::Draft { .. });
                assert!(!guesses || t.accepted_tokens > 0, "{kind:?} {t:?}");
                if let Speculation::Draft { tokens: 4, .. } = kind {
                    assert_eq!(t.accepted_tokens, t.drafted_tokens, "the same model guesses right");
                    assert!(overflow != Overflow::Stop || t.decode_tokens >= steps as u64 - 1, "{t:?}");
                }
            }
        }
    }
}

/// What a host may do between two steps.
fn meddle(s: &mut Session, round: usize) -> Vec<u32> {
    let held = s.tokens().len();
    match round % 7 {
        1 => bits(s.logits().expect("logits")),
        2 => s.accept(5).map(|()| Vec::new()).expect("accept"),
        3 => s.prefill(&[1, 2, 3]).map(|()| Vec::new()).expect("prefill"),
        4 => {
            s.rewind(held - 2);
            Vec::new()
        }
        5 => {
            let mut twin = s.fork().expect("a fork");
            let mut out: Vec<u32> = (0..6).map(|_| twin.step().expect("a step")).collect();
            out.extend(bits(twin.logits().expect("logits")));
            out
        }
        6 => s.score(&[4, 9]).map(|scores| bits(&scores)).expect("scores"),
        _ => {
            let sampler = SamplerConfig { temperature: 0.5, seed: round as u64, ..SamplerConfig::default() };
            s.set_sampler(sampler).map(|()| Vec::new()).expect("settings")
        }
    }
}

#[test]
fn other_calls_find_the_session_as_plain_steps_leave_it() {
    let (_dirs, model, same, other) = models();
    for kind in kinds(&same, &other) {
        let config = || SessionConfig { sampler: greedy(), ..SessionConfig::default() };
        let (mut plain, mut s) =
            (begin(&model, &Speculation::None, config()), begin(&model, &kind, config()));
        plain.prefill(&prompt()).expect("prefill");
        s.prefill(&prompt()).expect("prefill");
        for round in 0..40 {
            for _ in 0..round % 5 {
                assert_eq!(plain.step().expect("a step"), s.step().expect("a step"), "{kind:?} {round}");
            }
            assert_eq!(meddle(&mut plain, round), meddle(&mut s, round), "{kind:?} {round}");
            assert_eq!(plain.tokens(), s.tokens());
        }
        let mut out: [Stepped; 2] = [Ok(None), Ok(None)];
        for _ in 0..9 {
            let (p, guessed) = (plain.step().expect("a step"), s.step().expect("a step"));
            assert_eq!(p, guessed);
            batch::step(&mut [&mut plain, &mut s], 0, &mut out).expect("a batch");
            let [a, b] = out.each_ref().map(|out| *out.as_ref().expect("a step"));
            assert_eq!(a, b, "{kind:?}: in a batch");
        }
    }
}

#[test]
fn a_cancel_leaves_no_trace() {
    let (_dirs, model, same, other) = models();
    for kind in kinds(&same, &other) {
        let mut s = begin(&model, &kind, SessionConfig { sampler: greedy(), ..SessionConfig::default() });
        s.prefill(&prompt()).expect("prefill");
        let mut cancelled = 0;
        while s.tokens().len() < 120 {
            s.cancel().cancel();
            let held = s.tokens().to_vec();
            while let Err(e) = s.step() {
                assert!(matches!(e, Error::Cancelled));
                assert_eq!(s.tokens(), held);
                cancelled += 1;
            }
        }
        assert!(cancelled > 0);
        let mut plain = begin(&model, &Speculation::None, SessionConfig::default());
        plain.resume(s.tokens()).expect("the same tokens");
        let _ = s.logits(); // ended by a cancel that came after the last call that computed
        let logits = bits(s.logits().expect("logits"));
        drop(s);
        assert_eq!(logits, bits(plain.logits().expect("logits")), "{kind:?}");
    }
}

#[test]
fn what_cannot_guess_is_refused() {
    let (_dirs, model, same, _) = models();
    let gpt2 = write_model(&configs()[3].1, DType::F32);
    let gpt2 = open(&engine(1, None), gpt2.path(), None);
    let refused = |speculation| {
        let config = SessionConfig { speculation, ..SessionConfig::default() };
        Session::new(&model, config).err().expect("refused").to_string()
    };
    for tokens in [0, 17] {
        let text = format!("speculation: expected from 1 to 16 tokens, found {tokens}");
        assert_eq!(refused(Speculation::Lookup { tokens }), text);
        assert_eq!(refused(Speculation::Draft { model: same.clone(), tokens }), text);
    }
    let draft = Speculation::Draft { model: gpt2, tokens: 4 };
    assert_eq!(refused(draft), "draft: expected a model of 101 tokens, found 77");
}
