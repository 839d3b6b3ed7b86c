//! Floor 5: how tokens are chosen: the settings and their ranges. Knows no logits.

use crate::error::{Error, Result};

/// How tokens are chosen. The default is the most likely one.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerConfig {
    /// Divides the logits; 0: always the most likely token, the lowest id among equals.
    pub temperature: f32,
    /// Only the `top_k` most likely tokens, the lower ids among equals; 0: all.
    pub top_k: usize,
    /// Only the most likely tokens that have this probability together (Holtzman et al. 2020), in (0, 1].
    pub top_p: f32,
    /// Only tokens with at least this share of the highest probability (Nguyen et al. 2024), in [0, 1].
    pub min_p: f32,
    /// Divides positive logits of tokens seen before and multiplies negative ones (Keskar et al. 2019); 1: none.
    pub repetition_penalty: f32,
    /// Taken from a token's logit once for each time it was seen.
    pub frequency_penalty: f32,
    /// Taken from a token's logit if it was seen.
    pub presence_penalty: f32,
    /// Only the last so many tokens count as seen; 0: all.
    pub penalty_window: usize,
    /// Added to the logits of tokens, one after the other; minus infinity bans one.
    pub logit_bias: Vec<(u32, f32)>,
    /// The same seed, tokens and logits give the same choice.
    pub seed: u64,
}

impl Default for SamplerConfig {
    fn default() -> SamplerConfig {
        SamplerConfig {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_window: 0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl SamplerConfig {
    /// # Errors
    /// `Argument` for a setting out of its range.
    pub(super) fn check(&self, vocab: usize) -> Result<()> {
        let ranges = [
            ("temperature", self.temperature, self.temperature >= 0.0, "0 or more"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1"),
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0.0, "above 0"),
            ("frequency_penalty", self.frequency_penalty, true, "a finite number"),
            ("presence_penalty", self.presence_penalty, true, "a finite number"),
        ];
        for (name, value, within, range) in ranges {
            if !within || !value.is_finite() {
                return Err(Error::Argument { name, what: format!("expected {range}, found {value}") });
            }
        }
        for &(id, bias) in &self.logit_bias {
            if id as usize >= vocab || bias.is_nan() || bias == f32::INFINITY {
                let what = format!(
                    "expected an id below {vocab} and a number or minus infinity, found {bias} for {id}"
                );
                return Err(Error::Argument { name: "logit_bias", what });
            }
        }
        Ok(())
    }

    pub(super) fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }

    pub(super) fn filters(&self) -> bool {
        self.top_k != 0 || self.top_p < 1.0 || self.min_p > 0.0
    }

    /// What top-p wants of the weight `total`, in the units of both; more than there is without it.
    pub(super) fn wanted(&self, total: f64) -> u64 {
        if self.top_p < 1.0 { (f64::from(self.top_p) * total).ceil() as u64 } else { u64::MAX }
    }
}
