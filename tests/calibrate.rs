//! Calibration: every linear that is quantised gets its guide, outputs over the text come closer for it, the same bits for
//! any number of threads, and what cannot be is refused.

mod common;

use common::{Random, all_logits, engine, open, session, write_model};
use inlaid::Error;
use inlaid::calibrate::importance;
use inlaid::engine::{Engine, EngineConfig};
use inlaid::format::files::Files;
use inlaid::kernels::DType;
use inlaid::model::{Model, ModelConfig};
use inlaid::pack::{Hold, Importance};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const LLAMA: &str = r#"{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 800, "vocab_size": 101,
    "max_position_embeddings": 200, "rms_norm_eps": 1e-5}"#;
const GPT2: &str = r#"{"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": 300,
    "vocab_size": 77}"#;
/// Down takes 90 inputs, which are not whole blocks.
const ODD: &str = r#"{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 16, "intermediate_size": 90, "vocab_size": 101,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true}"#;

fn quantised(engine: &Arc<Engine>, dir: &Path, weights: Hold, importance: Option<&Importance>) -> Arc<Model> {
    let config = ModelConfig { weights, importance, no_tokenizer: true, ..ModelConfig::default() };
    Model::open(engine, &Files::at(dir).unwrap(), config).unwrap()
}

/// Logits after every token, in windows that the model takes.
fn logits(model: &Arc<Model>, ids: &[u32]) -> Vec<u32> {
    ids.chunks(60).flat_map(|ids| all_logits(&mut session(model), ids)).collect()
}

/// Mean square of what `got` is off.
fn off(got: &[u32], right: &[u32]) -> f64 {
    let square =
        |(a, b): (&u32, &u32)| (f64::from(f32::from_bits(*a)) - f64::from(f32::from_bits(*b))).powi(2);
    got.iter().zip(right).map(square).sum::<f64>() / right.len() as f64
}

#[test]
fn logits_come_closer_and_threads_change_no_bit() {
    for (config, vocab, context) in [(LLAMA, 101, 200), (GPT2, 77, 300)] {
        let dir = write_model(config, DType::F32);
        let engines = [engine(1, None), engine(3, None)];
        let model = open(&engines[0], dir.path(), None);
        // Windows of the whole context and a rest, the last of one token.
        let ids = Random(3).ids(3 * context + 1, vocab);
        let right = logits(&model, &ids);
        let plain = off(&logits(&quantised(&engines[0], dir.path(), Hold::Q4, None), &ids), &right);
        let led = engines.map(|engine| {
            let found = importance(&open(&engine, dir.path(), None), &ids, &mut None).unwrap();
            logits(&quantised(&engine, dir.path(), Hold::Q4, Some(&found)), &ids)
        });
        assert_eq!(led[0], led[1], "threads");
        let led = off(&led[0], &right);
        assert!(led < plain, "{led} with calibration, {plain} without");
    }
}

#[test]
fn every_matrix_of_whole_blocks_has_its_guide() {
    let ids = Random(1).ids(100, 101);
    let engine = engine(2, None);
    for (config, odd) in [(LLAMA, false), (ODD, true)] {
        let dir = write_model(config, DType::BF16);
        let model = open(&engine, dir.path(), None);
        let found = importance(&model, &ids, &mut None).unwrap();
        let guided = |name: &str| found.get(name).map(|guide| guide.k());
        for name in
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj"]
        {
            assert_eq!(guided(&format!("model.layers.0.{name}.weight")), Some(64), "{name}");
        }
        let down = guided("model.layers.0.mlp.down_proj.weight");
        assert_eq!(down, if odd { None } else { Some(800) });
        let head = if odd { "model.embed_tokens.weight" } else { "model.lm_head.weight" };
        assert_eq!(guided(head), Some(64));
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = write_model(LLAMA, DType::F32);
    let engine = engine(1, None);
    let model = open(&engine, dir.path(), None);
    let refused = |ids: &[u32]| importance(&model, ids, &mut None).err();
    assert!(matches!(refused(&[]), Some(Error::Argument { .. })));
    assert!(matches!(refused(&[1, 101]), Some(Error::Argument { .. })));
    let (mut seen, ids) = (Vec::new(), Random(5).ids(300, 101));
    let mut tell = |done, total| {
        seen.push((done, total));
        if done >= 200 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert!(matches!(importance(&model, &ids, &mut Some(&mut tell)), Err(Error::Cancelled)));
    assert_eq!(seen, [(0, 300), (128, 300), (200, 300)]);
    drop(model);
    assert_eq!(engine.used_bytes(), 0, "all is given back");
}

#[test]
fn the_budget_counts_guides() {
    let dir = write_model(LLAMA, DType::F32);
    let engine =
        Engine::new(EngineConfig { threads: 1, budget: Some(30 << 20), ..EngineConfig::default() }).unwrap();
    let model = open(&engine, dir.path(), None);
    let before = engine.used_bytes();
    let ids = Random(5).ids(100, 101);
    let found = importance(&model, &ids, &mut None).unwrap();
    // Per block three inputs of 64 and one of 800 in spans of 512 and 288; the head's 64.
    let moments = 4 * (2 * (3 * 64 * 64 + 512 * 512 + 288 * 288) + 64 * 64);
    assert_eq!(engine.used_bytes() - before, moments);
    drop(found);
    assert_eq!(engine.used_bytes(), before);
    drop(model);
    let small =
        Engine::new(EngineConfig { threads: 1, budget: Some(1 << 20), ..EngineConfig::default() }).unwrap();
    let model = open(&small, dir.path(), None);
    assert!(matches!(importance(&model, &ids, &mut None), Err(Error::Budget { .. })));
}
