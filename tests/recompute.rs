//! Blocks that are computed again for their gradients: the same bits, in less memory.
#![cfg(feature = "train")]

mod common;
#[path = "common/steps.rs"]
mod steps;

use inlaid::kernels::DType;
use inlaid::model::Model;
use inlaid::train::{LearnConfig, Learner, Sample, What};
use std::sync::Arc;
use steps::{GO, lora, model};

/// Log-probabilities and gradients of two samples, and bytes of the buffers that they took.
fn pass(model: &Arc<Model>, learn: &LearnConfig) -> (Vec<u32>, u64) {
    let ids: [Vec<u32>; 2] = [30, 7].map(|n| (0..n).map(|t| 5 + (7 * t) % 40).collect());
    let rows: [Vec<u32>; 2] = [30, 7].map(|n| (0..n).filter(|row| row % 4 != 1).collect());
    let targets: [Vec<u32>; 2] = [0, 1].map(|i| rows[i].iter().map(|row| 6 + row).collect());
    let pairs = model.arch().reads_source();
    let source = |i: usize| if pairs { &ids[1 - i][..] } else { &[] };
    let sample = |i: usize| Sample {
        ids: &ids[i],
        source: source(i),
        rows: &rows[i],
        targets: &targets[i],
        ..Sample::default()
    };
    let mut learner = Learner::new(model, learn).expect("a learner");
    learner.forward(&[sample(0), sample(1)], &GO).expect("forward");
    let mut all: Vec<u32> = learner.logprobs().iter().map(|x| x.to_bits()).collect();
    let seeds: Vec<f32> = (0..all.len() / 2 * 3).map(|i| 0.1 * (i % 7) as f32 - 0.25).collect();
    let values = vec![0.5; learner.values().len()];
    learner.backward(&seeds, &values, &GO).expect("backward");
    all.extend(
        learner.learned().iter().flat_map(|one| one.grads.iter().map(|x| x.to_bits()).collect::<Vec<_>>()),
    );
    (all, learner.buffer_bytes())
}

#[test]
fn the_bits_are_those_of_blocks_that_are_kept() {
    let names = [
        "llama-gqa",
        "gpt2",
        "gemma2",
        "gpt-neox",
        "bloom",
        "mistral-window",
        "qwen3",
        "olmo2",
        "gptj",
        "opt-350m",
        "bert-mlm",
        "modernbert-mlm",
        "distilbert-mlm",
        "mpnet-mlm",
        "t5",
        "mt5",
        "bart",
        "m2m_100",
    ];
    for name in names {
        let model = model(name);
        let values = LearnConfig { value_head: true, ..LearnConfig::default() };
        let named =
            |part: &str| LearnConfig { what: What::Named(vec![part.to_owned()]), ..LearnConfig::default() };
        for learn in [LearnConfig::default(), values, lora(3), named("0.")] {
            let (kept, _) = pass(&model, &learn);
            let (again, _) = pass(&model, &LearnConfig { recompute: true, ..learn });
            assert!(kept == again, "{name}: other bits");
        }
    }
}

#[test]
fn deep_models_take_a_fraction_of_the_memory() {
    let config = r#"{"model_type": "llama", "num_hidden_layers": 24, "hidden_size": 64, "num_attention_heads": 4,
        "intermediate_size": 160, "vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-5}"#;
    let dir = common::write_model(config, DType::F32);
    let model = common::open(&common::engine(2, None), dir.path(), None);
    for learn in [LearnConfig::default(), lora(4)] {
        let (kept, more) = pass(&model, &learn);
        let (again, less) = pass(&model, &LearnConfig { recompute: true, ..learn });
        assert!(kept == again, "other bits");
        assert!(less * 5 < more, "{less} of {more} bytes");
    }
}
