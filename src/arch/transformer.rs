//! Floor 3: the Transformer (Vaswani et al. 2017) as `torch.nn.Transformer` has it, with what its tutorials put around it:
//! for models that were trained elsewhere.
//!
//! The keys of its `config.json` are those of Marian (`d_model`, `vocab_size`, `decoder_vocab_size`, `encoder_layers`,
//! `encoder_attention_heads`, `encoder_ffn_dim` and the same of the decoder, `activation_function`: `relu`,
//! `scale_embedding`, `share_encoder_decoder_embeddings`: false, `tie_word_embeddings`: false, `max_position_embeddings`:
//! 5000) and Inlaid's own: `norm_first` (false: the post-norm of 2017), `final_norm` (true: `encoder.norm` and
//! `decoder.norm`), `layer_norm_eps` (1e-5), `positions` (`interleaved` sines and cosines as in the paper, or `halves`),
//! `generator_bias` (true) and `target_name` (`tgt`, or `trg` where the table is called `trg_tok_emb.embedding`).
//! Tensors are those of `torch.nn.Transformer`, with or without `transformer.` before them, beside `src_tok_emb.embedding`,
//! `tgt_tok_emb.embedding` and `generator`.

use super::bart::{stack, wired};
use super::bert::linear;
use super::{Arch, Around, Fused, Head, Linear, Names, Norms, Part, Position, Side, Stack, Table};
use crate::error::Result;
use crate::format::config::Config;

const ENCODER: Names = Names {
    tokens: "src_tok_emb.embedding",
    block: "encoder.layers.{}.",
    attn: Around::after("norm1"),
    o: linear("self_attn.out_proj"),
    mlp: Around::after("norm2"),
    up: linear("linear1"),
    down: linear("linear2"),
    norm: "encoder.norm",
    ..Names::NONE
}
.fused(linear("self_attn.in_proj"), Fused::Concat);

const DECODER: Names = Names {
    tokens: "tgt_tok_emb.embedding",
    block: "decoder.layers.{}.",
    cross: Around::after("norm2"),
    cross_qkvo: [
        linear("multihead_attn.in_proj").part(Part::Q(Fused::Concat)),
        linear("multihead_attn.in_proj").part(Part::K(Fused::Concat)),
        linear("multihead_attn.in_proj").part(Part::V(Fused::Concat)),
        linear("multihead_attn.out_proj"),
    ],
    mlp: Around::after("norm3"),
    norm: "decoder.norm",
    ..ENCODER
};

pub fn arch(c: &Config) -> Result<Arch> {
    let (encoder, mut decoder) = (side(c, Side::Encoder, ENCODER)?, side(c, Side::Decoder, DECODER)?);
    if c.bool_or("share_encoder_decoder_embeddings", false)? {
        decoder.names.tokens = encoder.names.tokens;
        if encoder.embed.vocab != decoder.embed.vocab {
            return Err(c.bad("decoder_vocab_size: expected vocab_size, for embeddings are shared"));
        }
    } else {
        decoder.names.tokens = match c.str_or("target_name", "tgt")? {
            "tgt" => "tgt_tok_emb.embedding",
            "trg" => "trg_tok_emb.embedding",
            other => return Err(c.bad(&format!("target_name: expected tgt or trg, found {other}"))),
        };
    }
    let (tied, vocab) = (c.bool_or("tie_word_embeddings", false)?, decoder.embed.vocab);
    let bias = if c.bool_or("generator_bias", true)? { "generator.bias" } else { "" };
    let head = Head { bias, ..Head::lm(Linear::new("generator"), tied, vocab) };
    Ok(Arch {
        encoder: Some(encoder),
        prefix: "transformer.",
        ignored: &["positional_encoding.pe", "positional_encoding.pos_embedding"],
        ..Arch::decoder("transformer", c.usize_or("max_position_embeddings", 5000)?, decoder, head)
    })
}

fn side(c: &Config, side: Side, names: Names) -> Result<Stack> {
    let norm = if c.bool_or("final_norm", true)? { names.norm } else { "" };
    let names = Names { norm, ..wired(names, c.bool_or("norm_first", false)?) };
    let table = match c.str_or("positions", "interleaved")? {
        "interleaved" => Table::Interleaved,
        "halves" => Table::Sinusoidal,
        other => return Err(c.bad(&format!("positions: expected interleaved or halves, found {other}"))),
    };
    Ok(Stack {
        norm: Norms::layer(c.f32_or("layer_norm_eps", 1e-5)?),
        position: Position::Table { table, offset: 0, pad: None },
        ..stack(c, side, "relu", names)?
    })
}
