//! Configs as published models have them: each is read, and what changes meaning and is not done is refused by name.

use inlaid::arch::{Arch, Position, Task};
use inlaid::format::config::Config;

fn read(text: &str) -> inlaid::Result<Arch> {
    Arch::read(&Config::parse("config.json", text.as_bytes()).expect("JSON"))
}

/// What transformers 4 and the authors' own code wrote.
const PUBLISHED: &[&str] = &[
    r#"{"model_type": "openai-gpt", "afn": "gelu", "architectures": ["OpenAIGPTLMHeadModel"], "attn_pdrop": 0.1,
        "embd_pdrop": 0.1, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "n_ctx": 512, "n_embd": 768,
        "n_head": 12, "n_layer": 12, "n_positions": 512, "n_special": 0, "predict_special_tokens": true,
        "resid_pdrop": 0.1, "summary_activation": null, "summary_first_dropout": 0.1, "summary_proj_to_labels": true,
        "summary_type": "cls_index", "summary_use_proj": true, "vocab_size": 40478,
        "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}}"#,
    r#"{"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0,
        "hidden_act": "gelu", "hidden_size": 512, "initializer_range": 0.02, "intermediate_size": 2048,
        "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "num_attention_heads": 8, "num_hidden_layers": 6,
        "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false, "torch_dtype": "float16",
        "use_cache": true, "use_parallel_residual": true, "vocab_size": 50304}"#,
    r#"{"model_type": "gptj", "activation_function": "gelu_new", "architectures": ["GPTJForCausalLM"],
        "attn_pdrop": 0.0, "embd_pdrop": 0.0, "gradient_checkpointing": false, "layer_norm_epsilon": 1e-05,
        "n_embd": 4096, "n_head": 16, "n_inner": null, "n_layer": 28, "n_positions": 2048, "resid_pdrop": 0.0,
        "rotary": true, "rotary_dim": 64, "scale_attn_weights": true, "summary_activation": null,
        "summary_first_dropout": 0.1, "summary_type": "cls_index", "summary_use_proj": true,
        "tie_word_embeddings": false, "tokenizer_class": "GPT2Tokenizer", "use_cache": true, "vocab_size": 50400,
        "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50, "temperature": 1.0}}}"#,
    r#"{"model_type": "opt", "_remove_final_layer_norm": false, "activation_dropout": 0.0,
        "activation_function": "relu", "architectures": ["OPTForCausalLM"], "attention_dropout": 0.0,
        "do_layer_norm_before": false, "dropout": 0.1, "ffn_dim": 4096, "hidden_size": 1024, "init_std": 0.02,
        "layerdrop": 0.0, "max_position_embeddings": 2048, "num_attention_heads": 16, "num_hidden_layers": 24,
        "pad_token_id": 1, "prefix": "</s>", "torch_dtype": "float16", "vocab_size": 50272,
        "word_embed_proj_dim": 512}"#,
    r#"{"model_type": "bloom", "apply_residual_connection_post_layernorm": false, "attention_dropout": 0.0,
        "architectures": ["BloomForCausalLM"], "attention_softmax_in_fp32": true, "bias_dropout_fusion": true,
        "hidden_dropout": 0.0, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
        "masked_softmax_fusion": true, "n_embed": 1024, "n_inner": null, "n_layer": 24, "num_attention_heads": 16,
        "offset_alibi": 100, "pretraining_tp": 1, "skip_bias_add": true, "skip_bias_add_qkv": false,
        "seq_length": 2048, "unk_token_id": 0, "vocab_size": 250880}"#,
    r#"{"model_type": "falcon", "alibi": false, "apply_residual_connection_post_layernorm": false,
        "architectures": ["FalconForCausalLM"], "attention_dropout": 0.0, "bias": false, "hidden_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_falcon.FalconConfig"}, "hidden_size": 4544,
        "layer_norm_epsilon": 1e-05, "multi_query": true, "new_decoder_architecture": false,
        "num_attention_heads": 71, "num_hidden_layers": 32, "parallel_attn": true, "vocab_size": 65024}"#,
    r#"{"model_type": "falcon", "alibi": true, "architectures": ["FalconForCausalLM"], "bias": true,
        "apply_residual_connection_post_layernorm": false, "hidden_size": 2048, "layer_norm_epsilon": 1e-05,
        "multi_query": false, "new_decoder_architecture": false, "num_attention_heads": 32,
        "num_hidden_layers": 24, "parallel_attn": false, "vocab_size": 50304}"#,
    r#"{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960,
        "max_window_layers": 28, "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
        "tie_word_embeddings": true, "use_sliding_window": false, "vocab_size": 151936}"#,
    r#"{"model_type": "gemma", "architectures": ["GemmaForCausalLM"], "attention_bias": false, "head_dim": 256,
        "hidden_act": "gelu", "hidden_activation": null, "hidden_size": 2048, "intermediate_size": 16384,
        "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 18,
        "num_key_value_heads": 1, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 10000.0,
        "vocab_size": 256000}"#,
    r#"{"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "attention_bias": false,
        "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid", "final_logit_softcapping": 30.0,
        "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 2304, "intermediate_size": 9216, "max_position_embeddings": 8192,
        "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096,
        "vocab_size": 256000}"#,
    r#"{"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "attention_bias": false, "embd_pdrop": 0.0,
        "auto_map": {"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}, "hidden_act": "silu",
        "hidden_size": 192, "intermediate_size": 512, "max_position_embeddings": 131072,
        "num_attention_heads": 32, "num_hidden_layers": 2, "num_key_value_heads": 32,
        "original_max_position_embeddings": 4096, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
        "rope_scaling": {"long_factor": [1.1, 1.2, 1.3], "short_factor": [1.0, 1.0, 1.1], "type": "su"},
        "rope_theta": 10000.0, "sliding_window": 262144, "tie_word_embeddings": false, "vocab_size": 32064}"#,
    r#"{"model_type": "starcoder2", "architectures": ["Starcoder2ForCausalLM"], "attention_dropout": 0.1,
        "embedding_dropout": 0.1, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 3072,
        "intermediate_size": 12288, "max_position_embeddings": 16384, "mlp_type": "default",
        "norm_epsilon": 1e-05, "norm_type": "layer_norm", "num_attention_heads": 24, "num_hidden_layers": 30,
        "num_key_value_heads": 2, "residual_dropout": 0.1, "rope_theta": 999999.4420358813,
        "sliding_window": 4096, "use_bias": true, "vocab_size": 49152}"#,
    r#"{"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"], "attention_bias": false,
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-06,
        "rope_scaling": null, "rope_theta": 500000, "tie_word_embeddings": false, "vocab_size": 100352}"#,
];

#[test]
fn published_configs_are_read() {
    for text in PUBLISHED {
        let arch = read(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(arch.head.task, Task::LanguageModel, "{}", arch.family);
        assert_eq!(arch.branch(), "decoder");
    }
}

#[test]
fn what_they_leave_out_is_what_their_library_takes() {
    let arch = |family: &str| {
        let find = |text: &&&str| text.contains(&format!("\"model_type\": \"{family}\""));
        read(PUBLISHED.iter().find(find).expect("a config")).expect("an arch")
    };
    let (gemma, falcon) = (arch("gemma"), arch("falcon"));
    assert_eq!(gemma.last().embed.scale, 2048f32.sqrt());
    assert_eq!((falcon.last().n_kv_heads, falcon.last().d_ff, falcon.max_positions), (1, 4 * 4544, 2048));
    let phi3 = arch("phi3");
    assert_eq!(phi3.max_positions, 4096, "longrope has one set of factors up to here");
    let Position::Rope { all, .. } = &phi3.last().position else { panic!("no rope") };
    assert!((all.scale - (1.0 + 32f32.ln() / 4096f32.ln()).sqrt()).abs() < 1e-6);
    let gemma2 = arch("gemma2");
    let windows: Vec<_> = (0..3).map(|layer| gemma2.last().attention().window_of(layer)).collect();
    assert_eq!(windows, [Some(4096), None, Some(4096)]);
    assert_eq!((gemma2.head.cap, gemma2.last().attention().cap), (Some(30.0), Some(50.0)));
}

#[test]
fn heads_follow_the_class_that_wrote_the_file() {
    let with = |class: &str, more: &str| {
        let llama = format!(
            r#"{{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2,
            "intermediate_size": 8, "vocab_size": 9, "architectures": ["{class}"] {more}}}"#
        );
        read(&llama).map(|arch| (arch.head.task, arch.head.n))
    };
    let labels = r#", "id2label": {"0": "a", "1": "b", "2": "c"}"#;
    assert_eq!(with("LlamaForCausalLM", "").unwrap(), (Task::LanguageModel, 9));
    assert_eq!(with("LlamaForSequenceClassification", "").unwrap(), (Task::Classify, 2));
    assert_eq!(with("LlamaForSequenceClassification", labels).unwrap(), (Task::Classify, 3));
    assert_eq!(with("LlamaForTokenClassification", r#", "num_labels": 5"#).unwrap(), (Task::Tag, 5));
    assert_eq!(with("LlamaForQuestionAnswering", "").unwrap(), (Task::Span, 2));
    assert_eq!(with("LlamaModel", "").unwrap().0, Task::Hidden);
    for class in ["LlamaForMultipleChoice", "GPT2DoubleHeadsModel"] {
        let error = with(class, "").expect_err("another head").to_string();
        assert!(error.contains(class) && error.contains("architectures"), "{error}");
    }
}

#[test]
fn what_is_not_done_is_refused_by_name() {
    let changes = [
        ("bloom", r#""apply_residual_connection_post_layernorm": true"#),
        ("bloom", r#""slow_but_exact": true"#),
        ("falcon", r#""apply_residual_connection_post_layernorm": true"#),
        ("falcon", r#""new_decoder_architecture": true, "parallel_attn": false"#),
        ("gemma", r#""use_bidirectional_attention": true"#),
        ("gemma2", r#""final_logit_softcapping": -1.0"#),
        ("gptj", r#""scale_attn_weights": false"#),
        ("opt", r#""activation_function": "mish""#),
        ("qwen3", r#""num_experts": 8"#),
        ("phi3", r#""rope_scaling": {"type": "abf", "factor": 2.0}"#),
        ("starcoder2", r#""norm_type": "rms_norm""#),
        ("olmo2", r#""clip_qkv": 8.0"#),
        ("gpt_neox", r#""quantization_config": {"bits": 4}"#),
    ];
    for (family, change) in changes {
        let find = |text: &&&str| text.contains(&format!("\"model_type\": \"{family}\""));
        let text = PUBLISHED.iter().find(find).expect("a config");
        let mut map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).expect("JSON");
        let more: serde_json::Map<_, _> = serde_json::from_str(&format!("{{{change}}}")).expect("JSON");
        let key = more.keys().next_back().expect("a key").clone();
        map.extend(more);
        let error = read(&serde_json::to_string(&map).expect("JSON")).expect_err(change).to_string();
        assert!(error.contains(&key), "{family}: {change}: {error}");
    }
}
