//! Floor 3: BART (Lewis et al. 2019) and its kin, an encoder and a decoder that attends to it: Marian (Junczys-Dowmunt et
//! al. 2018), mBART (Liu et al. 2020), M2M100 (Fan et al. 2020). They differ in norms and positions.

use super::bert::linear;
use super::{
    Arch, Around, Attention, Embed, Head, Linear, Mixer, Mlp, Names, Norms, Position, Side, Stack, Table,
    Task, act, head_dim, only, skip,
};
use crate::error::Result;
use crate::format::config::Config;

/// What tells them apart.
struct Form {
    family: &'static str,
    /// Norms before each half of a block and after the last one, not after each half.
    pre: bool,
    /// A norm of the embeddings.
    embed_norm: bool,
    table: Table,
    /// Row of the table for the first token.
    offset: usize,
    /// Whether the logits have a bias.
    bias: bool,
    act: &'static str,
}

const BART: Form = Form {
    family: "bart",
    pre: false,
    embed_norm: true,
    table: Table::Learned,
    offset: 2,
    bias: true,
    act: "gelu",
};

const ENCODER: Names = Names {
    tokens: "shared",
    positions: "encoder.embed_positions",
    embed_norm: "encoder.layernorm_embedding",
    block: "encoder.layers.{}.",
    attn: Around::after("self_attn_layer_norm"),
    q: linear("self_attn.q_proj"),
    k: linear("self_attn.k_proj"),
    v: linear("self_attn.v_proj"),
    o: linear("self_attn.out_proj"),
    mlp: Around::after("final_layer_norm"),
    up: linear("fc1"),
    down: linear("fc2"),
    norm: "encoder.layer_norm",
    ..Names::NONE
};

const DECODER: Names = Names {
    positions: "decoder.embed_positions",
    embed_norm: "decoder.layernorm_embedding",
    block: "decoder.layers.{}.",
    cross: Around::after("encoder_attn_layer_norm"),
    cross_qkvo: [
        linear("encoder_attn.q_proj"),
        linear("encoder_attn.k_proj"),
        linear("encoder_attn.v_proj"),
        linear("encoder_attn.out_proj"),
    ],
    norm: "decoder.layer_norm",
    ..ENCODER
};

pub fn bart(c: &Config) -> Result<Arch> {
    only(c, "normalize_embedding", |v| v == true)?;
    arch(c, &BART)
}

pub fn mbart(c: &Config) -> Result<Arch> {
    for key in ["normalize_embedding", "normalize_before", "add_final_layer_norm"] {
        only(c, key, |v| v == true)?;
    }
    arch(c, &Form { family: "mbart", pre: true, ..BART })
}

pub fn marian(c: &Config) -> Result<Arch> {
    only(c, "static_position_embeddings", |v| v == true)?;
    let marian = Form { family: "marian", embed_norm: false, table: Table::Sinusoidal, offset: 0, ..BART };
    arch(c, &marian)
}

pub fn m2m_100(c: &Config) -> Result<Arch> {
    let offset = c.usize_or("pad_token_id", 1)?.saturating_add(1).min(1 << 16);
    let (pre, embed_norm, table, bias) = (true, false, Table::Tensor2Tensor, false);
    arch(c, &Form { family: "m2m_100", pre, embed_norm, table, offset, bias, act: "relu" })
}

fn arch(c: &Config, form: &Form) -> Result<Arch> {
    skip(c, &["extra_pos_embeddings", "num_hidden_layers", "classifier_dropout", "classif_dropout"]);
    let (mut encoder, mut decoder) = (side(c, form, Side::Encoder)?, side(c, form, Side::Decoder)?);
    // Other families have no such keys, and share.
    if !c.bool_or("share_encoder_decoder_embeddings", true)? {
        encoder.names.tokens = "encoder.embed_tokens";
        decoder.names.tokens = "decoder.embed_tokens";
    } else if encoder.embed.vocab != decoder.embed.vocab {
        return Err(c.bad("decoder_vocab_size: expected vocab_size, for embeddings are shared"));
    }
    let (tied, vocab) = (c.bool_or("tie_word_embeddings", true)?, decoder.embed.vocab);
    let lm = Head::lm(Linear::new("lm_head"), tied, vocab);
    let head = match Task::of(c, Task::LanguageModel)? {
        Task::LanguageModel if form.bias => Head { bias: "final_logits_bias", constant: true, ..lm },
        Task::LanguageModel => lm,
        task => Head::of_pair(c, task, decoder.d_model, 2)?,
    };
    let positions = c.usize_or("max_position_embeddings", 1024)?;
    Ok(Arch {
        encoder: Some(encoder),
        wraps: form.family == "mbart",
        prefix: "model.",
        // Twins of the shared table, and tables of sines, which are computed.
        ignored: &["embed_tokens.weight", "embed_positions.weight", "embed_positions.weights"],
        ..Arch::decoder(form.family, positions, decoder, head)
    })
}

fn side(c: &Config, form: &Form, side: Side) -> Result<Stack> {
    let names = if side == Side::Encoder { ENCODER } else { DECODER };
    let embed_norm = if form.embed_norm { names.embed_norm } else { "" };
    let stack = stack(c, side, form.act, Names { embed_norm, ..wired(names, form.pre) })?;
    // While it writes, a decoder takes tokens as they come: none of them is padding.
    let pads = form.table == Table::Tensor2Tensor && side == Side::Encoder;
    let pad = (form.offset as u32).checked_sub(1).filter(|_| pads);
    Ok(Stack { position: Position::Table { table: form.table, offset: form.offset, pad }, ..stack })
}

/// Post-norm names, or with `pre` the same ones as pre-norm names.
pub fn wired(names: Names, pre: bool) -> Names {
    let around = |at: Around| if pre { Around::before(at.after) } else { at };
    let norm = if pre { names.norm } else { "" };
    Names { attn: around(names.attn), cross: around(names.cross), mlp: around(names.mlp), norm, ..names }
}

/// A stack by the keys that all of these configs share.
pub fn stack(c: &Config, side: Side, activation: &str, names: Names) -> Result<Stack> {
    let encodes = side == Side::Encoder;
    let size =
        |of_encoder, of_decoder, default| c.usize_or(if encodes { of_encoder } else { of_decoder }, default);
    let (d_model, vocab) = (c.usize_or("d_model", 1024)?, c.usize("vocab_size")?);
    let n_heads = size("encoder_attention_heads", "decoder_attention_heads", 16)?;
    let head_dim = head_dim(c, d_model, n_heads)?;
    skip(c, &["dropout", "attention_dropout", "activation_dropout", "init_std"]);
    skip(c, &["encoder_layerdrop", "decoder_layerdrop", "is_encoder_decoder"]);
    let scale = if c.bool_or("scale_embedding", false)? { (d_model as f32).sqrt() } else { 1.0 };
    let decoder_vocab = c.usize_or("decoder_vocab_size", vocab)?;
    let full = Attention::full(head_dim);
    Ok(Stack {
        n_layers: size("encoder_layers", "decoder_layers", 12)?,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        d_ff: size("encoder_ffn_dim", "decoder_ffn_dim", 4096)?,
        embed: Embed { vocab: if encodes { vocab } else { decoder_vocab }, width: d_model, scale, types: 0 },
        position: Position::Table { table: Table::Sinusoidal, offset: 0, pad: None },
        norm: Norms::layer(1e-5),
        mixer: Mixer::Attention(Attention { causal: !encodes, cross: !encodes, ..full }),
        mlp: Mlp::Plain(act(c, "activation_function", activation)?),
        parallel: false,
        names,
    })
}
