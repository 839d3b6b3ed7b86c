"""Adds noise to a model's matrices: python noisy.py DIR OUT [--share 0.02] [--seed 0]

DIR is a Hugging Face directory, OUT becomes the same in f32 with Gaussian noise of `share` of each row's root mean
square on every matrix (`--share 0`: only the type changes). SmolLM2's weights, dequantised from a 4-bit file, lie on a
4-bit grid, which a quantiser of that very grid finds again; with 2 % noise they lie on none, and the model writes as
before. Seeded by (seed, name).
"""

import argparse
import shutil
import zlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def noisy(name, w, share, seed):
    w = w.float()
    if w.ndim != 2 or not share:
        return w
    random = torch.Generator().manual_seed(seed << 32 | zlib.crc32(name.encode()))
    scale = w.square().mean(1, keepdim=True).sqrt() * share
    return w + scale * torch.randn(w.shape, generator=random)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    weights = load_file(args.folder / "model.safetensors")
    weights = {name: noisy(name, w, args.share, args.seed) for name, w in weights.items()}
    save_file(weights, args.out / "model.safetensors", {"format": "pt"})
    for file in args.folder.iterdir():
        if file.suffix in (".json", ".jinja", ".txt"):
            shutil.copy(file, args.out)


main()
