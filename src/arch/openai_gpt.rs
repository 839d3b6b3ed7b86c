//! Floor 3: GPT (Radford et al. 2018): post-norm, learned positions, weights stored a row per input.

use super::{
    Arch, Around, Attention, Embed, Head, Linear, Mixer, Mlp, Names, Norms, Position, Stack, Table, act,
    gpt2, head_dim, named, only,
    tasks::{head_of, unread_summary},
};
use crate::error::Result;
use crate::format::config::Config;
use kernels::act::Act;

const NAMES: Names = Names {
    positions: "positions_embed",
    tokens: "tokens_embed",
    attn: Around::after("ln_1"),
    mlp: Around::after("ln_2"),
    norm: "",
    ..gpt2::NAMES
};

pub fn arch(c: &Config) -> Result<Arch> {
    let (d_model, n_heads) =
        (named(c, &["n_embd", "hidden_size"], 768)?, named(c, &["n_head", "num_attention_heads"], 12)?);
    let (vocab, head_dim) = (c.usize_or("vocab_size", 40_478)?, head_dim(c, d_model, n_heads)?);
    unread_summary(c)?;
    for key in ["n_special", "predict_special_tokens"] {
        only(c, key, |_| true)?;
    }
    // What it calls gelu is the approximation.
    let act = match c.str_or("afn", "gelu")? {
        "gelu" => Act::GeluTanh,
        _ => act(c, "afn", "gelu")?,
    };
    let stack = Stack {
        n_layers: named(c, &["n_layer", "num_hidden_layers"], 12)?,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        d_ff: 4 * d_model,
        embed: Embed { vocab, width: d_model, scale: 1.0, types: 0 },
        position: Position::Table { table: Table::Learned, offset: 0, pad: None },
        norm: Norms::layer(c.f32_or("layer_norm_epsilon", 1e-5)?),
        mixer: Mixer::Attention(Attention::causal(head_dim)),
        mlp: Mlp::Plain(act),
        parallel: false,
        names: NAMES,
    };
    let lm = Head::lm(Linear::new("lm_head"), c.bool_or("tie_word_embeddings", true)?, vocab);
    let positions = named(c, &["n_positions", "max_position_embeddings"], 512)?;
    let arch = Arch::decoder("openai-gpt", positions, stack, head_of(c, lm, "classifier")?);
    Ok(Arch { prefix: "transformer.", ignored: &["attn.bias", "position_ids"], ..arch })
}
