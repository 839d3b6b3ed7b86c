//! GGUF files as the `gguf` Python package writes them (`gguf/make.py`), and what they say in Hugging Face's words.

use inlaid::arch::{Arch, Position};
use inlaid::format::config::Config;
use inlaid::format::files::{Files, Layout, Load, Part};
use inlaid::format::gguf::{self, Gguf, Rows, Value};
use inlaid::format::source::Source;
use kernels::DType;
use serde_json::json;
use std::sync::Arc;

const LLAMA: &[u8] = include_bytes!("gguf/llama.gguf");
const GPT2: &[u8] = include_bytes!("gguf/gpt2.gguf");

fn parse(bytes: &[u8]) -> Gguf {
    gguf::parse(Source::private("test.gguf", bytes.to_vec())).unwrap()
}

#[test]
fn metadata_of_every_type() {
    let file = parse(LLAMA);
    let integer = |key: &str| match file.get(key) {
        Some(Value::Integer(n)) => n,
        other => panic!("{key}: {other:?}"),
    };
    assert_eq!((integer("test.u8"), integer("test.i8")), (200, -100));
    assert_eq!((integer("test.u16"), integer("test.i16")), (60_000, -30_000));
    assert_eq!((integer("test.u32"), integer("test.i32")), (4 << 29, -(1 << 30)));
    assert_eq!((integer("test.u64"), integer("test.i64")), (u64::MAX.into(), i64::MIN.into()));
    assert_eq!(file.get("test.f32"), Some(Value::Float(0.1_f32.into())));
    assert_eq!(file.get("test.f64"), Some(Value::Float(0.1)));
    assert_eq!(
        (file.bool("test.bool").unwrap(), file.str("test.text").unwrap()),
        (Some(true), Some("größer"))
    );
    assert_eq!((file.version(), file.usize("general.alignment").unwrap()), (3, Some(64)));
    assert_eq!((file.usize("absent").unwrap(), file.get("absent")), (None, None));
    assert!(file.keys().is_sorted() && file.keys().count() > 25);

    let tokens = file.list("tokenizer.ggml.tokens").unwrap().unwrap();
    let texts: Vec<_> = tokens.texts().map(Option::unwrap).collect();
    assert_eq!((tokens.len(), texts.len(), texts[39]), (40, 40, b"t39".as_slice()));
    let scores = file.list("tokenizer.ggml.scores").unwrap().unwrap();
    assert_eq!(scores.iter().nth(39), Some(Value::Float(9.75)));
    assert!(scores.texts().all(|text| text.is_none()));

    let message = |e: inlaid::Error| e.to_string();
    assert!(
        message(file.usize("test.i8").unwrap_err()).contains("test.i8: expected a whole number, found -100")
    );
    assert!(message(file.str("test.u8").unwrap_err()).contains("expected UTF-8 text, found 200"));
    assert!(message(file.list("test.text").unwrap_err()).contains("expected a list, found \"größer\""));
    assert!(message(file.bool("tokenizer.ggml.scores").unwrap_err()).contains("found a list of 40"));
}

#[test]
fn a_llama_file_is_a_config_and_tensors_of_hugging_face_s_names() {
    let files = Files::named([("any".to_owned(), Part::Memory(Arc::new(LLAMA.to_vec())))]).unwrap();
    assert_eq!(files.layout().unwrap(), Layout::Gguf("any".into()));
    let config = gguf::to_config(files.gguf().unwrap().unwrap()).unwrap();
    let expected = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0,
        "vocab_size": 40, "attention_bias": false, "mlp_bias": false, "rope_interleaved": true,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
        "bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 2, "tie_word_embeddings": true,
    });
    assert_eq!(config, expected);
    assert_eq!(files.generation_config().unwrap().eos_token_ids, [2, 3]);

    for load in [Load::Map, Load::Copy] {
        let tensors = files.tensors(load, &mut None).unwrap();
        assert!(tensors.is_gguf());
        let all: Vec<_> = tensors.iter().map(|(name, t)| (name, t.dtype(), t.shape().to_vec())).collect();
        let at = "model.layers.0.";
        let expected = [
            ("model.embed_tokens.weight".to_owned(), DType::Q8_0, vec![40, 64]),
            (format!("{at}input_layernorm.weight"), DType::F32, vec![64]),
            (format!("{at}mlp.down_proj.weight"), DType::F32, vec![64, 96]),
            (format!("{at}mlp.gate_proj.weight"), DType::Q5_0, vec![96, 64]),
            (format!("{at}mlp.up_proj.weight"), DType::Q5_1, vec![96, 64]),
            (format!("{at}post_attention_layernorm.weight"), DType::F32, vec![64]),
            (format!("{at}self_attn.k_proj.weight"), DType::BF16, vec![32, 64]),
            (format!("{at}self_attn.o_proj.weight"), DType::Q4_1, vec![64, 64]),
            (format!("{at}self_attn.q_proj.weight"), DType::F16, vec![64, 64]),
            (format!("{at}self_attn.v_proj.weight"), DType::Q4_0, vec![32, 64]),
            ("model.norm.weight".to_owned(), DType::F32, vec![64]),
        ];
        assert!(all.iter().map(|(n, d, s)| (*n, *d, s)).eq(expected.iter().map(|(n, d, s)| (
            n.as_str(),
            *d,
            s
        ))));
        let down = tensors.get("model.layers.0.mlp.down_proj.weight").unwrap().unwrap();
        let first = f32::from_le_bytes(*down.bytes().first_chunk().unwrap());
        assert_eq!((first, down.bytes().len()), (-0.5, 4 * 64 * 96));
    }
}

#[test]
fn a_gpt2_file_too() {
    let file = parse(GPT2);
    let config = gguf::to_config(&file).unwrap();
    let expected = json!({
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 4, "n_head": 2, "n_inner": 16, "n_layer": 1,
        "n_positions": 8, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "vocab_size": 40,
        "bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 2, "tie_word_embeddings": true,
    });
    assert_eq!(config, expected);
    let tensors = gguf::tensors(&file).unwrap();
    let names: Vec<&str> = tensors.names().filter(|name| name.ends_with("weight")).collect();
    let at = |name: &str| format!("transformer.h.0.{name}.weight");
    let blocks = ["attn.c_attn", "attn.c_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj"].map(at);
    let outer = ["ln_f", "wpe", "wte"].map(|name| format!("transformer.{name}.weight"));
    assert_eq!(names, [blocks.as_slice(), &outer].concat());
    assert_eq!(tensors.names().count(), 9 + 7);
    let qkv = tensors.get("transformer.h.0.attn.c_attn.weight").unwrap().unwrap();
    assert_eq!(qkv.shape(), [12, 4]);
}

#[test]
fn variants_of_llama() {
    let config = gguf::to_config(&parse(include_bytes!("gguf/mistral.gguf"))).unwrap();
    let expected = json!({
        "model_type": "mistral", "architectures": ["MistralForCausalLM"], "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 1e6, "vocab_size": 10,
        "sliding_window": 16, "rope_scaling": {"rope_type": "linear", "factor": 2.5}, "rope_interleaved": true,
        "bos_token_id": null, "eos_token_id": [], "pad_token_id": null, "tie_word_embeddings": false,
    });
    assert_eq!(config, expected);
    let file = parse(include_bytes!("gguf/qwen2.gguf"));
    let config = gguf::to_config(&file).unwrap();
    let expected = json!({
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 1e6, "vocab_size": 10,
        "bos_token_id": null, "eos_token_id": [], "pad_token_id": null, "tie_word_embeddings": false,
    });
    assert_eq!(config, expected);
    assert!(gguf::tensors(&file).unwrap().has("model.layers.0.self_attn.q_proj.bias"));
}

#[test]
fn the_families_take_these_configs() {
    for bytes in [LLAMA, GPT2, include_bytes!("gguf/mistral.gguf"), include_bytes!("gguf/qwen2.gguf")] {
        let config = Config::new("test.gguf", gguf::to_config(&parse(bytes)).unwrap()).unwrap();
        let arch = Arch::read(&config).unwrap();
        assert_eq!((arch.last().n_layers, Some(arch.family)), (1, config.str("model_type").ok()));
        let interleaved = matches!(&arch.last().position, Position::Rope { all, .. } if all.interleaved);
        assert_eq!(interleaved, matches!(arch.family, "llama" | "mistral"));
    }
}

#[test]
fn rows_of_heads_are_put_back() {
    // ggml's converter: reshape(heads, 2, head / 2, columns).swapaxes(1, 2), so pairs of neighbours were half a head apart.
    let (heads, head) = (3, 8);
    let mut stored = Vec::new();
    for h in 0..heads {
        for j in 0..head / 2 {
            stored.extend([h * head + j, h * head + head / 2 + j]);
        }
    }
    let rows = gguf::rows("llama", "model.layers.0.self_attn.k_proj.weight", head);
    assert_eq!(rows, Rows::Paired(head));
    let back: Vec<usize> = (0..heads * head).map(|row| stored[rows.source(row)]).collect();
    assert_eq!(back, (0..heads * head).collect::<Vec<_>>());
    assert_eq!(gguf::rows("qwen2", "model.layers.0.self_attn.k_proj.weight", head), Rows::Same);
    assert_eq!(gguf::rows("llama", "model.layers.0.self_attn.v_proj.weight", head), Rows::Same);
    assert_eq!(gguf::rows("gpt2", "transformer.h.0.mlp.c_fc.weight", head), Rows::Transposed);
    assert_eq!(gguf::rows("gpt2", "transformer.h.0.mlp.c_fc.bias", head), Rows::Same);
}

/// `LLAMA` with the bytes `from`, which it has once, replaced by as many others.
fn patched(from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = LLAMA.to_vec();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn what_changes_the_model_is_refused_by_name() {
    let refused = |bytes: &[u8]| gguf::to_config(&parse(bytes)).unwrap_err().to_string();
    let key = |old: &str, new: &str| refused(&patched(old.as_bytes(), new.as_bytes()));
    assert!(
        key("llama.rope.dimension_count", "llama.rope.dimension_cuont")
            .contains("llama.rope.dimension_cuont")
    );
    assert!(key("llama.block_count", "llama.block_cuont").contains("llama.block_count is missing"));
    assert!(key("token_embd.weight", "token_embd.weighs").contains("token_embd.weight"));
    // A factor of the rope table that Llama 3's formula does not give.
    let factor = LLAMA.windows(4).rposition(|bytes| bytes == 8_f32.to_le_bytes()).unwrap();
    let mut bytes = LLAMA.to_vec();
    bytes[factor..factor + 4].copy_from_slice(&7.9_f32.to_le_bytes());
    assert!(refused(&bytes).contains("rope_freqs.weight"));
}

#[test]
fn element_types_and_versions_are_refused_by_name() {
    let refused = |bytes: Vec<u8>| gguf::parse(Source::private("x.gguf", bytes)).unwrap_err().to_string();
    let name = b"token_embd.weight";
    let at = LLAMA.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4 + 16;
    let mut bytes = LLAMA.to_vec();
    assert_eq!(bytes[at], 8);
    bytes[at] = 10;
    assert!(refused(bytes).contains("element type Q2_K of tensor `token_embd.weight`"));
    let mut bytes = LLAMA.to_vec();
    bytes[4..8].copy_from_slice(&[0, 0, 0, 3]);
    assert!(refused(bytes).contains("big-endian"));
    let mut bytes = LLAMA.to_vec();
    bytes[4] = 4;
    assert!(refused(bytes).contains("GGUF version 4"));
}

/// The real file, where the environment names it.
#[test]
fn smollm2_is_read() {
    let Ok(path) = std::env::var("INLAID_SMOLLM2") else {
        println!("skipped: INLAID_SMOLLM2 does not name SmolLM2-135M-Instruct.Q4_1.gguf");
        return;
    };
    let files = Files::at(path).unwrap();
    let config = files.config().unwrap();
    assert_eq!(
        (config.usize("hidden_size").unwrap(), config.usize("num_key_value_heads").unwrap()),
        (576, 3)
    );
    assert_eq!(config.f32("rope_theta").unwrap(), 100_000.0);
    let tensors = files.tensors(Load::Map, &mut None).unwrap();
    assert_eq!((tensors.names().count(), tensors.elements()), (272, 134_515_008));
    assert_eq!(files.generation_config().unwrap().eos_token_ids, [2]);
}
