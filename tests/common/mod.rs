//! Small models with strong random weights, written as a host would find them, and helpers to run them.
#![allow(dead_code)] // every test binary uses its own part

use inlaid::arch::{Arch, Linear, Mlp, Out, Part, Position, QkNorm, Table, Task};
use inlaid::encode;
use inlaid::engine::{Engine, EngineConfig};
use inlaid::format::config::Config;
use inlaid::format::files::Files;
use inlaid::kernels::attention::Cache;
use inlaid::kernels::{DType, Isa, Order};
use inlaid::model::{Model, ModelConfig};
use inlaid::sample::SamplerConfig;
use inlaid::session::{Session, SessionConfig};
use safetensors_reference::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// Configs of one small model per family; sizes are awkward on purpose, but for one whose MLP
/// is made of whole panels.
pub fn configs() -> Vec<(&'static str, String)> {
    let llama = |family: &str, more: &str| {
        format!(
            r#"{{"model_type": "{family}", "num_hidden_layers": 3, "hidden_size": 60, "num_attention_heads": 6,
            "num_key_value_heads": 2, "head_dim": 10, "intermediate_size": 93, "vocab_size": 101,
            "max_position_embeddings": 512, "rms_norm_eps": 1e-5 {more}}}"#
        )
    };
    let gpt2 = r#"{"model_type": "gpt2", "n_layer": 2, "n_embd": 36, "n_head": 4, "n_positions": 300, "vocab_size": 77}"#;
    vec![
        ("llama", llama("llama", r#", "tie_word_embeddings": true"#)),
        ("mistral", llama("mistral", r#", "sliding_window": 50"#).replace(": 93", ": 96")),
        ("qwen2", llama("qwen2", r#", "tie_word_embeddings": true"#)),
        ("gpt2", gpt2.to_owned()),
    ]
}

/// As `configs`, and families that are wired in other ways: ALiBi and fused heads; parallel halves; caps, norms on both
/// sides and a window in some blocks; a narrow table, post-norm; norms of queries and keys.
pub fn all_configs() -> Vec<(&'static str, String)> {
    let more = |family: &str, more: &str| {
        format!(
            r#"{{"model_type": "{family}", "num_hidden_layers": 2, "hidden_size": 40, "num_attention_heads": 4,
            "intermediate_size": 53, "vocab_size": 79, "max_position_embeddings": 300 {more}}}"#
        )
    };
    let bloom = r#"{"model_type": "bloom", "n_layer": 2, "hidden_size": 36, "n_head": 6, "vocab_size": 78}"#;
    let gemma2 = r#", "head_dim": 10, "num_key_value_heads": 2, "query_pre_attn_scalar": 12, "sliding_window": 70,
        "attn_logit_softcapping": 5.0"#;
    let opt = r#", "ffn_dim": 53, "do_layer_norm_before": false, "word_embed_proj_dim": 22"#;
    let opt = more("opt", opt).replace(r#""intermediate_size": 53,"#, "");
    let added = [
        ("bloom", bloom.to_owned()),
        ("gpt_neox", more("gpt_neox", r#", "rotary_pct": 0.6"#)),
        ("gemma2", more("gemma2", gemma2)),
        ("opt", opt),
        ("olmo2", more("olmo2", r#", "num_key_value_heads": 2"#)),
    ];
    configs().into_iter().chain(added).collect()
}

/// A counter-based generator, so that a model does not depend on the order its tensors are made in.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// Uniform in (-1, 1).
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    pub fn ids(&mut self, n: usize, vocab: usize) -> Vec<u32> {
        (0..n).map(|_| (self.bits() % vocab as u64) as u32).collect()
    }
}

/// Writes `config` and random weights of `dtype` (F32, F16 or BF16) into a fresh directory.
pub fn write_model(config: &str, dtype: DType) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("config.json"), config).expect("config.json");
    let arch = Arch::read(&Config::parse("config.json", config.as_bytes()).expect("config")).expect("arch");
    let tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = shapes(&arch)
        .into_iter()
        .map(|(name, shape)| {
            let seed = name.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
            let (mut random, n) = (Random(seed), shape.iter().product::<usize>());
            let (near, spread) = match shape[..] {
                [_] if name.ends_with("norm.weight") || name.contains("ln_") => (1.0, 0.5),
                [_] => (0.0, 0.3),
                _ => (0.0, 3.0 / (arch.last().d_model as f32).sqrt()),
            };
            let bytes = (0..n).flat_map(|_| stored(near + spread * random.unit(), dtype)).collect();
            (name, (shape, bytes))
        })
        .collect();
    let kind = match dtype {
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        _ => Dtype::F32,
    };
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| (name, TensorView::new(kind, shape.clone(), bytes).expect("a tensor")));
    safetensors_reference::serialize_to_file(views, None, &dir.path().join("model.safetensors"))
        .expect("model.safetensors");
    dir
}

fn stored(x: f32, dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
        DType::BF16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
        _ => x.to_le_bytes().to_vec(),
    }
}

/// Names and shapes of all tensors of a family with one stack and no fused gate.
fn shapes(a: &Arch) -> Vec<(String, Vec<usize>)> {
    let (s, p) = (a.last(), a.prefix);
    let (n, d, q, kv) = (&s.names, s.d_model, s.q_cols(), s.kv_cols());
    let mut out: Vec<(String, Vec<usize>)> = Vec::new();
    let norm_of = |out: &mut Vec<(String, Vec<usize>)>, name: String, width: usize| {
        out.push((format!("{name}.weight"), vec![width]));
        if s.norm.bias {
            out.push((format!("{name}.bias"), vec![width]));
        }
    };
    let norm = |out: &mut Vec<(String, Vec<usize>)>, name: String| norm_of(out, name, d);
    let linear = |out: &mut Vec<(String, Vec<usize>)>, at: &str, l: &Linear, rows: usize, cols: usize| {
        let rows = if l.part == Part::Whole { rows } else { q + 2 * kv };
        let shape = if l.order == Order::Nk { vec![rows, cols] } else { vec![cols, rows] };
        out.push((format!("{at}{}.weight", l.name), shape));
        if l.bias {
            out.push((format!("{at}{}.bias", l.name), vec![rows]));
        }
    };
    out.push((format!("{p}{}.weight", n.tokens), vec![a.vocab(), s.embed.width]));
    if s.embed.width != d {
        linear(&mut out, p, &n.project, d, s.embed.width);
    }
    if !n.embed_norm.is_empty() {
        norm(&mut out, format!("{p}{}", n.embed_norm));
    }
    if let Position::Table { table: Table::Learned, offset, .. } = s.position {
        out.push((format!("{p}{}.weight", n.positions), vec![a.max_positions + offset, d]));
    }
    for i in 0..s.n_layers {
        let at = format!("{p}{}", n.block.replace("{}", &i.to_string()));
        for around in [n.attn, n.mlp] {
            let names = [around.before, around.inner, around.after];
            names
                .iter()
                .filter(|name| !name.is_empty())
                .for_each(|name| norm(&mut out, format!("{at}{name}")));
        }
        let widths = match s.attention().qk_norm {
            QkNorm::None => None,
            QkNorm::Head => Some([s.head_dim; 2]),
            QkNorm::Row => Some([q, kv]),
        };
        for (name, width) in n.qk_norm.iter().zip(widths.into_iter().flatten()) {
            norm_of(&mut out, format!("{at}{name}"), width);
        }
        for (l, rows, cols) in [(&n.q, q, d), (&n.k, kv, d), (&n.v, kv, d), (&n.o, d, q)] {
            linear(&mut out, &at, l, rows, cols);
        }
        for (l, rows, cols) in [(&n.up, s.d_ff, d), (&n.down, d, s.d_ff)] {
            linear(&mut out, &at, l, rows, cols);
        }
        if let Mlp::Gated(_) = s.mlp {
            linear(&mut out, &at, &n.gate, s.d_ff, d);
        }
    }
    if !n.norm.is_empty() {
        norm(&mut out, format!("{p}{}", n.norm));
    }
    if s.state_cols() != d {
        linear(&mut out, p, &n.project_out, s.state_cols(), d);
    }
    if let Out::Linear(head) = &a.head.out {
        linear(&mut out, "", head, a.vocab(), s.state_cols());
    }
    out
}

pub fn engine(threads: usize, isa: Option<Isa>) -> Arc<Engine> {
    Engine::new(EngineConfig { threads, isa, ..EngineConfig::default() }).expect("an engine")
}

pub fn open(engine: &Arc<Engine>, dir: &Path, cache: Option<Cache>) -> Arc<Model> {
    let files = Files::at(dir).expect("files");
    Model::open(engine, &files, ModelConfig { cache, no_tokenizer: true, ..ModelConfig::default() })
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
}

pub fn greedy() -> SamplerConfig {
    SamplerConfig { temperature: 0.0, ..SamplerConfig::default() }
}

pub fn session(model: &Arc<Model>) -> Session {
    Session::new(model, SessionConfig { sampler: greedy(), ..SessionConfig::default() }).expect("a session")
}

/// Bits of finite numbers.
pub fn bits(x: &[f32]) -> Vec<u32> {
    assert!(x.iter().all(|x| x.is_finite()), "a number that is not finite");
    x.iter().map(|x| x.to_bits()).collect()
}

/// What the head says, of each token or of the text as it was trained to, or the states of a model without one.
pub fn answer(model: &Arc<Model>, ids: &[u32]) -> Vec<f32> {
    let text = encode::Text { ids, types: &[] };
    let ask = if model.arch().head.task == Task::Hidden { encode::Ask::Hidden } else { encode::Ask::Head };
    let (never, mut out) = (AtomicBool::new(false), Vec::new());
    encode::run(model, &[text], ask, &never, &mut None, &mut |_, rows, _| out.extend_from_slice(rows))
        .expect("rows");
    out
}

/// Logits after every token, as bits.
pub fn all_logits(session: &mut Session, ids: &[u32]) -> Vec<u32> {
    let mut out = Vec::new();
    session.prefill_all(ids, |row| out.extend(bits(row))).expect("logits");
    out
}

/// Writes an adapter with random numbers.
pub fn write_adapter(dir: &Path, settings: &str, tensors: Vec<(String, Vec<usize>)>) {
    std::fs::write(dir.join("adapter_config.json"), settings).expect("settings");
    let mut random = Random(7);
    let made: Vec<_> = tensors
        .into_iter()
        .map(|(name, shape)| {
            let n = shape.iter().product::<usize>();
            let scale = 1.5 / (shape[shape.len() - 1] as f32).sqrt();
            (name, shape, (0..n).flat_map(|_| (scale * random.unit()).to_le_bytes()).collect::<Vec<u8>>())
        })
        .collect();
    let views = made.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor"))
    });
    let path = dir.join("adapter_model.safetensors");
    safetensors_reference::serialize_to_file(views, None, &path).expect("tensors");
}
