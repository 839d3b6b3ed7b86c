//! What torch did in ten steps of an objective (`tests/golden/learn/make_learn.py`), and learners to compare with it.
#![allow(dead_code)] // every test binary uses its own part

use crate::common::{engine, open};
use inlaid::kernels::attention::Cache;
use inlaid::model::Model;
use inlaid::train::data::Lesson;
use inlaid::train::lora::LoraConfig;
use inlaid::train::{LearnConfig, Learner, Rule, What};
use safetensors_reference::SafeTensors;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub static GO: AtomicBool = AtomicBool::new(false);

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A gradient below this is rounding: a bias of keys adds the same to all scores, and moves nothing.
pub const NOTHING: f32 = 1e-7;

/// The distance of two lists over the length of the second.
pub fn distance(got: &[f32], want: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let apart: f64 = got.iter().zip(want).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let length: f64 = want.iter().map(|x| square(f64::from(*x))).sum();
    (apart / length.max(1e-30)).sqrt()
}

pub fn model(name: &str) -> Arc<Model> {
    open(&engine(2, None), &golden(name), Some(Cache::F32))
}

pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect()
}

/// What torch did.
pub struct Said {
    pub json: Value,
    tensors: Vec<u8>,
}

impl Said {
    pub fn read(kind: &str) -> Said {
        let at = golden("learn/steps").join(kind);
        let json = std::fs::read(at.with_extension("json")).expect("steps");
        let tensors = std::fs::read(at.with_extension("safetensors")).expect("tensors");
        Said { json: serde_json::from_slice(&json).expect("JSON"), tensors }
    }

    pub fn model(&self) -> Arc<Model> {
        model(self.json["model"].as_str().expect("a model"))
    }

    pub fn rule(&self) -> Rule {
        let number = |of: &Value| of.as_f64().expect("a number") as f32;
        let a = &self.json["adamw"];
        let betas = [number(&a["betas"][0]), number(&a["betas"][1])];
        Rule::AdamW { betas, eps: number(&a["eps"]), decay: number(&a["weight_decay"]) }
    }

    pub fn rate(&self) -> f32 {
        self.json["adamw"]["lr"].as_f64().expect("a rate") as f32
    }

    pub fn losses(&self) -> Vec<f64> {
        self.json["losses"].as_array().expect("losses").iter().map(|x| x.as_f64().expect("a loss")).collect()
    }

    /// Every tensor lies within a thousandth of the way that it went.
    pub fn check(&self, learner: &Learner) {
        for (name, tensor) in SafeTensors::deserialize(&self.tensors).expect("safetensors").tensors() {
            let stored = learner.model().tensors().get(&name).expect("readable").expect("a tensor").bytes();
            let (from, want, got) =
                (floats(stored), floats(tensor.data()), learner.tensor(&name).expect("a tensor"));
            let (mut apart, mut path) = (0.0, 0.0);
            for ((from, want), got) in from.iter().zip(&want).zip(&got) {
                let (way, off) = (f64::from(want - from), f64::from(got - want));
                // What has no gradient (a bias of keys) is moved by rounding alone, in torch too.
                if way.abs() < 1e-6 || name.ends_with("k_proj.bias") {
                    assert!(off.abs() < 2e-3, "{name} moved by rounding: {off}");
                } else {
                    (apart, path) = (apart + off * off, path + way * way);
                }
            }
            let (apart, path) = (f64::sqrt(apart), f64::sqrt(path));
            assert!(apart <= 1e-3 * path.max(1e-9), "{name} is {apart:.2e} off after {path:.2e}");
        }
    }
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

pub fn lesson(ids: &[u32], first: usize) -> Lesson {
    let mut lesson = Lesson::default();
    lesson.push(&ids[..first], false);
    lesson.push(&ids[first..], true);
    lesson
}

pub fn bits(learner: &mut Learner) -> Vec<u32> {
    learner
        .learned()
        .iter()
        .flat_map(|one| one.values.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
        .collect()
}

pub fn lora(rank: usize) -> LearnConfig {
    let targets = Vec::new();
    LearnConfig { what: What::Lora(LoraConfig { rank, alpha: 16.0, targets }), ..LearnConfig::default() }
}
