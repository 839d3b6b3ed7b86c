//! Floor 3: DistilBERT (Sanh et al. 2019): BERT without token types and pooler, by other names.

use super::bert::{IGNORED, NAMES, linear, tokens};
use super::head::labels;
use super::{
    Arch, Around, Attention, Embed, Head, Linear, Mixer, Mlp, Names, Norms, Position, Stack, Table, Task,
    act, head_dim, skip,
};
use crate::error::Result;
use crate::format::config::Config;
use kernels::act::Act;

const OWN: Names = Names {
    types: "",
    block: "transformer.layer.{}.",
    attn: Around::after("sa_layer_norm"),
    q: linear("attention.q_lin"),
    k: linear("attention.k_lin"),
    v: linear("attention.v_lin"),
    o: linear("attention.out_lin"),
    mlp: Around::after("output_layer_norm"),
    up: linear("ffn.lin1"),
    down: linear("ffn.lin2"),
    ..NAMES
};

pub fn arch(c: &Config) -> Result<Arch> {
    let (d_model, n_heads) = (c.usize_or("dim", 768)?, c.usize_or("n_heads", 12)?);
    let head_dim = head_dim(c, d_model, n_heads)?;
    skip(c, &["dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout", "tie_weights_"]);
    // Files hold the table even where it is one of sines.
    skip(c, &["sinusoidal_pos_embds", "tie_word_embeddings"]);
    let (vocab, activation) = (c.usize("vocab_size")?, act(c, "activation", "gelu")?);
    let stack = Stack {
        n_layers: c.usize_or("n_layers", 6)?,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        d_ff: c.usize_or("hidden_dim", 3072)?,
        embed: Embed { vocab, width: d_model, scale: 1.0, types: 0 },
        position: Position::Table { table: Table::Learned, offset: 0, pad: None },
        norm: Norms::layer(1e-12),
        mixer: Mixer::Attention(Attention::full(head_dim)),
        mlp: Mlp::Plain(activation),
        parallel: false,
        names: OWN,
    };
    let head = match Task::of(c, Task::Hidden)? {
        Task::MaskedLm | Task::LanguageModel => Head::masked(
            (linear("vocab_transform"), d_model),
            activation,
            "vocab_layer_norm",
            Linear::new("vocab_projector"),
            "vocab_projector.bias",
            c.bool_or("tie_word_embeddings", true)?,
            vocab,
        ),
        Task::Classify => {
            Head::first((linear("pre_classifier"), d_model), Act::Relu, linear("classifier"), labels(c)?)
        }
        task => tokens(c, task, Head::NONE)?,
    };
    let arch = Arch::encoder("distilbert", c.usize_or("max_position_embeddings", 512)?, stack, head);
    Ok(Arch { prefix: "distilbert.", ignored: IGNORED, ..arch })
}
