//! Floor 6: the answers of the calls that learn in a build without the feature `train`.

use super::learning::TrainConfig;
use super::ppo::{inlaid_ppo_config, inlaid_ppo_stats};
use super::train::{Example, inlaid_train_report};
use crate::adapter::Adapter;
use crate::error::{Error, Result};
use crate::model::Model;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Nobody: there is none.
pub(super) enum Teacher {}

fn lacking<T>() -> Result<T> {
    Err(Error::Unsupported {
        file: "this library".to_owned(),
        what: "learning (it was built without the feature `train`)".to_owned(),
    })
}

impl Teacher {
    pub fn new(_: &Arc<Model>, _: &TrainConfig) -> Result<Teacher> {
        lacking()
    }

    pub fn ppo(_: &Arc<Model>, _: &TrainConfig, _: &inlaid_ppo_config) -> Result<Teacher> {
        lacking()
    }

    pub fn step(&mut self, _: &[Example], _: &[u32], _: f32, _: &AtomicBool) -> Result<inlaid_train_report> {
        match *self {}
    }

    pub fn save(&mut self, _: Option<&str>, _: &str) -> Result<()> {
        match *self {}
    }

    pub fn adapter(&mut self) -> Result<Arc<Adapter>> {
        match *self {}
    }

    pub fn checkpoint(&mut self, _: &str) -> Result<()> {
        match *self {}
    }

    pub fn restore(&mut self, _: &str) -> Result<()> {
        match *self {}
    }

    pub fn set_mix(&mut self, _: &[Example]) -> Result<()> {
        match *self {}
    }

    pub fn begin(&mut self, _: &[Vec<u32>]) -> Result<()> {
        match *self {}
    }

    pub fn advance(&mut self, _: u64, _: &AtomicBool) -> Result<i32> {
        match *self {}
    }

    pub fn answer(&mut self, _: usize) -> Result<&[u32]> {
        match *self {}
    }

    pub fn set_rewards(&mut self, _: &[f32]) -> Result<()> {
        match *self {}
    }

    pub fn stats(&mut self) -> Result<inlaid_ppo_stats> {
        match *self {}
    }
}
