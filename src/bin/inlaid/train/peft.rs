//! Floor 6: the options that say what adapter learns. Knows no loop.

use crate::args::at_least_one;
use crate::output::Failure;
use clap::{Args, ValueEnum};
use inlaid::kernels::act::Act;
use inlaid::model::Model;
use inlaid::train::before::PromptConfig;
use inlaid::train::ia3::Ia3Config;
use inlaid::train::lora::LoraConfig;
use inlaid::train::{BottleneckConfig, What, Width};
use serde_json::{Value, json};

/// Kinds of adapters.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Kind {
    /// Products of two narrow matrices beside linears
    Lora,
    /// The same, with magnitudes apart from directions
    Dora,
    /// Factors of keys, values and what the end of an MLP reads
    Ia3,
    /// Vectors before a text
    Prompt,
    /// Keys and values before a text, in every block
    Prefix,
    /// Small MLPs behind the halves of blocks
    Bottleneck,
    /// Biases of linears and norms
    Bias,
}

/// Activations between the matrices of small MLPs.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Between {
    Relu,
    Silu,
    /// By the error function
    Gelu,
    /// The approximation by tanh
    GeluNew,
    Tanh,
}

/// Where small MLPs are.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Place {
    /// Behind attention and MLP (Houlsby et al. 2019)
    Both,
    /// Behind the MLP (Pfeiffer et al. 2020)
    Mlp,
}

/// What adapter learns.
#[derive(Args)]
pub struct Peft {
    /// Learn an adapter of this kind; the weights stay as they are [default: with --lora-rank, lora]
    #[arg(long, value_enum, value_name = "KIND", help_heading = "Adapters")]
    peft: Option<Kind>,
    /// Rank of LoRA and DoRA [default: 8]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Adapters")]
    lora_rank: Option<usize>,
    /// What their product is multiplied by, times the rank [default: twice the rank]
    #[arg(long, value_name = "X", help_heading = "Adapters")]
    lora_alpha: Option<f32>,
    /// What LoRA, DoRA, IA3 and biases change, by parts of names, separated by commas [default: all; of IA3 keys, values and the
    /// ends of MLPs]
    #[arg(
        long,
        visible_alias = "peft-targets",
        value_name = "NAMES",
        value_delimiter = ',',
        help_heading = "Adapters"
    )]
    lora_targets: Vec<String>,
    /// Those of IA3's targets whose inputs are scaled, not their outputs
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        requires = "lora_targets",
        help_heading = "Adapters"
    )]
    ia3_feedforward: Vec<String>,
    /// Vectors of a prompt or prefix
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = at_least_one, help_heading = "Adapters")]
    virtual_tokens: usize,
    /// A text that a prompt begins as [default: random vectors]
    #[arg(long, value_name = "TEXT", help_heading = "Adapters")]
    prompt_text: Option<String>,
    /// The model's width over that of small MLPs
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one, help_heading = "Adapters")]
    bottleneck_reduction: usize,
    /// Their width itself
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Adapters")]
    bottleneck_width: Option<usize>,
    /// Their activation [default: of `both` silu, of `mlp` relu]
    #[arg(long, value_enum, value_name = "ACT", help_heading = "Adapters")]
    bottleneck_activation: Option<Between>,
    /// Where they are
    #[arg(long, value_enum, value_name = "PLACE", default_value = "both", help_heading = "Adapters")]
    bottleneck_place: Place,
}

impl Peft {
    fn kind(&self) -> Option<Kind> {
        self.peft.or(self.lora_rank.map(|_| Kind::Lora))
    }

    /// Whether an adapter learns.
    pub fn is_some(&self) -> bool {
        self.kind().is_some()
    }

    /// Positions that come before a text.
    pub fn lead(&self) -> usize {
        if matches!(self.kind(), Some(Kind::Prompt | Kind::Prefix)) { self.virtual_tokens } else { 0 }
    }

    /// What learns; `None` where it is no adapter.
    ///
    /// # Errors
    /// `Usage` for settings of no adapter or of another kind; where a text cannot be read as tokens.
    pub fn what(&self, model: &Model) -> Result<Option<What>, Failure> {
        self.check()?;
        let Some(kind) = self.kind() else { return Ok(None) };
        let (tokens, targets) = (self.virtual_tokens, self.lora_targets.clone());
        Ok(Some(match kind {
            Kind::Lora => What::Lora(self.lora()),
            Kind::Dora => What::Dora(self.lora()),
            Kind::Ia3 => What::Ia3(Ia3Config { targets, feedforward: self.ia3_feedforward.clone() }),
            Kind::Prompt => {
                let text = self.prompt_text.as_ref();
                let text = text.map(|text| Ok::<_, Failure>(model.tokenizer()?.encode(text, false, false)?));
                What::Prompt(PromptConfig { tokens, text: text.transpose()?.unwrap_or_default() })
            }
            Kind::Prefix => What::Prefix(tokens),
            Kind::Bottleneck => What::Bottleneck(self.bottleneck()),
            Kind::Bias => What::Biases(targets),
        }))
    }

    fn lora(&self) -> LoraConfig {
        let rank = self.lora_rank.unwrap_or(8);
        LoraConfig {
            rank,
            alpha: self.lora_alpha.unwrap_or(2.0 * rank as f32),
            targets: self.lora_targets.clone(),
        }
    }

    fn bottleneck(&self) -> BottleneckConfig {
        let act = self.bottleneck_activation.map(|act| match act {
            Between::Relu => Act::Relu,
            Between::Silu => Act::Silu,
            Between::Gelu => Act::GeluErf,
            Between::GeluNew => Act::GeluTanh,
            Between::Tanh => Act::Tanh,
        });
        let width = self.bottleneck_width.map_or(Width::Over(self.bottleneck_reduction), Width::Is);
        BottleneckConfig { width, act, both: self.bottleneck_place == Place::Both }
    }

    /// Refuses settings that the kind does not have.
    fn check(&self) -> Result<(), Failure> {
        use Kind::{Bias, Bottleneck, Dora, Ia3, Lora, Prompt};
        let given = [
            ("--lora-rank", self.lora_rank.is_some(), &[Lora, Dora][..]),
            ("--lora-alpha", self.lora_alpha.is_some(), &[Lora, Dora]),
            ("--lora-targets", !self.lora_targets.is_empty(), &[Lora, Dora, Ia3, Bias]),
            ("--ia3-feedforward", !self.ia3_feedforward.is_empty(), &[Ia3]),
            ("--prompt-text", self.prompt_text.is_some(), &[Prompt]),
            ("--bottleneck-width", self.bottleneck_width.is_some(), &[Bottleneck]),
            ("--bottleneck-activation", self.bottleneck_activation.is_some(), &[Bottleneck]),
        ];
        let fits = |kinds: &[Kind]| self.kind().is_some_and(|kind| kinds.contains(&kind));
        match given.into_iter().find(|(_, given, kinds)| *given && !fits(kinds)) {
            None => Ok(()),
            Some((option, _, kinds)) => {
                let kinds: Vec<String> =
                    kinds.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect();
                Err(Failure::Usage(format!("{option} goes with --peft {}", kinds.join(" or "))))
            }
        }
    }

    /// All that what learns depends on, as a checkpoint says it.
    pub fn said(&self) -> Value {
        json!({
            "kind": self.kind().map(|kind| format!("{kind:?}")), "rank": self.lora_rank, "alpha": self.lora_alpha,
            "targets": self.lora_targets, "feedforward": self.ia3_feedforward, "virtual_tokens": self.virtual_tokens,
            "text": self.prompt_text, "bottleneck": format!("{:?}", self.bottleneck()),
        })
    }
}
