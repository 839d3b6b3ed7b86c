//! Floor 3: RoBERTa (Liu et al. 2019), XLM-RoBERTa and CamemBERT: BERT's block; positions begin after the padding token's.

use super::bert::{IGNORED, NAMES, linear, stack, tokens};
use super::head::labels;
use super::{Arch, Head, Linear, Position, Table, Task};
use crate::error::Result;
use crate::format::config::Config;
use kernels::act::Act;

pub fn arch(c: &Config) -> Result<Arch> {
    let mut stack = stack(c, NAMES)?;
    let pad = pad(c)?;
    let offset = pad as usize + 1;
    stack.position = Position::Table { table: Table::Learned, offset, pad: Some(pad) };
    let head = head(c, stack.d_model, stack.embed.vocab)?;
    let positions = c.usize_or("max_position_embeddings", 512)?.saturating_sub(offset);
    Ok(Arch { prefix: "roberta.", ignored: IGNORED, ..Arch::encoder("roberta", positions, stack, head) })
}

/// The padding token, which takes a row of the table of positions.
fn pad(c: &Config) -> Result<u32> {
    let pad = c.usize_or("pad_token_id", 1)?;
    u32::try_from(pad).ok().filter(|pad| *pad < 1 << 16).ok_or_else(|| {
        c.bad(&format!("pad_token_id: expected a number below 65536 (it counts positions), found {pad}"))
    })
}

/// RoBERTa's heads, which MPNet has too.
pub fn head(c: &Config, d: usize, vocab: usize) -> Result<Head> {
    Ok(match Task::of(c, Task::Hidden)? {
        Task::MaskedLm | Task::LanguageModel => Head::masked(
            (linear("lm_head.dense"), d),
            Act::GeluErf,
            "lm_head.layer_norm",
            Linear::new("lm_head.decoder"),
            "lm_head.bias",
            c.bool_or("tie_word_embeddings", true)?,
            vocab,
        ),
        Task::Classify => {
            let out = linear("classifier.out_proj");
            Head::first((linear("classifier.dense"), d), Act::Tanh, out, labels(c)?)
        }
        task => tokens(c, task, Head::pooler((linear("pooler.dense"), d)))?,
    })
}
