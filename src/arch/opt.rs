//! Floor 3: OPT (Zhang et al. 2022) and Galactica: learned positions from row 2 on, ReLU; one size is post-norm and has a
//! table narrower than its stream.

use super::{
    Arch, Around, Attention, Embed, Head, Linear, Mixer, Mlp, Names, Norms, Position, Stack, Table, act,
    head_dim, tasks::head_of,
};
use crate::error::Result;
use crate::format::config::Config;

const NAMES: Names = Names {
    positions: "decoder.embed_positions",
    tokens: "decoder.embed_tokens",
    project: Linear::new("decoder.project_in"),
    block: "decoder.layers.{}.",
    attn: Around::before("self_attn_layer_norm"),
    q: Linear::new("self_attn.q_proj"),
    k: Linear::new("self_attn.k_proj"),
    v: Linear::new("self_attn.v_proj"),
    o: Linear::new("self_attn.out_proj"),
    mlp: Around::before("final_layer_norm"),
    up: Linear::new("fc1"),
    down: Linear::new("fc2"),
    norm: "decoder.final_layer_norm",
    ..Names::NONE
};

pub fn arch(c: &Config) -> Result<Arch> {
    let (d_model, n_heads) = (c.usize("hidden_size")?, c.usize("num_attention_heads")?);
    let (vocab, head_dim) = (c.usize("vocab_size")?, head_dim(c, d_model, n_heads)?);
    let (width, bias) = (c.usize_or("word_embed_proj_dim", d_model)?, c.bool_or("enable_bias", true)?);
    let (before, normless) =
        (c.bool_or("do_layer_norm_before", true)?, c.bool_or("_remove_final_layer_norm", false)?);
    let mut names = NAMES.attn_bias(bias, bias).mlp_bias(bias);
    if !before {
        names.attn = Around::after(names.attn.before);
        names.mlp = Around::after(names.mlp.before);
    }
    if !before || normless {
        names.norm = "";
    }
    if width != d_model {
        names.project_out = Linear::new("decoder.project_out");
    }
    let plain = !c.bool_or("layer_norm_elementwise_affine", true)?;
    let stack = Stack {
        n_layers: c.usize("num_hidden_layers")?,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        d_ff: c.usize("ffn_dim")?,
        embed: Embed { vocab, width, scale: 1.0, types: 0 },
        position: Position::Table { table: Table::Learned, offset: 2, pad: None },
        norm: Norms { plain, ..Norms::layer(1e-5) },
        mixer: Mixer::Attention(Attention::causal(head_dim)),
        mlp: Mlp::Plain(act(c, "activation_function", "relu")?),
        parallel: false,
        names,
    };
    let lm = Head::lm(Linear::new("lm_head"), c.bool_or("tie_word_embeddings", true)?, vocab);
    let head = head_of(c, lm, "classifier")?;
    let arch = Arch::decoder("opt", c.usize_or("max_position_embeddings", 2048)?, stack, head);
    Ok(Arch { prefix: "model.", ..arch })
}
