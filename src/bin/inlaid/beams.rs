//! Floor 6: what an answer begins with and may hold, and beam search, as options. Knows no sessions.

use crate::interrupt;
use crate::output::{Bar, Failure, Unit, json, print};
use clap::{Args, ValueEnum};
use inlaid::beam::{self, BeamConfig, Hypothesis, Prompt};
use inlaid::model::Model;
use inlaid::rules::{EarlyStopping, Rules};
use serde_json::{Value, json};
use std::sync::atomic::AtomicBool;

/// How an answer is searched for.
#[derive(Args)]
#[command(next_help_heading = "How an answer is searched for")]
pub struct Searching {
    /// Beams: the most likely answer as a whole, not token by token; 1: none [default: the model's own for models with
    /// an encoder, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    beams: Option<u8>,
    /// With beams: an answer's log-probability is divided by its length to this power [default: the model's own, else 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    length_penalty: Option<f32>,
    /// With beams: when to stop [default: the model's own, else likely]
    #[arg(long, value_name = "WHEN")]
    early_stopping: Option<Early>,
    /// No run of N tokens appears twice; 0: any may [default: the model's own, else 0]
    #[arg(long, value_name = "N")]
    no_repeat_ngram: Option<usize>,
    /// The answer's first token, by its text: the language of a translation, say
    #[arg(long, value_name = "TOKEN")]
    first: Option<String>,
    /// What the decoder begins with, of models with an encoder [default: the model's own]
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    decoder_ids: Vec<u32>,
}

/// When a beam search ends.
#[derive(Clone, Copy, ValueEnum)]
enum Early {
    /// When no beam is better, at its present length, than the worst answer
    Likely,
    /// When there are as many answers as beams
    Full,
    /// When no beam can become better
    Never,
}

impl Searching {
    /// Splits what was given into a source text and what the decoder begins with.
    ///
    /// # Errors
    /// `Usage` for decoder ids of a model without an encoder; where a model names no first token.
    pub fn split<'a>(&self, model: &Model, prompt: &'a [u32]) -> Result<(&'a [u32], Vec<u32>), Failure> {
        if !model.arch().reads_source() {
            if !self.decoder_ids.is_empty() {
                return Err(Failure::Usage("--decoder-ids: this model has no encoder".to_owned()));
            }
            return Ok((&[], prompt.to_vec()));
        }
        let first = match &self.decoder_ids[..] {
            [] => vec![model.first_token()?],
            given => given.to_vec(),
        };
        Ok((prompt, first))
    }

    /// Beams to search with.
    pub fn beams(&self, model: &Model) -> usize {
        let own = model.generation().num_beams.filter(|_| model.arch().reads_source());
        self.beams.map_or(own.unwrap_or(1), usize::from).clamp(1, 64)
    }

    /// The model's rules with what was given.
    ///
    /// # Errors
    /// `Usage` for a token that the model does not know.
    pub fn rules(&self, model: &Model) -> Result<Rules, Failure> {
        let mut rules = model.generation().rules.clone();
        rules.no_repeat_ngram = self.no_repeat_ngram.unwrap_or(rules.no_repeat_ngram);
        if let Some(token) = &self.first {
            let unknown = || Failure::Usage(format!("--first: the model has no token `{token}`"));
            rules.forced_first = Some(model.tokenizer()?.token_to_id(token).ok_or_else(unknown)?);
        }
        Ok(rules)
    }

    /// The best answers.
    ///
    /// # Errors
    /// As [`beam::search`].
    pub fn search(
        &self,
        model: &Model,
        source: &[u32],
        first: &[u32],
        max_tokens: usize,
        ends: bool,
    ) -> Result<Vec<Hypothesis>, Failure> {
        let own = model.generation();
        let mut rules = self.rules(model)?;
        if !ends {
            rules.ends.clear();
        }
        let config = BeamConfig {
            beams: self.beams(model),
            max_tokens,
            length_penalty: self.length_penalty.or(own.length_penalty).unwrap_or(1.0),
            early_stopping: self.early_stopping.map_or(own.early_stopping, |early| match early {
                Early::Likely => EarlyStopping::Likely,
                Early::Full => EarlyStopping::Full,
                Early::Never => EarlyStopping::Never,
            }),
            rules,
        };
        let mut bar = Bar::new("searching", Unit::Plain);
        let mut tell = |done, total| {
            bar.at(done, total);
            interrupt::flow()
        };
        let prompt = Prompt { source, ids: first };
        let never = AtomicBool::new(false);
        let mut all = beam::search(model, &[prompt], &config, &never, &mut Some(&mut tell))?;
        Ok(all.pop().unwrap_or_default())
    }

    /// Prints the best answer, or as JSON all of them.
    ///
    /// # Errors
    /// `Output`.
    pub fn show(
        &self,
        model: &Model,
        prompt: &[u32],
        answers: &[Hypothesis],
        as_json: bool,
    ) -> Result<(), Failure> {
        let text =
            |ids: &[u32]| model.tokenizer().ok().and_then(|tokenizer| tokenizer.decode(ids, true).ok());
        let ended = |ids: &[u32]| ids.last().is_some_and(|id| model.is_end(*id));
        let object = |answer: &Hypothesis| {
            json!({
                "ids": answer.ids,
                "text": text(&answer.ids),
                "score": answer.score,
                "finish": if ended(&answer.ids) { "end" } else { "length" },
            })
        };
        let mut all = answers.iter().map(object);
        if as_json {
            let mut best = all.next().unwrap_or_else(|| json!({"ids": [], "text": "", "finish": "length"}));
            best["prompt_ids"] = prompt.into();
            best["others"] = all.collect::<Vec<Value>>().into();
            return json(&best);
        }
        let Some(best) = answers.first() else { return Ok(()) };
        let shown = text(&best.ids)
            .unwrap_or_else(|| best.ids.iter().map(u32::to_string).collect::<Vec<String>>().join(","));
        print(&format!("{shown}\n"))
    }
}
