//! Choosing tokens: against `transformers`' processors, a naive reference, and exact probabilities.

use inlaid::kernels::Ops;
use inlaid::kernels::math::exp1;
use inlaid::rng::{Stream, uniform};
use inlaid::sample::{Sampler, SamplerConfig, logprob, top_logprobs};
use serde_json::Value;

/// Logits of a fixed generator, roughly from -8 to 8.
fn random_logits(seed: u64, vocab: usize) -> Vec<f32> {
    let draw = |at| uniform(seed, Stream::Sample, at) as f32;
    (0..vocab as u64).map(|i| 16.0 * draw(3 * i) * draw(3 * i + 1) - 8.0 * draw(3 * i + 2)).collect()
}

fn sampler(config: &SamplerConfig, vocab: usize) -> Sampler {
    Sampler::new(config.clone(), vocab).unwrap()
}

#[test]
fn greedy_takes_the_highest_logit_and_the_lowest_id() {
    let mut greedy = sampler(&SamplerConfig::default(), 4);
    let mut sample = |logits: [f32; 4]| greedy.sample(&mut logits.clone(), &[], 0);
    assert_eq!(sample([0.0, 3.0, 3.0, 1.0]).unwrap(), 1);
    assert_eq!(sample([f32::NAN, -3.0, f32::NEG_INFINITY, -2.0]).unwrap(), 3);
    assert_eq!(sample([0.0, f32::INFINITY, 5.0, f32::INFINITY]).unwrap(), 1);
    assert!(sample([f32::NAN, f32::NEG_INFINITY, f32::NAN, f32::NAN]).is_err());
    assert!(greedy.sample(&mut [0.0; 3], &[], 0).is_err());
}

#[test]
fn settings_out_of_range_are_named() {
    let default = SamplerConfig::default;
    let wrong = [
        ("temperature", SamplerConfig { temperature: -1.0, ..default() }),
        ("temperature", SamplerConfig { temperature: f32::NAN, ..default() }),
        ("temperature", SamplerConfig { temperature: f32::INFINITY, ..default() }),
        ("top_p", SamplerConfig { top_p: 0.0, ..default() }),
        ("top_p", SamplerConfig { top_p: 1.5, ..default() }),
        ("min_p", SamplerConfig { min_p: -0.1, ..default() }),
        ("repetition_penalty", SamplerConfig { repetition_penalty: 0.0, ..default() }),
        ("frequency_penalty", SamplerConfig { frequency_penalty: f32::NAN, ..default() }),
        ("presence_penalty", SamplerConfig { presence_penalty: f32::INFINITY, ..default() }),
        ("logit_bias", SamplerConfig { logit_bias: vec![(8, 0.0)], ..default() }),
        ("logit_bias", SamplerConfig { logit_bias: vec![(0, f32::NAN)], ..default() }),
    ];
    for (name, config) in wrong {
        let said = Sampler::new(config, 8).unwrap_err().to_string();
        assert!(said.starts_with(name), "{said}");
    }
}

/// What the numbers of a golden case say.
fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// Adjusted logits are those of `transformers` (one division and one addition apart from its own rounding), and the tokens
/// that can be drawn are those to which it leaves a probability.
#[test]
fn processors_do_what_those_of_transformers_do() {
    let golden =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sample/golden.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    for (n, case) in golden.as_array().unwrap().iter().enumerate() {
        let (logits, c) = (floats(&case["logits"]), &case["config"]);
        let number = |key: &str| c[key].as_f64().unwrap() as f32;
        let history: Vec<u32> = floats(&case["history"]).iter().map(|id| *id as u32).collect();
        let bias =
            c["logit_bias"].as_array().unwrap().iter().map(floats).map(|pair| (pair[0] as u32, pair[1]));
        let mut config = SamplerConfig {
            repetition_penalty: number("repetition_penalty"),
            logit_bias: bias.collect(),
            ..SamplerConfig::default()
        };
        let mut adjusted = logits.clone();
        sampler(&config, logits.len()).sample(&mut adjusted, &history, 0).unwrap();
        for (id, (ours, theirs)) in adjusted.iter().zip(floats(&case["adjusted"])).enumerate() {
            // Two roundings on each side, of a bias and of a penalty.
            let bound = 4.0 * f32::EPSILON * (theirs.abs() + logits[id].abs());
            assert!((ours - theirs).abs() <= bound, "case {n} token {id}: {ours} is not {theirs}");
        }
        config.temperature = number("temperature");
        config.top_k = c["top_k"].as_u64().unwrap() as usize;
        config.top_p = number("top_p");
        config.min_p = number("min_p");
        let probs = floats(&case["probs"]);
        let mut sampler = sampler(&config, logits.len());
        let mut counts = vec![0u32; logits.len()];
        let draws = 5_000;
        for position in 0..draws {
            counts[sampler.sample(&mut logits.clone(), &history, position).unwrap() as usize] += 1;
        }
        assert!(chi_square(&counts, &probs) <= bound(probs.len()), "case {n}: {counts:?} is not {probs:?}");
    }
}

/// Pearson's statistic, rare tokens taken together so that its distribution is close to chi-square; infinite where an
/// impossible token was drawn.
fn chi_square(counts: &[u32], probs: &[f32]) -> f64 {
    let total = f64::from(counts.iter().sum::<u32>());
    let (mut sum, mut rare, mut rare_expected) = (0.0, 0.0, 0.0);
    for (&count, &p) in counts.iter().zip(probs) {
        let (count, expected) = (f64::from(count), total * f64::from(p));
        match expected {
            0.0 if count > 0.0 => return f64::INFINITY,
            0.0..10.0 => (rare, rare_expected) = (rare + count, rare_expected + expected),
            _ => sum += (count - expected).powi(2) / expected,
        }
    }
    // Below one expected draw the term would not be chi-square; it is bounded by the draws themselves.
    sum + (rare - rare_expected).powi(2) / rare_expected.max(10.0)
}

/// What a chi-square variable of fewer than `n` degrees of freedom exceeds with probability below e^-20 (Laurent and
/// Massart 2000, lemma 1).
fn bound(n: usize) -> f64 {
    let (d, t) = (n as f64, 20.0);
    d + 2.0 * (d * t).sqrt() + 2.0 * t
}

#[test]
fn draws_follow_the_probabilities() {
    let vocab = 50;
    for (seed, temperature) in [(1, 1.0), (2, 0.5), (3, 2.0)] {
        let logits = random_logits(seed, vocab);
        let config = SamplerConfig { temperature, seed, ..SamplerConfig::default() };
        let mut sampler = sampler(&config, vocab);
        let mut counts = vec![0; vocab];
        for position in 0..20_000 {
            counts[sampler.sample(&mut logits.clone(), &[], position).unwrap() as usize] += 1;
        }
        let weights: Vec<f64> =
            logits.iter().map(|x| (f64::from(*x) / f64::from(temperature)).exp()).collect();
        let total: f64 = weights.iter().sum();
        let probs: Vec<f32> = weights.iter().map(|w| (w / total) as f32).collect();
        assert!(chi_square(&counts, &probs) <= bound(vocab), "temperature {temperature}");
    }
}

/// The same choice, worked out by sorting everything.
fn naive(logits: &[f32], c: &SamplerConfig, position: u64) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).filter(|i| logits[*i] > f32::NEG_INFINITY).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    let max = logits[order[0]];
    if c.top_k > 0 {
        order.truncate(c.top_k);
    }
    let mut all: Vec<(usize, f32)> =
        order.into_iter().map(|i| (i, exp1((logits[i] - max) / c.temperature))).collect();
    // Logits that differ may weigh the same.
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let total: f64 = all.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let (mut mass, mut kept) = (0.0, 0);
    for (_, weight) in &all {
        if kept > 0 && (mass >= f64::from(c.top_p) * total && c.top_p < 1.0 || *weight < c.min_p) {
            break;
        }
        mass += f64::from(*weight);
        kept += 1;
    }
    let (target, mut sum) = (uniform(c.seed, Stream::Sample, position) * mass, 0.0);
    for (i, weight) in &all[..kept] {
        sum += f64::from(*weight);
        if sum > target {
            return *i as u32;
        }
    }
    all[kept - 1].0 as u32
}

#[test]
fn filters_choose_as_sorting_everything_does() {
    let settings =
        [(1, 1.0, 0.0), (40, 1.0, 0.0), (0, 0.9, 0.0), (0, 0.999, 0.0), (0, 1.0, 0.02), (500, 0.95, 0.001)];
    for (n, (top_k, top_p, min_p)) in settings.into_iter().enumerate() {
        for (vocab, temperature) in
            [(7, 1.0), (3000, 0.8), (3000, 4.0), (60_000, 0.7), (60_000, 9.0), (20_000, 1e5), (20_000, 1e9)]
        {
            let mut logits = random_logits(n as u64, vocab);
            logits[vocab / 2] = f32::NAN;
            logits[vocab / 3] = f32::NEG_INFINITY;
            let config =
                SamplerConfig { temperature, top_k, top_p, min_p, seed: 9, ..SamplerConfig::default() };
            let mut sampler = sampler(&config, vocab);
            for position in 0..if vocab > 10_000 { 4 } else { 25 } {
                let ours = sampler.sample(&mut logits.clone(), &[], position).unwrap();
                assert_eq!(ours, naive(&logits, &config, position), "{config:?} of {vocab} at {position}");
            }
        }
    }
}

#[test]
fn instruction_sets_choose_alike_and_in_the_order_of_ids() {
    for (vocab, temperature) in [(5, 1.0), (700, 0.6), (50_000, 1.5)] {
        let mut logits = random_logits(vocab as u64, vocab);
        (logits[1], logits[vocab / 2]) = (f32::NAN, f32::NEG_INFINITY);
        let max = logits.iter().copied().filter(|x| !x.is_nan()).fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f64> = logits
            .iter()
            .map(|x| if x.is_nan() { 0.0 } else { f64::from(exp1((x - max) / temperature)) })
            .collect();
        let total: f64 = weights.iter().sum();
        let config = SamplerConfig { temperature, seed: 5, ..SamplerConfig::default() };
        let mut samplers: Vec<Sampler> = Ops::all()
            .into_iter()
            .map(|ops| Sampler::with_ops(ops, config.clone(), vocab).unwrap())
            .collect();
        for position in 0..200 {
            let mut ids = samplers.iter_mut().map(|s| s.sample(&mut logits.clone(), &[], position).unwrap());
            let id = ids.next().unwrap() as usize;
            assert!(ids.all(|other| other as usize == id), "{vocab} at {position}");
            // The share that was drawn ends within the token, but for the rounding of sums over blocks of 128.
            let before: f64 = weights[..id].iter().sum();
            let target = uniform(config.seed, Stream::Sample, position) * total;
            let slack = 16.0 * f64::from(f32::EPSILON) * total;
            assert!(
                before - slack <= target && target <= before + weights[id] + slack,
                "{vocab} at {position}"
            );
            assert!(weights[id] > 0.0);
        }
    }
}

#[test]
fn choosing_leaves_the_logits_and_chooses_what_sampling_does() {
    let logits = random_logits(8, 2000);
    let base = SamplerConfig { temperature: 0.9, seed: 2, ..SamplerConfig::default() };
    let configs = [
        SamplerConfig::default(),
        base.clone(),
        SamplerConfig { top_k: 12, ..base.clone() },
        SamplerConfig { top_k: 1, min_p: 0.3, ..base.clone() },
        SamplerConfig { top_p: 0.7, ..base.clone() },
        SamplerConfig { logit_bias: vec![(4, 30.0)], ..SamplerConfig::default() },
        SamplerConfig { top_k: 7, repetition_penalty: 1.5, ..base },
    ];
    for config in configs {
        let (mut sampler, mut scratch) = (sampler(&config, logits.len()), Vec::new());
        for position in 0..50 {
            let chosen = sampler.choose(&logits, &mut scratch, &[3, 4, 5], position).unwrap();
            let sampled = sampler.sample(&mut logits.clone(), &[3, 4, 5], position).unwrap();
            assert_eq!(chosen, sampled, "{config:?}");
        }
        assert!(sampler.choose(&logits[1..], &mut scratch, &[], 0).is_err());
    }
}

#[test]
fn penalties_count_within_the_window() {
    let config = SamplerConfig {
        frequency_penalty: 0.5,
        presence_penalty: 0.25,
        repetition_penalty: 2.0,
        penalty_window: 4,
        logit_bias: vec![(3, f32::NEG_INFINITY)],
        ..SamplerConfig::default()
    };
    let mut sampler = sampler(&config, 5);
    for _ in 0..2 {
        let mut logits = [4.0, 4.0, -4.0, 9.0, 1.0];
        // Token 0 lies before the window; 99 is none of the vocabulary's.
        let id = sampler.sample(&mut logits, &[0, 1, 99, 1, 2], 0).unwrap();
        assert_eq!(logits, [4.0, 0.75, -8.75, f32::NEG_INFINITY, 1.0]);
        assert_eq!(id, 0);
    }
}

#[test]
fn a_choice_depends_on_seed_and_position_alone() {
    let logits = random_logits(4, 1000);
    let config = SamplerConfig { temperature: 1.0, seed: 3, ..SamplerConfig::default() };
    let run = |config: &SamplerConfig, order: &mut dyn Iterator<Item = u64>| -> Vec<(u64, u32)> {
        let mut sampler = sampler(config, logits.len());
        let mut ids: Vec<_> =
            order.map(|at| (at, sampler.sample(&mut logits.clone(), &[], at).unwrap())).collect();
        ids.sort_unstable();
        ids
    };
    let first = run(&config, &mut (0..20));
    assert_eq!(first, run(&config, &mut (0..20).rev()));
    assert_ne!(first, run(&SamplerConfig { seed: 4, ..config }, &mut (0..20)));
}

#[test]
fn log_probabilities_are_those_of_a_softmax() {
    let mut logits = random_logits(6, 300);
    (logits[5], logits[6]) = (f32::NAN, f32::NEG_INFINITY);
    let finite = || logits.iter().filter(|x| x.is_finite()).map(|x| f64::from(*x));
    let lse = finite().map(f64::exp).sum::<f64>().ln();
    let top = top_logprobs(&logits, 10);
    assert_eq!(top.len(), 10);
    assert!(top.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    for &(id, ours) in &top {
        let exact = f64::from(logits[id as usize]) - lse;
        // The f32 exponentials are within two units in the last place, so is their sum; then one rounding.
        let bound = f64::from(f32::EPSILON) * (2.0 + exact.abs());
        assert!((f64::from(ours) - exact).abs() <= bound, "{ours} is not {exact}");
        assert_eq!(ours.to_bits(), logprob(&logits, id).to_bits());
    }
    assert_eq!(top_logprobs(&logits, 1000).len(), 298);
    assert_eq!(top_logprobs(&[f32::NAN, f32::NEG_INFINITY], 3), []);
    assert_eq!(logprob(&logits, 5), f32::NEG_INFINITY);
    assert_eq!(logprob(&logits, 300), f32::NEG_INFINITY);
}
