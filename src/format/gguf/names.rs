//! Floor 3: the tensors of a GGUF file under the names that Hugging Face gives them. Knows which families store them how.

use super::Gguf;
use crate::error::Result;
use crate::format::tensors::Tensors;

/// Names outside blocks: ggml's, Llama's (and its variants'), GPT-2's; without `.weight` or `.bias`.
const OUTER: &[(&str, &str, &str)] = &[
    ("token_embd", "model.embed_tokens", "transformer.wte"),
    ("position_embd", "", "transformer.wpe"),
    ("output_norm", "model.norm", "transformer.ln_f"),
    ("output", "lm_head", "lm_head"),
];

/// The same within a block.
const INNER: &[(&str, &str, &str)] = &[
    ("attn_norm", "input_layernorm", "ln_1"),
    ("attn_q", "self_attn.q_proj", ""),
    ("attn_k", "self_attn.k_proj", ""),
    ("attn_v", "self_attn.v_proj", ""),
    ("attn_qkv", "", "attn.c_attn"),
    ("attn_output", "self_attn.o_proj", "attn.c_proj"),
    ("ffn_norm", "post_attention_layernorm", "ln_2"),
    ("ffn_gate", "mlp.gate_proj", ""),
    ("ffn_up", "mlp.up_proj", "mlp.c_fc"),
    ("ffn_down", "mlp.down_proj", "mlp.c_proj"),
];

/// How the rows of a tensor are ordered, as against the Hugging Face file it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// The same.
    Same,
    /// Within each head of so many rows, the two halves are interleaved, as rope in pairs of neighbours wants them.
    Paired(usize),
    /// Rows are columns there (`Conv1D`).
    Transposed,
}

impl Rows {
    /// The row of the GGUF tensor that is row `row` of the Hugging Face tensor. (A `Transposed` one has no such row.)
    pub fn source(self, row: usize) -> usize {
        match self {
            Rows::Paired(head) if head >= 2 => {
                let (start, within) = (row - row % head, row % head);
                start + 2 * (within % (head / 2)) + within / (head / 2)
            }
            _ => row,
        }
    }
}

/// How the tensor with the Hugging Face name `name` of a file of `architecture` lies there. `head` is the head dimension.
pub fn rows(architecture: &str, name: &str, head: usize) -> Rows {
    let is = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    match architecture {
        "llama" if is(&["q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias"]) => {
            Rows::Paired(head)
        }
        "gpt2" if is(&["c_attn.weight", "c_proj.weight", "c_fc.weight"]) => Rows::Transposed,
        _ => Rows::Same,
    }
}

/// The tensors, under the names that a Hugging Face file of the family has. A name that the family does not have stays as
/// it is, for the engine to refuse; `rope_freqs`, which is part of the config, is left out.
///
/// # Errors
/// `Format` where the file does not say its family.
pub fn tensors(gguf: &Gguf) -> Result<Tensors> {
    let gpt2 = gguf.architecture()? == "gpt2";
    let mut tensors = Tensors::of(gguf.source.clone(), true);
    for info in gguf.infos.iter().filter(|info| info.name != "rope_freqs.weight") {
        let name = rename(&info.name, gpt2).unwrap_or_else(|| info.name.clone());
        if !tensors.insert(name, info.stored, info.shape.clone(), info.range.clone()) {
            return Err(super::bad(gguf.file(), format!("two tensors are called like `{}`", info.name)));
        }
    }
    Ok(tensors)
}

fn rename(name: &str, gpt2: bool) -> Option<String> {
    let pick = |table: &[(&str, &'static str, &'static str)], stem: &str| {
        let row = table.iter().find(|row| row.0 == stem)?;
        Some(if gpt2 { row.2 } else { row.1 }).filter(|name| !name.is_empty())
    };
    let (stem, end) = name.rsplit_once('.')?;
    if let Some(inner) = stem.strip_prefix("blk.") {
        let (block, stem) = inner.split_once('.')?;
        let blocks = if gpt2 { "transformer.h" } else { "model.layers" };
        return Some(format!("{blocks}.{block}.{}.{end}", pick(INNER, stem)?));
    }
    Some(format!("{}.{end}", pick(OUTER, stem)?))
}
