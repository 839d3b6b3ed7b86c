"""Writes smollm2.json: the ids of a thousand lines of mixed text (lines.py), by the `tokenizers` library with the
vocabulary and merges of SmolLM2's GGUF file and the pre-tokenizer of the model's own tokenizer.json: single digits, then
GPT-2's rule. For each line it holds the number of ids and a hash of them, for every hundredth the ids themselves.

`transformers` 5 rebuilds this tokenizer without the step for digits, so where white space stands before a digit its ids are
others than those that the model was trained with (and than llama.cpp's); the script counts such lines.

    pip install tokenizers gguf transformers; python make.py SmolLM2-135M-Instruct.Q4_1.gguf
"""

import json
import os
import sys

import gguf
from lines import lines
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))


def fnv(ids):
    """FNV-1a over the ids as 32-bit words, lowest byte first."""
    h = 0xCBF29CE484222325
    for byte in b"".join(i.to_bytes(4, "little") for i in ids):
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


def main(path):
    fields = gguf.GGUFReader(path).fields
    get = lambda key: fields[f"tokenizer.ggml.{key}"].contents()
    tokens, merges, types = get("tokens"), get("merges"), get("token_type")
    reference = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    reference.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, types) if k == 3])
    out = []
    for n, line in enumerate(lines()):
        ids = reference.encode(line, add_special_tokens=False).ids
        entry = [line, len(ids), f"{fnv(ids):016x}"]
        out.append(entry + [ids] if n % 100 == 0 else entry)
    with open(os.path.join(HERE, "smollm2.json"), "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in out) + "\n]\n")

    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path))
    differ = sum(fnv(theirs.encode(e[0], add_special_tokens=False)) != int(e[2], 16) for e in out)
    print(f"{len(out)} lines; transformers differs in {differ}")


main(sys.argv[1])
