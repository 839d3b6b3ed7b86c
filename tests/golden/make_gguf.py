"""Writes the golden GGUF files: pip install -r requirements.txt; python make_gguf.py [NAME...]

Each folder `gguf-FAMILY-TYPE` holds `model.gguf` and the reference of the weights as `gguf` dequantises them (see
reference.py). Where the package can quantise, weights are quantised from random ones; where it can only read a type,
its blocks are random bits with scales that give the same spread.
"""

import math
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFWriter, quants
from gguf import GGMLQuantizationType as Q
from gguf.constants import GGML_QUANT_SIZES
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

import reference

HERE = Path(__file__).parent
UNWRITABLE = {Q.Q4_K, Q.Q5_K, Q.Q6_K, Q.IQ4_NL}
# name of the tensor in GGUF: its name in the model, of Llama and Qwen2
LLAMA = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
GPT2 = {
    "attn_norm": "ln_1", "ffn_norm": "ln_2", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj",
    "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
}  # fmt: skip


def names(config):
    """(name in GGUF, name in the model) of every module, without .weight and .bias."""
    gpt2 = config.model_type == "gpt2"
    if gpt2:
        yield from [("token_embd", "transformer.wte"), ("position_embd", "transformer.wpe")]
        yield ("output_norm", "transformer.ln_f")
    else:
        yield from [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm")]
    yield ("output", "lm_head")
    for i in range(config.num_hidden_layers):
        for short, long in (GPT2 if gpt2 else LLAMA).items():
            yield (f"blk.{i}.{short}", f"transformer.h.{i}.{long}" if gpt2 else f"model.layers.{i}.{long}")


def random_blocks(kind, rows, cols, std, seed):
    """Rows of random blocks whose values have about the standard deviation `std`."""
    per_block, size = GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (rows * cols // per_block, size), dtype=np.uint8)
    at = size - 2 if kind == Q.Q6_K else 0  # where the f16 scale lies; in Q4_K and Q5_K the scale of the minima follows
    spread = random.uniform(0.5, 1.5, len(blocks))
    mean = {Q.Q4_K: 7.5, Q.Q5_K: 15.5}.get(kind)

    def scale(by):
        blocks[:, at : at + 2] = (by * spread).astype(np.float16)[:, None].view(np.uint8)
        if mean:  # as far below zero as above, on average
            blocks[:, 2:4] = (by * mean * spread).astype(np.float16)[:, None].view(np.uint8)

    scale(2.0**-6)
    scale(2.0**-6 * std / quants.dequantize(blocks, kind).std())
    return blocks.reshape(rows, -1)


def stored(kind, weight, seed):
    """Bytes of `weight`, a row each, in the type `kind`."""
    if kind in UNWRITABLE:
        return random_blocks(kind, *weight.shape, weight.std(), seed)
    data = quants.quantize(np.ascontiguousarray(weight), kind)
    return data if kind == Q.F32 else data.reshape(len(weight), -1)


def permuted(rows, heads):
    """Rows of q or k in GGUF's order: the two halves of a head interleaved, as its rope expects."""
    return rows.reshape(heads, 2, len(rows) // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def header(writer, config):
    gpt2 = config.model_type == "gpt2"
    writer.add_name("golden")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(4 * config.hidden_size if gpt2 else config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    if gpt2:
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_rope_dimension_count(head_dim)
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    writer.add_token_types([1] * config.vocab_size)
    writer.add_token_merges(["t 1", "t 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def rope_freqs(config):
    """The divisors of llama3's frequencies, as the converter of llama.cpp writes them."""
    r, dim = config.rope_parameters, config.head_dim
    low, high = r["low_freq_factor"], r["high_freq_factor"]
    for i in range(0, dim, 2):
        turns = r["original_max_position_embeddings"] / (2 * math.pi * r["rope_theta"] ** (i / dim))
        smooth = min(max((turns - low) / (high - low), 0), 1)
        yield 1 / ((1 - smooth) / r["factor"] + smooth)


def how(kind):
    """What the inputs of a linear layer with weights of this type are rounded to."""
    return {Q.F32: None, Q.F16: None, Q.BF16: "bf16"}.get(kind, "bytes")


def make(name, seed):
    config, kind, others = MODELS[name]
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    reference.strengthen(model, seed)
    state, tied = dict(model.state_dict()), config.tie_word_embeddings
    writer = GGUFWriter(folder / "model.gguf", config.model_type)
    header(writer, config)
    if "llama3" in config.to_json_string():
        writer.add_tensor("rope_freqs.weight", np.array(list(rope_freqs(config)), dtype=np.float32))
    rounds = {}
    for i, (short, long) in enumerate(names(config)):
        if short == "output" and tied:
            rounds[long] = how(kind)
            continue
        key, conv1d = f"{long}.weight", config.model_type == "gpt2" and short.startswith("blk") and "norm" not in short
        value = state[key].numpy()
        if value.ndim == 1:
            writer.add_tensor(f"{short}.weight", value)
        else:
            last = short.split(".")[-1]
            this = others.get(last, Q.F32 if last == "position_embd" else kind)
            rounds[long] = how(this)
            rows = stored(this, value.T if conv1d else value, 1000 * seed + i)
            back = torch.from_numpy(quants.dequantize(rows, this).copy()).float()
            state[key] = back.T if conv1d else back
            if config.model_type == "llama" and last in ("attn_q", "attn_k"):
                rows = permuted(rows, config.num_attention_heads if last == "attn_q" else config.num_key_value_heads)
            writer.add_tensor(f"{short}.weight", rows, raw_dtype=this)
        if f"{long}.bias" in state:
            writer.add_tensor(f"{short}.bias", state[f"{long}.bias"].numpy())
    if tied:
        table = "transformer.wte" if config.model_type == "gpt2" else "model.embed_tokens"
        state["lm_head.weight"] = state[f"{table}.weight"]
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    model.load_state_dict(state)
    check(model, folder, config)
    reference.record(model, folder, seed, rounds.get)


def check(model, folder, config):
    """What transformers itself reads from the file, where it reads all of it, answers with the same bits."""
    if config.model_type == "gpt2" or "llama3" in config.to_json_string():
        return
    read = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="model.gguf", dtype=torch.float32, attn_implementation="eager"
    )
    ids = reference.inputs(config.vocab_size, 1)[2]
    model.config._attn_implementation = "eager"
    assert torch.equal(reference.logits(read.eval(), ids), reference.logits(model.eval(), ids)), folder


SIZES = dict(
    vocab_size=101, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, rms_norm_eps=1e-5,
)  # fmt: skip
# Blocks of 256 need rows of 256; where that would make a large file, smaller blocks stand in, as in real mixes.
WIDE = {**SIZES, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "head_dim": 16, "vocab_size": 61}
MIX = {"attn_output": Q.Q4_0, "ffn_gate": Q.Q4_1, "ffn_up": Q.Q5_0}
LLAMA3 = dict(
    rope_type="llama3", rope_theta=200.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=32,
)  # fmt: skip
SMALL = [Q.F32, Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.IQ4_NL]
MODELS = {
    f"gguf-llama-{kind.name.lower()}": (
        LlamaConfig(**{**SIZES, "num_hidden_layers": 2 if i else 1}, head_dim=16, tie_word_embeddings=i % 2 == 0),
        kind,
        {},
    )
    for i, kind in enumerate(SMALL)
}
MODELS |= {
    f"gguf-llama-{kind.name.lower()}": (LlamaConfig(**WIDE, tie_word_embeddings=True), kind, MIX)
    for kind in (Q.Q4_K, Q.Q5_K, Q.Q6_K)
}
MODELS |= {
    "gguf-llama3-rope": (LlamaConfig(**SIZES, head_dim=16, rope_parameters=LLAMA3), Q.Q8_0, {}),
    "gguf-qwen2-q8_0": (Qwen2Config(**SIZES, tie_word_embeddings=True), Q.Q8_0, {"ffn_down": Q.Q5_1}),
    "gguf-gpt2-q5_0": (
        GPT2Config(vocab_size=89, n_embd=64, n_layer=1, n_head=4, n_positions=72, bos_token_id=1, eos_token_id=2),
        Q.Q5_0,
        {"attn_qkv": Q.F16},
    ),
}

if __name__ == "__main__":
    for seed, name in enumerate(MODELS, start=101):
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            make(name, seed)
