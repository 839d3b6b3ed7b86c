"""Writes small files of every family, metadata and element type with the `gguf` package.

pip install gguf numpy; python make.py
"""

import math
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf import GGUFWriter, RopeScalingType
from gguf.quants import quantize

HERE = Path(__file__).parent
D, HEADS, KV, FF, VOCAB, HEAD = 64, 4, 2, 96, 40, 16


def tokens(w):
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list([f"t{i}" for i in range(VOCAB)])
    w.add_token_types([1] * VOCAB)
    w.add_token_scores([i / 4 for i in range(VOCAB)])
    w.add_token_merges(["t 1", "t 2"])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_eot_token_id(3)
    w.add_pad_token_id(2)
    w.add_chat_template("{{ messages }}")


def values(*shape):
    n = math.prod(shape)
    return (np.arange(n, dtype=np.float32).reshape(shape) - n / 2) / n


def llama():
    w = GGUFWriter(HERE / "llama.gguf", "llama")
    w.add_context_length(64)
    w.add_embedding_length(D)
    w.add_block_count(1)
    w.add_feed_forward_length(FF)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV)
    w.add_rope_freq_base(10000.0)
    w.add_rope_dimension_count(HEAD)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(VOCAB)
    w.add_custom_alignment(64)
    for name, add, value in [
        ("u8", w.add_uint8, 200), ("i8", w.add_int8, -100), ("u16", w.add_uint16, 60000), ("i16", w.add_int16, -30000),
        ("u32", w.add_uint32, 4 << 29), ("i32", w.add_int32, -(1 << 30)), ("u64", w.add_uint64, (1 << 64) - 1),
        ("i64", w.add_int64, -(1 << 63)), ("f32", w.add_float32, 0.1), ("f64", w.add_float64, 0.1),
        ("bool", w.add_bool, True), ("text", w.add_string, "größer"),
    ]:
        add(f"test.{name}", value)
    tokens(w)
    # As the converter of Llama 3.1 writes its rope scaling, here of 32 positions.
    factors, (factor, low, high, original) = [], (8.0, 1.0, 4.0, 32)
    for i in range(0, HEAD, 2):
        wave = 2 * math.pi / np.float32(1 / np.float32(10000.0) ** np.float32(i / HEAD))
        smooth = min(max((original / wave - low) / (high - low), 0), 1)
        factors.append(1 / ((1 - smooth) / factor + smooth))
    w.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32))
    for name, shape, kind in [
        ("token_embd.weight", (VOCAB, D), Q.Q8_0), ("output_norm.weight", (D,), Q.F32),
        ("blk.0.attn_norm.weight", (D,), Q.F32), ("blk.0.ffn_norm.weight", (D,), Q.F32),
        ("blk.0.attn_q.weight", (HEADS * HEAD, D), Q.F16), ("blk.0.attn_k.weight", (KV * HEAD, D), Q.BF16),
        ("blk.0.attn_v.weight", (KV * HEAD, D), Q.Q4_0), ("blk.0.attn_output.weight", (D, HEADS * HEAD), Q.Q4_1),
        ("blk.0.ffn_gate.weight", (FF, D), Q.Q5_0), ("blk.0.ffn_up.weight", (FF, D), Q.Q5_1),
        ("blk.0.ffn_down.weight", (D, FF), Q.F32),
    ]:
        w.add_tensor(name, quantize(values(*shape), kind), raw_dtype=kind)
    finish(w)


def gpt2():
    w = GGUFWriter(HERE / "gpt2.gguf", "gpt2")
    w.add_context_length(8)
    w.add_embedding_length(4)
    w.add_block_count(1)
    w.add_feed_forward_length(16)
    w.add_head_count(2)
    w.add_layer_norm_eps(1e-5)
    tokens(w)
    w.add_tensor("token_embd.weight", values(VOCAB, 4))
    w.add_tensor("position_embd.weight", values(8, 4))
    for name, rows in [("output_norm", 4), ("blk.0.attn_norm", 4), ("blk.0.ffn_norm", 4)]:
        w.add_tensor(f"{name}.weight", values(rows))
        w.add_tensor(f"{name}.bias", values(rows))
    for name, rows, cols in [("attn_qkv", 12, 4), ("attn_output", 4, 4), ("ffn_up", 16, 4), ("ffn_down", 4, 16)]:
        w.add_tensor(f"blk.0.{name}.weight", values(rows, cols))
        w.add_tensor(f"blk.0.{name}.bias", values(rows))
    finish(w)


def variant(name, arch):
    w = GGUFWriter(HERE / f"{name}.gguf", arch)
    w.add_context_length(64)
    w.add_embedding_length(8)
    w.add_block_count(1)
    w.add_feed_forward_length(12)
    w.add_head_count(2)
    w.add_head_count_kv(1)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(1e6)
    if name == "mistral":
        w.add_sliding_window(16)
        w.add_key_length(6)
        w.add_value_length(6)
        w.add_rope_scaling_type(RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(2.5)
    w.add_tensor("token_embd.weight", values(10, 8))
    w.add_tensor("output.weight", values(10, 8))
    if name == "qwen2":
        w.add_tensor("blk.0.attn_q.bias", values(8))
    finish(w)


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


llama()
gpt2()
variant("mistral", "llama")
variant("qwen2", "qwen2")
