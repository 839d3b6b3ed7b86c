"""Writes the golden models in Hugging Face form: pip install -r requirements.txt; python make.py [NAME...]

Each is a folder as transformers' `save_pretrained` leaves it, with its reference beside it (see reference.py). Some
configs are then rewritten in the words of transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`), which most
published models use.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config

import decoders
import reference

HERE = Path(__file__).parent
# Odd sizes: a head of 10 is a multiple of no vector, 67 is prime.
SIZES = dict(
    vocab_size=101, hidden_size=40, intermediate_size=67, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=128, bos_token_id=1, eos_token_id=2, rms_norm_eps=1e-5,
)  # fmt: skip
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)


def llama(**more):
    return LlamaConfig(**{**SIZES, **more})


def gpt2(**more):
    sizes = dict(vocab_size=89, n_embd=36, n_layer=2, n_head=3, n_positions=72, bos_token_id=1, eos_token_id=2)
    return GPT2Config(**{**sizes, **more})


def rope(kind=None, theta=10000.0, **more):
    return dict(rope_parameters=dict(rope_theta=theta, rope_type=kind or "default", **more))


MODELS = {
    "llama-tied": llama(tie_word_embeddings=True, num_key_value_heads=4),
    "llama-gqa": llama(num_key_value_heads=2, **rope(theta=500.0)),
    # Wave lengths fall in all three of its ranges: kept, blended, divided.
    "llama3-rope": llama(
        num_key_value_heads=1, rope_parameters=dict(rope_theta=200.0, original_max_position_embeddings=32, **LLAMA3)
    ),
    "llama-linear-rope": llama(num_key_value_heads=2, **rope("linear", factor=2.5)),
    "llama-bias": llama(attention_bias=True, mlp_bias=True, num_key_value_heads=2),
    "llama-head-dim": llama(head_dim=14, num_key_value_heads=2),
    "llama-sharded": llama(num_key_value_heads=2, tie_word_embeddings=True),
    "llama-bf16": llama(num_key_value_heads=2, tie_word_embeddings=True),
    "llama-f16": llama(num_key_value_heads=2),
    "mistral-window": MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=7),
    "mistral-full": MistralConfig(**SIZES, num_key_value_heads=4, sliding_window=None, head_dim=8),
    "qwen2": Qwen2Config(**SIZES, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen2-untied": Qwen2Config(**SIZES, num_key_value_heads=1, **rope(theta=1000000.0)),
    "gpt2": gpt2(),
    "gpt2-untied": gpt2(tie_word_embeddings=False, n_inner=50),
    "gpt2-gelu": gpt2(activation_function="gelu"),
    "gpt2-relu": gpt2(activation_function="relu", scale_attn_weights=False),
}
STORED = {"llama-f16": torch.float16}
SEEDS = dict(zip(MODELS, range(1, 100))) | dict(zip(decoders.MODELS, range(100, 200)))
MODELS |= decoders.MODELS
OLD_CONFIG = decoders.OLD_CONFIG | {"llama-gqa", "llama3-rope", "llama-linear-rope", "llama-bf16", "mistral-window", "qwen2"}


def old_config(folder):
    """The same config in the words of transformers 4."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    if "partial_rotary_factor" in parameters:
        name = "rotary_pct" if config["model_type"] == "gpt_neox" else "partial_rotary_factor"
        config[name] = parameters.pop("partial_rotary_factor")
    if config["model_type"] == "gpt_neox":
        config["rotary_emb_base"] = config.pop("rope_theta")
    config["rope_scaling"] = None if parameters["rope_type"] == "default" else parameters
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    config["transformers_version"] = "4.46.0"
    path.write_text(json.dumps(config, indent=2) + "\n")


def make(name, seed):
    folder, config = HERE / name, MODELS[name]
    # Its eager form adds ALiBi's bias twice.
    attention = "sdpa" if name.startswith("falcon-alibi") else "eager"
    auto = decoders.HEADS.get(name.split("-")[-1], AutoModelForCausalLM)
    shutil.rmtree(folder, ignore_errors=True)
    model = auto.from_config(config, attn_implementation=attention)
    reference.strengthen(model, seed)
    model = model.to(torch.bfloat16 if name.endswith("-bf16") else STORED.get(name, torch.float32))
    model.save_pretrained(folder, max_shard_size="60KB" if name == "llama-sharded" else "1GB")
    if name in OLD_CONFIG:
        old_config(folder)
    # Read back: what is recorded is what the files say.
    model = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)
    reference.record(model, folder, seed, lambda _: "bf16" if name.endswith("-bf16") else None, attention)


if __name__ == "__main__":
    for name, seed in SEEDS.items():
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            make(name, seed)
