"""Writes a Llama model of a given shape with random weights: python shapes.py SHAPE OUT [--layers N] [--seed S]

OUT becomes a Hugging Face directory in bf16 (config.json, model.safetensors, no tokenizer). Speed does not depend on
the values, so random ones will do; they are scaled so that activations keep their size from layer to layer, and norms
are one. Every tensor is drawn from a generator seeded with (seed, name), and pieces of it are written as they are
drawn: memory holds one piece.

    1b      22 layers, d_model 2048, 32/4 heads, d_ff 5632, vocab 32000: TinyLlama's shape, 2.2 GB
    896     Qwen2-0.5B's widths, 1536 Qwen2-1.5B's, 1024 and 4096 those of a small and a 7B Llama; few layers, since
            the widths are what is asked about; vocab 32000, untied
"""

import argparse
import json
import zlib
from pathlib import Path

import numpy as np
from to_gguf import to_bf16

# layers, d_model, heads, key/value heads, d_ff
SHAPES = {
    "1b": (22, 2048, 32, 4, 5632),
    "896": (8, 896, 14, 2, 4864),
    "1024": (8, 1024, 16, 4, 2816),
    "1536": (4, 1536, 12, 2, 8960),
    "4096": (2, 4096, 32, 8, 14336),
}
VOCAB = 32000
# Rows drawn at once: bounds what lies in memory as f32.
ROWS = 4096


def config(layers, d, heads, kv_heads, d_ff):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": d,
        "intermediate_size": d_ff,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": d // heads,
        "hidden_act": "silu",
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": VOCAB,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "bfloat16",
    }


def tensors(layers, d, heads, kv_heads, d_ff):
    """Name and shape of each."""
    q, kv = d, d // heads * kv_heads
    yield "model.embed_tokens", (VOCAB, d)
    for i in range(layers):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm", (d,)
        yield layer + "self_attn.q_proj", (q, d)
        yield layer + "self_attn.k_proj", (kv, d)
        yield layer + "self_attn.v_proj", (kv, d)
        yield layer + "self_attn.o_proj", (d, q)
        yield layer + "post_attention_layernorm", (d,)
        yield layer + "mlp.gate_proj", (d_ff, d)
        yield layer + "mlp.up_proj", (d_ff, d)
        yield layer + "mlp.down_proj", (d, d_ff)
    yield "model.norm", (d,)
    yield "lm_head", (VOCAB, d)


def draw(name, shape, seed):
    """The tensor's bf16 bits, a piece after the other."""
    if len(shape) == 1:
        yield np.full(shape, 0x3F80, np.uint16)
        return
    random = np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode())]))
    scale = np.float32(1.0 if name == "model.embed_tokens" else shape[1] ** -0.5)
    for first in range(0, shape[0], ROWS):
        rows = min(ROWS, shape[0] - first)
        yield to_bf16(random.standard_normal((rows, shape[1]), np.float32) * scale)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=0, help="another number of layers")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    layers, *sizes = SHAPES[args.shape]
    sizes = (args.layers or layers, *sizes)
    args.out.mkdir(parents=True, exist_ok=True)
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors(*sizes):
        end = at + 2 * int(np.prod(shape))
        header[name + ".weight"] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with (args.out / "model.safetensors").open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors(*sizes):
            for piece in draw(name, shape, args.seed):
                piece.tofile(out)
    # Last: a folder with it is whole.
    (args.out / "config.json").write_text(json.dumps(config(*sizes), indent=1) + "\n")


main()
