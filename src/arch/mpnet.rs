//! Floor 3: MPNet (Song et al. 2020): BERT's block without token types; learned positions, and ranges of distances that all
//! blocks share.

use super::bert::{IGNORED, NAMES, linear, stack};
use super::roberta::head;
use super::{Arch, Around, Names, Position, only};
use crate::error::Result;
use crate::format::config::Config;

const OWN: Names = Names {
    types: "",
    relative: "encoder.relative_attention_bias",
    attn: Around::after("attention.LayerNorm"),
    q: linear("attention.attn.q"),
    k: linear("attention.attn.k"),
    v: linear("attention.attn.v"),
    o: linear("attention.attn.o"),
    ..NAMES
};

/// Ranges of distances, whatever the table has rows for.
const BUCKETS: usize = 32;

pub fn arch(c: &Config) -> Result<Arch> {
    let mut stack = stack(c, OWN)?;
    only(c, "relative_attention_num_buckets", |v| v == BUCKETS)?;
    // The padding token's row, whatever `pad_token_id` says.
    stack.position = Position::Relative { buckets: BUCKETS, far: 128, pad: Some(1) };
    let head = head(c, stack.d_model, stack.embed.vocab)?;
    let positions = c.usize_or("max_position_embeddings", 512)?.saturating_sub(2);
    Ok(Arch { prefix: "mpnet.", ignored: IGNORED, ..Arch::encoder("mpnet", positions, stack, head) })
}
