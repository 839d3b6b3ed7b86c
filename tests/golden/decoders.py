"""Configs of the golden models of later decoder families, and of decoders with another head, for `make.py`."""

from transformers import AutoModel, AutoModelForQuestionAnswering, AutoModelForSequenceClassification
from transformers import AutoModelForTokenClassification, BloomConfig, FalconConfig, Gemma2Config, GemmaConfig
from transformers import GPT2Config, GPTJConfig, GPTNeoXConfig, LlamaConfig, Olmo2Config, OpenAIGPTConfig, OPTConfig
from transformers import Phi3Config, PhiConfig, Qwen2Config, Qwen3Config, Starcoder2Config

SIZES = dict(
    vocab_size=67, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=80,
    bos_token_id=1, eos_token_id=2, pad_token_id=None,
)  # fmt: skip
GATED = dict(SIZES, intermediate_size=37, num_key_value_heads=2, rms_norm_eps=1e-5)


def gated(config, **more):
    return config(**{**GATED, **more})


def sized(config, **more):
    return config(**{**SIZES, **more})


def gpt(config, **more):
    sizes = dict(vocab_size=67, n_embd=24, n_layer=2, n_head=3, n_positions=80, bos_token_id=1, eos_token_id=2)
    return config(**{**sizes, **more})


def bloom(**more):
    sizes = dict(vocab_size=67, hidden_size=24, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
    return BloomConfig(**{**sizes, **more})


def rope(kind=None, theta=10000.0, **more):
    return dict(rope_parameters=dict(rope_theta=theta, rope_type=kind or "default", **more))


NEOX = dict(hidden_size=32, intermediate_size=37)
LONG = dict(short_factor=[1.0, 1.3, 1.9], long_factor=[2.0, 5.0, 9.0], partial_rotary_factor=0.75)
MODELS = {
    "qwen2-yarn": gated(Qwen2Config, **rope("yarn", 300.0, factor=4.0, original_max_position_embeddings=24)),
    "llama-dynamic-rope": gated(LlamaConfig, **rope("dynamic", factor=3.0)),
    "qwen3": gated(Qwen3Config, head_dim=10),
    "qwen3-window": gated(
        Qwen3Config, num_hidden_layers=3, head_dim=6, attention_bias=True, tie_word_embeddings=True,
        use_sliding_window=True, sliding_window=9, max_window_layers=2, **rope(theta=1000000.0),
    ),
    "gemma": gated(GemmaConfig, num_key_value_heads=1, head_dim=10),
    "gemma2": gated(
        Gemma2Config, num_hidden_layers=3, head_dim=10, query_pre_attn_scalar=17, sliding_window=9,
        attn_logit_softcapping=3.0, final_logit_softcapping=4.0,
    ),
    "gemma2-uncapped": gated(
        Gemma2Config, head_dim=6, query_pre_attn_scalar=6, sliding_window=9, attn_logit_softcapping=None,
        final_logit_softcapping=None, layer_types=["full_attention", "sliding_attention"],
    ),
    "phi": sized(PhiConfig, hidden_size=32, intermediate_size=37, **rope(partial_rotary_factor=0.5)),
    "phi3": gated(Phi3Config, sliding_window=11),
    "phi3-longrope": gated(
        Phi3Config, hidden_size=32, original_max_position_embeddings=75, max_position_embeddings=300,
        **rope("longrope", **LONG),
    ),
    "starcoder2": sized(Starcoder2Config, intermediate_size=53, num_key_value_heads=2, sliding_window=11),
    "starcoder2-plain": sized(
        Starcoder2Config, intermediate_size=53, num_key_value_heads=1, use_bias=False, tie_word_embeddings=False
    ),
    "olmo2": gated(Olmo2Config),
    "gpt": gpt(OpenAIGPTConfig),
    "gpt-silu": gpt(OpenAIGPTConfig, afn="silu", n_head=4),
    "gpt-neox": sized(GPTNeoXConfig, **NEOX),
    "gpt-neox-serial": sized(
        GPTNeoXConfig, **NEOX, use_parallel_residual=False, attention_bias=False, **rope(partial_rotary_factor=0.5)
    ),
    "gptj": gpt(GPTJConfig, rotary_dim=4),
    "gptj-tied": gpt(GPTJConfig, rotary_dim=6, n_inner=53, n_head=4, tie_word_embeddings=True),
    "opt": sized(OPTConfig, ffn_dim=37),
    "opt-350m": sized(OPTConfig, ffn_dim=37, do_layer_norm_before=False, word_embed_proj_dim=15),
    "opt-galactica": sized(
        OPTConfig, ffn_dim=37, activation_function="gelu", enable_bias=False, layer_norm_elementwise_affine=False
    ),
    "bloom": bloom(),
    "bloom-heads": bloom(n_head=3, n_layer=3),
    "falcon": sized(FalconConfig, ffn_hidden_size=53),
    "falcon-grouped": sized(FalconConfig, new_decoder_architecture=True, num_kv_heads=2, tie_word_embeddings=False),
    "falcon-grouped-one-norm": sized(
        FalconConfig, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1
    ),
    "falcon-alibi": sized(FalconConfig, alibi=True, multi_query=False, parallel_attn=False, bias=True),
    "llama-classes": gated(LlamaConfig, num_labels=3),
    "gpt2-classes": gpt(GPT2Config, num_labels=2),
    "gpt2-tags": gpt(GPT2Config, num_labels=4),
    "opt-350m-reward": sized(OPTConfig, ffn_dim=37, do_layer_norm_before=False, word_embed_proj_dim=15, num_labels=1),
    "qwen3-tags": gated(Qwen3Config, head_dim=6, num_labels=5),
    "gemma2-classes": gated(Gemma2Config, head_dim=6, query_pre_attn_scalar=6, sliding_window=9, num_labels=3),
    "llama-spans": gated(LlamaConfig),
    "falcon-bare": sized(FalconConfig),
    "gpt-neox-bf16": sized(GPTNeoXConfig, **NEOX),
    # Slopes that are no powers of two, which it rounds to bf16, and products of them.
    "falcon-alibi-rounded": sized(
        FalconConfig, hidden_size=32, num_attention_heads=16, alibi=True, multi_query=False, parallel_attn=False, bias=True
    ),
    "opt-350m-bare": sized(OPTConfig, ffn_dim=37, do_layer_norm_before=False, word_embed_proj_dim=15),
}  # fmt: skip
HEADS = {
    "classes": AutoModelForSequenceClassification,
    "reward": AutoModelForSequenceClassification,
    "tags": AutoModelForTokenClassification,
    "spans": AutoModelForQuestionAnswering,
    "bare": AutoModel,
}
OLD_CONFIG = {"qwen2-yarn", "gemma", "gemma2", "phi3-longrope", "gpt-neox", "falcon"}
