//! Floor 3: ELECTRA (Clark et al. 2020): BERT's block; embeddings may be narrower; a generator guesses masked tokens, a
//! discriminator which tokens were replaced.

use super::bert::{IGNORED, NAMES, linear, stack, tokens};
use super::head::{class, labels};
use super::{Arch, Head, Linear, Names, Rows, Task, act, skip};
use crate::error::Result;
use crate::format::config::Config;
use kernels::act::Act;

pub fn arch(c: &Config) -> Result<Arch> {
    skip(c, &["summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout"]);
    let mut stack = stack(c, Names { project: linear("embeddings_project"), ..NAMES })?;
    stack.embed.width = c.usize_or("embedding_size", 128)?;
    let (d, vocab) = (stack.d_model, stack.embed.vocab);
    let head = match Task::of(c, Task::Hidden)? {
        // What other families call so guesses masked tokens.
        _ if class(c) == Some("ElectraForPreTraining") => Head {
            dense: Some((linear("discriminator_predictions.dense"), d)),
            act: Some(act(c, "hidden_act", "gelu")?),
            ..Head::classes(Task::Tag, Rows::All, linear("discriminator_predictions.dense_prediction"), 1)
        },
        Task::MaskedLm | Task::LanguageModel => Head::masked(
            (linear("generator_predictions.dense"), stack.embed.width),
            Act::GeluErf,
            "generator_predictions.LayerNorm",
            Linear::new("generator_lm_head"),
            "generator_lm_head.bias",
            c.bool_or("tie_word_embeddings", true)?,
            vocab,
        ),
        Task::Classify => {
            let out = linear("classifier.out_proj");
            Head::first((linear("classifier.dense"), d), Act::GeluErf, out, labels(c)?)
        }
        task => tokens(c, task, Head::NONE)?,
    };
    let arch = Arch::encoder("electra", c.usize_or("max_position_embeddings", 512)?, stack, head);
    Ok(Arch { prefix: "electra.", ignored: IGNORED, ..arch })
}
