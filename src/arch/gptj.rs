//! Floor 3: GPT-J (Wang and Komatsuzaki 2021): parallel halves that share a norm, neighbouring dimensions rotated.

use super::{
    Arch, Around, Attention, Embed, Head, Linear, Mixer, Mlp, Names, Norms, Position, Stack, act, head_dim,
    named, only, rope,
    tasks::{head_of, unread_summary},
};
use crate::error::Result;
use crate::format::config::Config;
use kernels::rope::Rope;

const NAMES: Names = Names {
    tokens: "wte",
    block: "h.{}.",
    attn: Around::before("ln_1"),
    q: Linear::new("attn.q_proj"),
    k: Linear::new("attn.k_proj"),
    v: Linear::new("attn.v_proj"),
    o: Linear::new("attn.out_proj"),
    up: Linear::new("mlp.fc_in").bias(true),
    down: Linear::new("mlp.fc_out").bias(true),
    norm: "ln_f",
    ..Names::NONE
};

pub fn arch(c: &Config) -> Result<Arch> {
    let (d_model, n_heads) =
        (named(c, &["n_embd", "hidden_size"], 4096)?, named(c, &["n_head", "num_attention_heads"], 16)?);
    let (vocab, head_dim) = (c.usize_or("vocab_size", 50_400)?, head_dim(c, d_model, n_heads)?);
    unread_summary(c)?;
    only(c, "rotary", |v| v == true)?;
    only(c, "scale_attn_weights", |v| v == true)?;
    let turned = rope::plain(c, 10_000.0, head_dim, c.usize_or("rotary_dim", 64)?)?;
    let stack = Stack {
        n_layers: named(c, &["n_layer", "num_hidden_layers"], 28)?,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        d_ff: c.usize_or("n_inner", 4 * d_model)?,
        embed: Embed { vocab, width: d_model, scale: 1.0, types: 0 },
        position: Position::Rope { all: Rope { interleaved: true, ..turned }, local: None },
        norm: Norms::layer(c.f32_or("layer_norm_epsilon", 1e-5)?),
        mixer: Mixer::Attention(Attention::causal(head_dim)),
        mlp: Mlp::Plain(act(c, "activation_function", "gelu_new")?),
        parallel: true,
        names: NAMES,
    };
    // Its bias is there even where the matrix is the embedding table.
    let lm = Head::lm(Linear::new("lm_head"), c.bool_or("tie_word_embeddings", false)?, vocab);
    let head = head_of(c, Head { bias: "lm_head.bias", ..lm }, "classifier")?;
    let arch =
        Arch::decoder("gptj", named(c, &["n_positions", "max_position_embeddings"], 2048)?, stack, head);
    Ok(Arch {
        prefix: "transformer.",
        ignored: &["attn.bias", "attn.masked_bias", "attn.embed_positions"],
        ..arch
    })
}
