//! How long choosing a token takes, by one thread, for a vocabulary of 150,000: `cargo bench --bench sampling`. The target
//! is 200 us with every kind of filter.

use inlaid::kernels::Ops;
use inlaid::rng::{Stream, uniform};
use inlaid::sample::{Sampler, SamplerConfig};
use std::hint::black_box;
use std::time::Instant;

const VOCAB: usize = 150_000;
const ROUNDS: usize = 60;

/// Logits as a model gives them: a bell (a sum of uniform numbers) with a few that stand out.
fn logits(seed: u64) -> Vec<f32> {
    let draw = |at| uniform(seed, Stream::Sample, at) as f32;
    let one = |i: u64| {
        let bell: f32 = (0..6).map(|j| draw(8 * i + j)).sum();
        4.0 * (bell - 3.0) + if draw(8 * i + 7) < 1e-3 { 9.0 * draw(8 * i + 6) } else { 0.0 }
    };
    (0..VOCAB as u64).map(one).collect()
}

fn main() {
    let base = SamplerConfig { temperature: 0.8, ..SamplerConfig::default() };
    let settings = [
        ("greedy", SamplerConfig::default()),
        ("temperature", base.clone()),
        ("top-k 40", SamplerConfig { top_k: 40, ..base.clone() }),
        ("top-k 40, top-p 0.9", SamplerConfig { top_k: 40, top_p: 0.9, ..base.clone() }),
        ("top-p 0.9", SamplerConfig { top_p: 0.9, ..base.clone() }),
        ("top-p 0.5", SamplerConfig { top_p: 0.5, ..base.clone() }),
        ("flat, top-p 0.95", SamplerConfig { temperature: 10.0, top_p: 0.95, ..base.clone() }),
        ("min-p 0.05", SamplerConfig { min_p: 0.05, ..base.clone() }),
        ("penalties", SamplerConfig { repetition_penalty: 1.1, ..base }),
    ];
    let (rows, history): (Vec<_>, Vec<u32>) = ((0..4).map(logits).collect(), (0..1000).collect());
    let mut scratch = Vec::with_capacity(VOCAB);
    for ops in Ops::all() {
        for (name, config) in &settings {
            let mut sampler =
                Sampler::with_ops(ops, config.clone(), VOCAB).expect("settings within their ranges");
            let mut times: Vec<f64> = (0..ROUNDS)
                .map(|round| {
                    let (row, start) = (&rows[round % rows.len()], Instant::now());
                    let id = sampler.choose(black_box(row), &mut scratch, &history, round as u64);
                    black_box(id).expect("a token");
                    start.elapsed().as_secs_f64() * 1e6
                })
                .collect();
            times.sort_by(f64::total_cmp);
            println!(
                "{:<18} {name:<20} {:>8.1} us (at least {:.1})",
                ops.name(),
                times[ROUNDS / 2],
                times[0]
            );
        }
    }
}
