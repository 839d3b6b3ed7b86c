"""What quantising costs an encoder: python encoder.py WORK [--variants V,V] [--tokens N] [--inlaid BIN]

WORK/minilm is what prepare.sh made of all-MiniLM-L6-v2. An encoder predicts no next token: for every variant the mean
cosine distance of the embeddings of real paragraphs (means of the last hidden states) from those of the f32 model in
transformers, with its standard error, the 99th percentile, and the bytes of the weights. Variants:

    q8_0 q4_0 q4_k_m        llama.cpp's files, dequantised and run in f32: the error of the weights alone
    inlaid-q8 inlaid-q4     `inlaid convert --packed --to q8|q4`, run by inlaid: weights and activations

A variant whose file is not there is skipped with a line. Writes WORK/minilm/quality.json and prints a table.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import MODEL_ARCH, GGUFReader, get_tensor_name_map, quants
from transformers import AutoModel, AutoTokenizer

USUAL = "q8_0,q4_0,q4_k_m,inlaid-q8,inlaid-q4"
# Tokens of a paragraph, special ones included: long enough to say something, short enough for the model.
LENGTHS = range(24, 129)
# Paragraphs that transformers reads at once.
BATCH = 32


def paragraphs(work, tokenizer, tokens):
    """Paragraphs, evenly spread over the books, that have `tokens` tokens together, and how many they have."""
    books = [path.read_text(encoding="utf-8", errors="replace") for path in sorted((work / "texts").glob("*.txt"))]
    every = [" ".join(part.split()) for book in books for part in re.split(r"\n\s*\n", book)]
    lengths = [len(ids) for ids in tokenizer(every, truncation=True, max_length=LENGTHS.stop)["input_ids"]]
    fit = [(text, n) for text, n in zip(every, lengths, strict=True) if n in LENGTHS]
    count = next((i for i in range(1, len(fit)) if sum(n for _, n in fit[:: len(fit) // i][:i]) >= tokens), len(fit))
    some = fit[:: len(fit) // count][:count]
    total = sum(n for _, n in some)
    if total < tokens:
        raise SystemExit(f"{work}/texts: expected paragraphs of {tokens} tokens together, found {total}")
    return [text for text, _ in some], total


@torch.no_grad()
def by_transformers(model, tokenizer, texts):
    """Embeddings [texts, dim], of length 1."""
    out = []
    for at in range(0, len(texts), BATCH):
        batch = tokenizer(texts[at : at + BATCH], padding=True, return_tensors="pt")
        mask = batch["attention_mask"][..., None].float()
        out.append((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
    return torch.nn.functional.normalize(torch.cat(out).double(), dim=-1)


def from_gguf(folder, path):
    """The weights of a GGUF file in the model of `folder`, and the bytes of its tensors."""
    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    size = sum(tensor.n_bytes for tensor in tensors.values())
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    names = get_tensor_name_map(MODEL_ARCH.BERT, model.config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        if name.startswith("pooler."):
            continue  # llama.cpp leaves it out, and no embedding needs it
        tensor = tensors.pop(names.get_name(name, try_suffixes=(".weight", ".bias")))
        values = np.array(quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        values = torch.from_numpy(values).view(parameter.shape)
        parameter.data.copy_(values)
    if tensors:
        raise SystemExit(f"{path}: tensors that {folder} has no place for: {', '.join(tensors)}")
    return model, size


def by_inlaid(args, folder, kind, texts):
    """Embeddings of the packed model, converted once, and the bytes of its weights."""
    out, lines = folder / f"inlaid-{kind}", folder / "texts.txt"
    if not out.exists():
        command = [str(args.inlaid), "convert", str(folder / "f32"), str(out), "--packed", "--to", kind]
        subprocess.run(command, check=True)
    lines.write_text("\n".join(texts) + "\n", encoding="utf-8")
    command = [str(args.inlaid), "embed", str(out), "--file", str(lines), "--json"]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    found = torch.tensor(json.loads(text)["embeddings"], dtype=torch.float64)
    size = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    return torch.nn.functional.normalize(found, dim=-1), size


def measure(args, folder, name, tokenizer, texts, ref):
    """Figures of a variant by its name, or why there are none."""
    if name.startswith("inlaid-"):
        if not args.inlaid.exists():
            return f"{args.inlaid} is not there"
        found, size = by_inlaid(args, folder, name.removeprefix("inlaid-"), texts)
    else:
        path = folder / f"{name}.gguf"
        if not path.exists():
            return f"{path} is not there"
        model, size = from_gguf(folder / "f32", path)
        found = by_transformers(model, tokenizer, texts)
    distance = 1 - (found * ref).sum(-1)
    error = (distance.std() / len(distance) ** 0.5).item()
    return {
        "distance": distance.mean().item(),
        "error": error,
        "distance_99": distance.quantile(0.99).item(),
        "bytes": size,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--variants", default=USUAL)
    parser.add_argument("--tokens", type=int, default=20480)
    parser.add_argument("--inlaid", type=Path, default=Path(__file__).parents[2] / "target/release/inlaid")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = args.work / "minilm"
    tokenizer = AutoTokenizer.from_pretrained(folder / "f32")
    texts, tokens = paragraphs(args.work, tokenizer, args.tokens)
    model = AutoModel.from_pretrained(folder / "f32", dtype=torch.float32).eval()
    ref = by_transformers(model, tokenizer, texts)
    found = {}
    for name in args.variants.split(","):
        figures = measure(args, folder, name, tokenizer, texts, ref)
        if isinstance(figures, str):
            print(f"{name}: skipped: {figures}", file=sys.stderr)
        else:
            found[name] = figures
    whole = {"texts": len(texts), "tokens": tokens, "variants": found}
    (folder / "quality.json").write_text(json.dumps(whole, indent=1) + "\n")
    print(f"{len(texts)} paragraphs, {tokens} tokens\n")
    print("| variant | bytes | mean cosine distance | 99 % |\n" + "| --- " * 4 + "|")
    for name, x in found.items():
        print(f"| {name} | {x['bytes']:,} | {x['distance']:.3e} ± {x['error']:.0e} | {x['distance_99']:.2e} |")


if __name__ == "__main__":
    main()
