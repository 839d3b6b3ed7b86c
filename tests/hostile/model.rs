//! Configs that contradict the weights beside them, or ask for absurd sizes: read by the family, bound to tensors.

use crate::{Case, case};
use inlaid::Error;
use inlaid::engine::{Engine, EngineConfig};
use inlaid::format::files::{Files, Part, SINGLE};
use inlaid::model::{Model, ModelConfig};
use std::sync::{Arc, OnceLock};

/// A Llama of one block: width 8, two heads, MLP of 12, six tokens.
fn weights() -> Vec<u8> {
    let at = "model.layers.0.";
    let list = [
        ("model.embed_tokens.weight".to_owned(), vec![6, 8]),
        (format!("{at}input_layernorm.weight"), vec![8]),
        (format!("{at}self_attn.q_proj.weight"), vec![8, 8]),
        (format!("{at}self_attn.k_proj.weight"), vec![4, 8]),
        (format!("{at}self_attn.v_proj.weight"), vec![4, 8]),
        (format!("{at}self_attn.o_proj.weight"), vec![8, 8]),
        (format!("{at}post_attention_layernorm.weight"), vec![8]),
        (format!("{at}mlp.gate_proj.weight"), vec![12, 8]),
        (format!("{at}mlp.up_proj.weight"), vec![12, 8]),
        (format!("{at}mlp.down_proj.weight"), vec![8, 12]),
        ("model.norm.weight".to_owned(), vec![8]),
    ];
    let (mut entries, mut end) = (Vec::new(), 0);
    for (name, shape) in list {
        let begin = end;
        end += 4 * shape.iter().product::<usize>();
        entries
            .push(format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#));
    }
    let header = format!("{{{}}}", entries.join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; end]].concat()
}

pub fn open(bytes: &[u8]) -> Result<(), Error> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| {
        let config = EngineConfig { threads: 1, ..EngineConfig::default() };
        Engine::new(config).expect("an engine of one thread")
    });
    let part = |name: &str, bytes: Vec<u8>| (name.to_owned(), Part::Memory(Arc::new(bytes)));
    let files = Files::named([part(SINGLE, weights()), part("config.json", bytes.to_vec())])?;
    Model::plan(engine, &files, &ModelConfig::default())?;
    Model::open(engine, &files, ModelConfig { no_tokenizer: true, ..ModelConfig::default() }).map(drop)
}

const SIZES: [(&str, u64); 8] = [
    ("hidden_size", 8),
    ("intermediate_size", 12),
    ("num_hidden_layers", 1),
    ("num_attention_heads", 2),
    ("num_key_value_heads", 1),
    ("head_dim", 4),
    ("max_position_embeddings", 64),
    ("vocab_size", 6),
];

/// The config with `key` as `value`, and `more` behind.
fn config(key: &str, value: &str, more: &str) -> Vec<u8> {
    let sizes = SIZES.map(|(name, own)| {
        let value = if name == key { value.to_owned() } else { own.to_string() };
        format!("\"{name}\":{value}")
    });
    format!(r#"{{"model_type":"llama",{},"tie_word_embeddings":true{more}}}"#, sizes.join(",")).into()
}

pub fn valid() -> Vec<u8> {
    config("", "", "")
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (key, own) in SIZES {
        let bound = key != "max_position_embeddings";
        let off = [own + 1, own * 2, 4096, 65_536].into_iter().filter(|_| bound);
        for value in off.chain([0, 1 << 31, 1 << 32, 1 << 62, 1 << 63, u64::MAX]) {
            cases.push(case(format!("{key} = {value}"), config(key, &value.to_string(), "")));
        }
    }
    let more = [
        r#""num_experts":4"#,
        r#""quantization_config":{"quant_method":"gptq"}"#,
        r#""model_type":"llama""#,
        r#""hidden_act":"snake""#,
        r#""attention_bias":true"#,
        r#""mlp_bias":true"#,
        r#""rms_norm_eps":-1.0"#,
        r#""rope_theta":0"#,
        r#""rope_theta":-1e4"#,
        r#""rope_scaling":{"rope_type":"magic","factor":2.0}"#,
        r#""rope_scaling":{"rope_type":"yarn"}"#,
        r#""rope_scaling":{"rope_type":"yarn","factor":0.0}"#,
        r#""rope_scaling":{"rope_type":"yarn","factor":-2.0}"#,
        r#""rope_scaling":{"rope_type":"yarn","factor":1e39}"#,
        r#""rope_scaling":{"rope_type":"yarn","factor":2.0,"original_max_position_embeddings":1}"#,
        r#""rope_scaling":{"rope_type":"yarn","factor":2.0,"truncate":7}"#,
        r#""rope_scaling":{"rope_type":"longrope"}"#,
        r#""rope_scaling":{"rope_type":"longrope","short_factor":[1.0]}"#,
        r#""rope_scaling":{"rope_type":"longrope","short_factor":[1.0,1.0,1.0]}"#,
        r#""rope_scaling":{"rope_type":"longrope","short_factor":[1.0,"x"]}"#,
        r#""rope_scaling":{"rope_type":"linear","factor":0.0}"#,
        r#""rope_scaling":{"rope_type":"linear","factor":1e39}"#,
        r#""rope_scaling":{"rope_type":"linear"}"#,
        r#""rope_scaling":{"rope_type":"llama3","factor":8.0}"#,
        r#""rope_scaling":{"rope_type":7}"#,
        r#""rope_scaling":[]"#,
        r#""partial_rotary_factor":0.0"#,
        r#""partial_rotary_factor":1.5"#,
        r#""partial_rotary_factor":-1.0"#,
        r#""partial_rotary_factor":0.25"#,
        r#""logit_scale":2.0"#,
        r#""embedding_multiplier":12"#,
    ];
    cases.extend(more.iter().map(|more| case(*more, config("", "", &format!(",{more}")))));
    let text = String::from_utf8(valid()).unwrap();
    let other = |family: &str| text.replace("\"llama\"", family).into_bytes();
    for family in ["\"gpt2\"", "\"bert\"", "\"\"", "\"LLAMA\"", "null", "1"] {
        cases.push(case(format!("family {family}"), other(family)));
    }
    cases.push(case("a family of a mebibyte", other(&format!("\"{}\"", "x".repeat(1 << 20)))));
    cases.push(case("an untied head", text.replace("true", "false")));
    cases
}
