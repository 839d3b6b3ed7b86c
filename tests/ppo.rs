//! Policies that learn from rewards: recorded rollouts against torch (`tests/golden/learn/make_learn.py`), rounds, what is mixed
//! in, and what goes on from a checkpoint.
#![cfg(feature = "train")]

mod common;
#[path = "common/steps.rs"]
mod steps;

use inlaid::Error;
use inlaid::train::data::Lesson;
use inlaid::train::loss::Scored;
use inlaid::train::ppo::mix::Mix;
use inlaid::train::ppo::objective::{Clip, Step, clipped};
use inlaid::train::ppo::{Ppo, PpoConfig, Progress};
use inlaid::train::{LearnConfig, Learner, Optimizer, Sample, What, save};
use serde_json::json;
use std::time::Duration;
use steps::{GO, Said, bits, ids, lesson, lora, model};

/// Ten steps from recorded rollouts, with the pretraining that torch mixed in, if it did.
fn recorded(kind: &str) {
    let said = Said::read(kind);
    let config = LearnConfig { value_head: true, ..LearnConfig::default() };
    let mut learner = Learner::new(&said.model(), &config).expect("a learner");
    let mut optimizer = Optimizer::new(&learner, said.rule(), 0.0).expect("an optimiser");
    let clip = Clip { policy: 0.2, value: 0.2, vf_coef: 0.1, entropy_coef: 0.01 };
    let (mut all, mut steps) = (Vec::new(), Vec::new());
    for answer in said.json["data"].as_array().expect("rollouts") {
        let (ids, first) = (ids(&answer["ids"]), answer["first"].as_u64().expect("a place") as usize);
        let number = |key: &str, t: usize| answer[key][t].as_f64().expect(key) as f32;
        steps.extend((0..ids.len() - first).map(|t| Step {
            logprob: number("logprob", t),
            value: number("value", t),
            advantage: number("advantage", t),
            returns: number("returns", t),
        }));
        let rows: Vec<u32> = (first as u32 - 1..ids.len() as u32 - 1).collect();
        all.push((ids[..ids.len() - 1].to_vec(), rows, ids[first..].to_vec()));
    }
    let batch: Vec<Sample> =
        all.iter().map(|(ids, rows, targets)| Sample { ids, rows, targets, ..Sample::default() }).collect();
    let mut mix = said.json.get("mix").map(|texts| {
        let texts =
            texts.as_array().expect("texts").iter().map(|text| lesson(&ids(text), 1)).collect::<Vec<_>>();
        let (coef, all) = (said.json["mix_coef"].as_f64().expect("a weight"), texts.len());
        (Mix::new(texts, coef, all, 3).expect("a mix"), coef)
    });
    for (done, want) in said.losses().into_iter().enumerate() {
        learner.forward(&batch, &GO).expect("forward");
        let scored = Scored { logprobs: learner.logprobs(), logits: learner.answer() };
        let (loss, _) = clipped(scored, learner.values(), &steps, &clip, steps.len() as f64);
        learner.backward(&loss.seeds, &loss.values, &GO).expect("backward");
        let mut value = loss.value;
        if let Some((mix, coef)) = &mut mix {
            // Two passes, over all texts in another order.
            value += *coef * mix.pass(&mut learner, done as u64, 40, &GO).expect("a pass");
        }
        assert!((value - want).abs() <= 1e-4 * want.abs(), "{kind}: loss {value}, expected {want}");
        optimizer.step(&mut learner, said.rate()).expect("a step");
    }
    said.check(&learner);
}

#[test]
fn policies_learn_from_recorded_rollouts_as_in_torch() {
    recorded("ppo");
}

#[test]
fn pretraining_is_mixed_in_as_in_torch() {
    recorded("ppo-mix");
}

fn policy(seed: u64, kl_coef: f64, learn: &LearnConfig) -> Ppo {
    let learn = LearnConfig { value_head: true, ..learn.clone() };
    let learner = Learner::new(&model("llama-gqa"), &learn).expect("a learner");
    let config = PpoConfig { max_tokens: 12, kl_coef, seed, rate: 1e-2, ..PpoConfig::default() };
    Ppo::new(learner, config).expect("a policy")
}

/// A round in pieces of one microsecond; what answers are worth is how many of their tokens are small.
fn round(ppo: &mut Ppo, prompts: &[Vec<u32>]) -> f64 {
    ppo.begin(prompts).expect("begun");
    loop {
        match ppo.advance(Duration::from_micros(1), &GO).expect("a piece") {
            Progress::More => {}
            Progress::Done => return ppo.stats().reward,
            Progress::Rewards => {
                let share = |ids: &[u32]| ids.iter().filter(|id| **id < 50).count() as f32 / ids.len() as f32;
                let scores: Vec<f32> = ppo.answers().iter().map(|answer| share(&answer.ids)).collect();
                assert!(ppo.set_rewards(&scores[1..]).is_err());
                assert!(ppo.set_rewards(&vec![f32::NAN; scores.len()]).is_err());
                ppo.set_rewards(&scores).expect("rewards");
            }
        }
    }
}

fn prompts() -> Vec<Vec<u32>> {
    (0..8_u32).map(|i| (0..2 + i).map(|t| 3 + (5 * t + i) % 90).collect()).collect()
}

#[test]
fn before_the_first_update_every_ratio_is_one() {
    for learn in [LearnConfig::default(), lora(4), LearnConfig { temperature: 0.7, ..LearnConfig::default() }]
    {
        let learn = LearnConfig { value_head: true, ..learn };
        let learner = Learner::new(&model("llama-bf16"), &learn).expect("a learner");
        let config = PpoConfig { max_tokens: 9, epochs: 1, minibatch: 8, ..PpoConfig::default() };
        let mut ppo = Ppo::new(learner, config).expect("a policy");
        round(&mut ppo, &prompts());
        let figures = ppo.stats().figures;
        assert_eq!((figures.ratio, figures.approx_kl, figures.clip_fraction), (1.0, 0.0, 0.0));
        if !matches!(learn.what, What::All) {
            assert_eq!(ppo.stats().kl, 0.0, "a policy that has learnt nothing is its reference");
        }
    }
}

#[test]
fn encoder_decoders_draw_what_they_learn_from() {
    for name in ["bart", "t5", "marian"] {
        for learn in [LearnConfig::default(), lora(4)] {
            let learn = LearnConfig { value_head: true, ..learn };
            let learner = Learner::new(&model(name), &learn).expect("a learner");
            let config =
                PpoConfig { max_tokens: 9, epochs: 1, minibatch: 8, rate: 1e-2, ..PpoConfig::default() };
            let mut ppo = Ppo::new(learner, config).expect("a policy");
            let prompts: Vec<Vec<u32>> =
                (1..9_u32).map(|n| (0..n).map(|t| 4 + (5 * t + n) % 40).collect()).collect();
            round(&mut ppo, &prompts);
            let figures = ppo.stats().figures;
            assert_eq!((figures.ratio, figures.approx_kl, figures.clip_fraction), (1.0, 0.0, 0.0), "{name}");
            assert_eq!(ppo.stats().kl, 0.0, "{name}: a policy that has learnt nothing is its reference");
            round(&mut ppo, &prompts);
            assert_eq!(ppo.stats().figures.ratio, 1.0, "{name}: a round begins as the policy that it is");
            assert!(ppo.stats().kl != 0.0, "{name}: nothing was learnt");
            assert!(ppo.begin(&[vec![3, 99_999]]).is_err(), "{name}");
            assert!(ppo.set_mix(texts()).is_err(), "{name}: texts without sources");
        }
    }
}

#[test]
fn rewards_rise() {
    let mut ppo = policy(1, 0.005, &LearnConfig::default());
    let rewards: Vec<f64> = (0..30).map(|_| round(&mut ppo, &prompts())).collect();
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let (first, last) = (mean(&rewards[..5]), mean(&rewards[25..]));
    assert!(last > first + 0.15, "{rewards:?}");
    assert!(ppo.stats().kl > 0.0);
}

#[test]
fn a_policy_that_goes_on_has_the_bits_of_one_that_was_not_interrupted() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut whole = policy(5, 0.05, &lora(2));
    let mut first = policy(5, 0.05, &lora(2));
    for _ in 0..2 {
        round(&mut whole, &prompts());
        round(&mut first, &prompts());
    }
    let position = first.position();
    let (learner, optimizer) = first.state_mut();
    let said = json!({"ppo": [position.0, 0.1 + 0.2, 0.999_000_012_874_603_3]});
    save::checkpoint(learner, optimizer, dir.path(), &said).expect("a checkpoint");
    let steps = optimizer.steps();
    let mut second = policy(5, 0.05, &lora(2));
    let (read, at) = save::newest(dir.path()).expect("readable").expect("a checkpoint");
    assert_eq!(read, said, "numbers lose nothing in a file");
    let (learner, optimizer) = second.state_mut();
    save::restore(learner, optimizer, &at, steps).expect("restored");
    second.restore(position.0, position.1);
    round(&mut whole, &prompts());
    round(&mut second, &prompts());
    assert!(bits(whole.learner_mut()) == bits(second.learner_mut()));
}

/// Texts in which every token says the next one.
fn texts() -> Vec<Lesson> {
    (0..5_u32).map(|i| lesson(&(0..14 + i).map(|t| 3 + (5 * t + i) % 60).collect::<Vec<_>>(), 1)).collect()
}

#[test]
fn what_is_mixed_in_is_learnt_and_goes_on_with_the_same_bits() {
    let mixed = || {
        let learner = LearnConfig { value_head: true, ..LearnConfig::default() };
        let learner = Learner::new(&model("llama-gqa"), &learner).expect("a learner");
        let config =
            PpoConfig { max_tokens: 6, mix_batch: 3, mix_coef: 0.5, rate: 3e-3, ..PpoConfig::default() };
        let mut ppo = Ppo::new(learner, config).expect("a policy");
        ppo.set_mix(texts()).expect("a mix");
        ppo
    };
    let dir = tempfile::tempdir().expect("a directory");
    let (mut whole, mut first) = (mixed(), mixed());
    let mut losses = Vec::new();
    for _ in 0..4 {
        round(&mut whole, &prompts());
        losses.push(whole.stats().mix_loss);
    }
    assert!(losses[3] < 0.8 * losses[0] && losses[3] > 0.0, "{losses:?}");

    for _ in 0..3 {
        round(&mut first, &prompts());
    }
    let position = first.position();
    let (learner, optimizer) = first.state_mut();
    save::checkpoint(learner, optimizer, dir.path(), &json!({})).expect("a checkpoint");
    let (mut second, steps) = (mixed(), optimizer.steps());
    let (_, at) = save::newest(dir.path()).expect("readable").expect("a checkpoint");
    let (learner, optimizer) = second.state_mut();
    save::restore(learner, optimizer, &at, steps).expect("restored");
    second.restore(position.0, position.1);
    round(&mut second, &prompts());
    assert!(bits(whole.learner_mut()) == bits(second.learner_mut()), "other bits");

    second.set_mix(Vec::new()).expect("no mix");
    round(&mut second, &prompts());
    assert_eq!(second.stats().mix_loss, 0.0);
}

#[test]
fn what_cannot_be_mixed_in_is_refused() {
    let mut ppo = policy(1, 0.05, &LearnConfig::default());
    for (what, lessons) in [
        ("nothing to learn", vec![lesson(&[3, 4], 2)]),
        ("an id beyond", vec![lesson(&[3, 9999, 5], 1)]),
        ("too long", vec![lesson(&vec![3; 2000], 1)]),
    ] {
        assert!(ppo.set_mix(lessons).is_err(), "{what}");
    }
    for (coef, batch) in [(0.0, 1), (-1.0, 1), (f64::NAN, 1), (1.0, 0)] {
        assert!(matches!(Mix::new(texts(), coef, batch, 0), Err(Error::Argument { .. })));
    }
    round(&mut ppo, &prompts());
    assert_eq!(ppo.stats().mix_loss, 0.0);
}
