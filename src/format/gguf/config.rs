//! Floor 3: the `config.json` that a GGUF file's metadata amounts to. Knows the families' keys, and computes nothing but
//! the check that rope factors are those of a known scaling.

use super::{Gguf, Value as Meta};
use crate::error::{Error, Result};
use crate::format::bad;
use kernels::DType;
use kernels::quant::dequantize_row;
use serde_json::{Map, Value, json};

/// Keys below the family's name that are understood, or say nothing that a run needs.
const KNOWN: &[&str] = &[
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "tensor_data_layout",
    "vocab_size",
];

/// The contents of the `config.json` that describes this file to the families here. `rope_interleaved` is a key of our
/// own: ggml's Llama stores queries and keys for rope in pairs of neighbours.
///
/// # Errors
/// `Unsupported` for other families and for metadata that changes what the model computes in a way not known here;
/// `Format` for metadata that is missing or of the wrong type.
pub fn to_config(gguf: &Gguf) -> Result<Value> {
    let arch = gguf.architecture()?;
    let reader = Reader { gguf, arch };
    let mut map = match arch {
        "llama" | "qwen2" => reader.llama()?,
        "gpt2" => reader.gpt2()?,
        other => {
            let what = format!("architecture `{}` (known: gpt2, llama, qwen2)", super::shown(other));
            return Err(Error::Unsupported { file: gguf.file().to_owned(), what });
        }
    };
    reader.finish()?;
    special_ids(gguf, &mut map)?;
    let tied = gguf.info("output.weight").is_none();
    map.insert("tie_word_embeddings".into(), tied.into());
    Ok(Value::Object(map))
}

fn special_ids(gguf: &Gguf, map: &mut Map<String, Value>) -> Result<()> {
    let id = |name: &str| gguf.id(&format!("tokenizer.ggml.{name}_token_id"));
    let mut ends: Vec<u32> = Vec::new();
    for end in [id("eos")?, id("eot")?, id("eom")?].into_iter().flatten() {
        if !ends.contains(&end) {
            ends.push(end);
        }
    }
    let ends = if let [one] = ends[..] { json!(one) } else { json!(ends) };
    map.insert("bos_token_id".into(), json!(id("bos")?));
    map.insert("eos_token_id".into(), ends);
    map.insert("pad_token_id".into(), json!(id("padding")?));
    Ok(())
}

/// Metadata below the family's name.
struct Reader<'a> {
    gguf: &'a Gguf,
    arch: &'a str,
}

impl Reader<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    fn missing(&self, key: &str) -> Error {
        bad(self.gguf.file(), format!("{} is missing", self.key(key)))
    }

    fn unsupported(&self, what: String) -> Error {
        Error::Unsupported { file: self.gguf.file().to_owned(), what }
    }

    fn maybe(&self, key: &str) -> Result<Option<usize>> {
        self.gguf.usize(&self.key(key))
    }

    fn count(&self, key: &str) -> Result<usize> {
        self.maybe(key)?.ok_or_else(|| self.missing(key))
    }

    fn number(&self, key: &str) -> Result<Option<f32>> {
        self.gguf.f32(&self.key(key))
    }

    /// Rows of the embedding table, which may be more than there are tokens.
    fn vocab(&self) -> Result<usize> {
        match self.gguf.info("token_embd.weight").map(|info| info.shape.as_slice()) {
            Some([vocab, _]) => Ok(*vocab),
            _ => Err(bad(self.gguf.file(), "expected a matrix `token_embd.weight`")),
        }
    }

    /// Llama and what is made of it.
    fn llama(&self) -> Result<Map<String, Value>> {
        let (d_model, heads) = (self.count("embedding_length")?, self.count("attention.head_count")?);
        let head_dim = match self.maybe("attention.key_length")? {
            Some(dim) => dim,
            None => d_model.checked_div(heads).ok_or_else(|| self.missing("attention.head_count"))?,
        };
        if let Some(values) = self.maybe("attention.value_length")?.filter(|n| *n != head_dim) {
            return Err(self.unsupported(format!("values of {values} dimensions with keys of {head_dim}")));
        }
        let eps = self.number("attention.layer_norm_rms_epsilon")?;
        let eps = eps.ok_or_else(|| self.missing("attention.layer_norm_rms_epsilon"))?;
        let window = self.maybe("attention.sliding_window")?.filter(|n| *n > 0);
        let positions = self.count("context_length")?;
        let config = json!({
            "hidden_size": d_model,
            "intermediate_size": self.count("feed_forward_length")?,
            "num_hidden_layers": self.count("block_count")?,
            "num_attention_heads": heads,
            "num_key_value_heads": self.maybe("attention.head_count_kv")?.unwrap_or(heads),
            "head_dim": head_dim,
            "max_position_embeddings": positions,
            "rms_norm_eps": plain(eps),
            "hidden_act": "silu",
            "rope_theta": plain(self.number("rope.freq_base")?.unwrap_or(10_000.0)),
            "vocab_size": self.vocab()?,
        });
        let Value::Object(mut map) = config else { return Ok(Map::new()) };
        if let Some(scaling) = self.scaling(head_dim)? {
            map.insert("rope_scaling".into(), scaling);
        }
        self.partial(head_dim, &mut map)?;
        let family = match (self.arch, window) {
            ("llama", None) => {
                let bias = |name| self.gguf.info(name).is_some();
                map.insert("attention_bias".into(), bias("blk.0.attn_q.bias").into());
                map.insert("mlp_bias".into(), bias("blk.0.ffn_up.bias").into());
                ("llama", "LlamaForCausalLM")
            }
            ("llama", Some(window)) => {
                map.insert("sliding_window".into(), window.into());
                ("mistral", "MistralForCausalLM")
            }
            (_, None) => ("qwen2", "Qwen2ForCausalLM"),
            (arch, Some(window)) => {
                return Err(self.unsupported(format!("{arch}.attention.sliding_window = {window}")));
            }
        };
        map.insert("model_type".into(), family.0.into());
        map.insert("architectures".into(), json!([family.1]));
        if self.arch == "llama" {
            map.insert("rope_interleaved".into(), true.into());
        }
        Ok(map)
    }

    /// The rotated share of a head, where it is not all of it.
    fn partial(&self, head_dim: usize, map: &mut Map<String, Value>) -> Result<()> {
        let rotated = self.maybe("rope.dimension_count")?.unwrap_or(head_dim);
        if rotated == head_dim {
            return Ok(());
        }
        let share = rotated as f32 / head_dim as f32;
        if rotated > head_dim || (head_dim as f32 * share) as usize != rotated {
            return Err(self.unsupported(format!("rope over {rotated} of {head_dim} dimensions")));
        }
        map.insert("partial_rotary_factor".into(), plain(share));
        Ok(())
    }

    fn gpt2(&self) -> Result<Map<String, Value>> {
        let eps = self.number("attention.layer_norm_epsilon")?;
        let eps = eps.ok_or_else(|| self.missing("attention.layer_norm_epsilon"))?;
        let config = json!({
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "n_embd": self.count("embedding_length")?,
            "n_head": self.count("attention.head_count")?,
            "n_inner": self.count("feed_forward_length")?,
            "n_layer": self.count("block_count")?,
            "n_positions": self.count("context_length")?,
            "layer_norm_epsilon": plain(eps),
            "activation_function": "gelu_new",
            "vocab_size": self.vocab()?,
        });
        match config {
            Value::Object(map) => Ok(map),
            _ => Ok(Map::new()),
        }
    }

    fn scaling(&self, head_dim: usize) -> Result<Option<Value>> {
        let factor = match self.number("rope.scaling.factor")? {
            Some(factor) => factor,
            None => self.number("rope.scale_linear")?.unwrap_or(0.0),
        };
        let kind_key = self.key("rope.scaling.type");
        let kind = self.gguf.str(&kind_key)?.unwrap_or(if factor == 0.0 { "none" } else { "linear" });
        let factors = self.gguf.info("rope_freqs.weight");
        match (kind, factors) {
            ("none", None) => Ok(None),
            ("linear", None) if matches!(factor, 0.0 | 1.0) => Ok(None),
            ("linear", None) => Ok(Some(json!({"rope_type": "linear", "factor": plain(factor)}))),
            // The factors say all; files of Llama 3.1 and later have no scaling type, or "linear" with factor 1.
            ("none", Some(_)) => self.llama3(head_dim).map(Some),
            ("linear", Some(_)) if matches!(factor, 0.0 | 1.0) => self.llama3(head_dim).map(Some),
            (kind, _) => Err(self.unsupported(format!("{kind_key} = \"{}\"", super::shown(kind)))),
        }
    }

    /// The scaling of Llama 3.1 whose factors are the file's `rope_freqs.weight`.
    fn llama3(&self, head_dim: usize) -> Result<Value> {
        let name = "rope_freqs.weight";
        let refuse =
            || self.unsupported(format!("{name}, whose factors are not those of Llama 3's rope scaling"));
        let info = self.gguf.info(name).ok_or_else(refuse)?;
        let theta = self.number("rope.freq_base")?.unwrap_or(10_000.0);
        let bytes = self.gguf.source.bytes().get(info.range.clone()).unwrap_or_default();
        let rotated = self.maybe("rope.dimension_count")?.unwrap_or(head_dim);
        let known = crate::format::tensors::Stored::As(DType::F32);
        if info.stored != known || info.shape != [rotated / 2] || bytes.len() != 4 * (rotated / 2) {
            return Err(refuse());
        }
        let mut factors = Vec::new();
        factors.try_reserve_exact(rotated / 2).map_err(|_| refuse())?;
        factors.resize(rotated / 2, 0.0);
        dequantize_row(DType::F32, bytes, &mut factors);
        let factor = factors.iter().copied().fold(1.0, f32::max);
        let original = self.maybe("rope.scaling.original_context_length")?;
        // All published models use 1 and 4 over 8192 positions; smaller ones are cut from the same cloth.
        let candidates = original.into_iter().chain([8192]).chain((5..=20).map(|bits| 1 << bits));
        let fits = |original: &usize| llama3_factors_are(&factors, theta, factor, *original as f64);
        let original = { candidates }.find(fits).ok_or_else(refuse)?;
        Ok(json!({
            "rope_type": "llama3",
            "factor": plain(factor),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": original,
        }))
    }

    /// Refuses metadata of the family that nobody reads here, unless it says zero, one, or nothing.
    fn finish(&self) -> Result<()> {
        let prefix = self.key("");
        let unknown = |key: &&str| key.strip_prefix(&prefix).is_some_and(|own| !KNOWN.contains(&own));
        for key in self.gguf.keys().filter(unknown) {
            let neutral = match self.gguf.get(key) {
                Some(Meta::Integer(n)) => n == 0,
                Some(Meta::Float(x)) => x == 0.0 || (x == 1.0 && key.ends_with("attn_factor")),
                Some(Meta::Bool(on)) => on == key.ends_with("attention.causal"),
                Some(Meta::Text(_) | Meta::List(_)) | None => false,
            };
            if !neutral {
                return Err(self.unsupported(format!("metadata `{}`", super::shown(key))));
            }
        }
        Ok(())
    }
}

/// Whether `factors` divide the rope frequencies as Llama 3's scaling does (transformers'
/// `_compute_llama3_parameters`) with the frequency factors 1 and 4.
fn llama3_factors_are(factors: &[f32], theta: f32, factor: f32, original: f64) -> bool {
    let (low, high, factor) = (1.0, 4.0, f64::from(factor));
    factors.iter().enumerate().all(|(i, found)| {
        let exponent = -(i as f64) / factors.len() as f64;
        let turns = original * f64::from(theta).powf(exponent) / std::f64::consts::TAU;
        let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        let expected = 1.0 / ((1.0 - smooth) / factor + smooth);
        // The writer's frequencies are f32, some ten roundings; d(expected) = expected^2 (1 - 1/factor) d(smooth), and
        // smooth moves by turns / (high - low) times their error.
        let slack = 10.0 * f64::from(f32::EPSILON) * (1.0 + expected * turns.min(high) / (high - low));
        (f64::from(*found) - expected).abs() <= slack * expected
    })
}

/// A float that reads back as the same f32 and prints as short as that allows.
fn plain(x: f32) -> Value {
    x.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
