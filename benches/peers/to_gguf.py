"""Writes a Llama directory as a GGUF file: python to_gguf.py DIR OUT.gguf [--type f32|bf16] [--like OTHER.gguf]

Matrices get the type, norms stay f32, as llama.cpp wants them. The rows of q and k are put in the order in which
llama.cpp rotates them. Metadata is made from config.json, without a tokenizer, or taken from OTHER, which has to be the
same model. Tensors are read from the mapped file and written one by one, so memory holds one at a time.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
from gguf import GGMLQuantizationType as Q
from safetensors import safe_open

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
KINDS = {"f32": (Q.F32, LlamaFileType.ALL_F32), "bf16": (Q.BF16, LlamaFileType.MOSTLY_BF16)}


def gguf_name(name):
    """llama.cpp's name of a Hugging Face tensor: `blk.3.attn_q.weight` of `model.layers.3.self_attn.q_proj.weight`."""
    stem = name.removesuffix(".weight")
    if not stem.startswith("model.layers."):
        return NAMES[stem] + ".weight"
    layer, part = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{NAMES[part]}.weight"


def rotated(config, name):
    """Heads whose rows llama.cpp has in another order; none for most tensors."""
    heads = config["num_attention_heads"]
    return {"q_proj": heads, "k_proj": config.get("num_key_value_heads") or heads}.get(name.split(".")[-2], 0)


def interleave(rows, heads):
    """[heads * (2 halves) * n, k] to [heads * n * (2 of a pair), k]: a half-split rotation's rows as pairs."""
    n, k = rows.shape
    return rows.reshape(heads, 2, n // heads // 2, k).swapaxes(1, 2).reshape(n, k)


def separate(rows, heads):
    """What `interleave` does, undone."""
    n, k = rows.shape
    return rows.reshape(heads, n // heads // 2, 2, k).swapaxes(1, 2).reshape(n, k)


def to_bf16(x):
    """The upper halves of finite f32 values, rounded to nearest even."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def metadata(writer, config):
    heads = config["num_attention_heads"]
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise SystemExit(f"config.json: rope_type: expected default, found {rope['rope_type']}")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_rope_freq_base(config.get("rope_theta") or rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")


def copied_metadata(writer, path):
    for name, field in GGUFReader(path).fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        array = field.types[0] == GGUFValueType.ARRAY
        writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if array else None)


def convert(folder, out, kind, like):
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "llama":
        raise SystemExit(f"{folder}/config.json: model_type: expected llama, found {config['model_type']}")
    quant, file_type = KINDS[kind]
    writer = GGUFWriter(out, "llama")
    writer.add_file_type(file_type)
    if like:
        copied_metadata(writer, like)
    else:
        metadata(writer, config)
    with safe_open(folder / "model.safetensors", "pt") as weights:
        names = [name for name in weights.keys() if not (name == "lm_head.weight" and config["tie_word_embeddings"])]
        for name in names:
            shape = weights.get_slice(name).get_shape()
            this = quant if len(shape) == 2 else Q.F32
            # gguf takes the shape of raw types in bytes.
            raw = this == Q.BF16
            size = int(np.prod(shape)) * (2 if raw else 4)
            shape = (*shape[:-1], 2 * shape[-1]) if raw else tuple(shape)
            writer.add_tensor_info(gguf_name(name), shape, np.dtype(np.uint8 if raw else np.float32), size, this)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in names:
            values = weights.get_tensor(name).float().numpy()
            heads = rotated(config, name) if values.ndim == 2 else 0
            values = np.ascontiguousarray(interleave(values, heads) if heads else values)
            writer.write_tensor_data(to_bf16(values).view(np.uint8) if values.ndim == 2 and kind == "bf16" else values)
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=KINDS, default="f32")
    parser.add_argument("--like", type=Path)
    args = parser.parse_args()
    convert(args.folder, args.out, args.type, args.like)


if __name__ == "__main__":
    main()
