"""What quantising costs: python quality.py WORK MODEL [--variants V,V] [--tokens N] [--inlaid BIN]

WORK/MODEL is what prepare.sh made of a model. For every variant the mean Kullback-Leibler divergence, in nats, of its
next-token distributions from those of the f32 model in transformers, over windows of real text, with its standard
error; beside it the perplexity, how often the most likely token is the same, and the bytes of the weights. Variants:

    q8_0 q4_0 q4_k_m        llama.cpp's files, dequantised and run in f32: the error of the weights alone
    inlaid-q8 inlaid-q4     `inlaid convert --packed --to q8|q4`, run by inlaid: weights and activations
    inlaid-q4-calibrated    the same with `--calibrate` on text that is not among the windows
    inlaid:PATH             a directory or GGUF file of WORK/MODEL as inlaid runs it; inlaid:PATH:W with `--weights W`

A variant whose file or option is not there is skipped with a line. `--as-run` also asks llama.cpp's llama-perplexity,
which quantises activations as it computes and scores the second half of each window. Writes WORK/MODEL/quality.json
(all variants ever measured on the same windows), keeps the f32 model's logits in WORK/MODEL/reference.npy (4 GB for
SmolLM2), and prints a table.
"""

import argparse
import hashlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from variants import Inlaid, InlaidFile, from_gguf, reference

USUAL = "q8_0,q4_0,q4_k_m,inlaid-q8,inlaid-q4,inlaid-q4-calibrated"
# The share of every text, from its beginning, that calibration may read and no window does.
CALIBRATION = 0.05
# Rows of logits whose distributions are compared at once, in f64.
ROWS = 64


def read_texts(work):
    """(what calibration reads, what is measured on) of every text."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted((work / "texts").glob("*.txt"))]
    texts = [text for text in texts if len(text) > 100_000]
    if not texts:
        raise SystemExit(f"{work}/texts: expected books of 100,000 characters and more, found none: run prepare.sh")
    cuts = [text.find("\n", int(len(text) * CALIBRATION)) for text in texts]
    return [t[:cut] for t, cut in zip(texts, cuts, strict=True)], [t[cut:] for t, cut in zip(texts, cuts, strict=True)]


def windows(tokenizer, texts, size, tokens):
    """Windows of `size` ids, evenly spread over the texts, that have `tokens` together."""
    ids = [i for text in texts for i in tokenizer.encode(text, add_special_tokens=False).ids]
    count = -(-tokens // size)
    if len(ids) < count * size:
        raise SystemExit(f"texts: expected at least {count * size} tokens, found {len(ids)}")
    step = (len(ids) - size) // max(1, count - 1)
    return [ids[i * step : i * step + size] for i in range(count)]


def compare(p, q, ids):
    """Sums over a window of logits p and q [n, vocab]: KL of every position, negative log-likelihood of the next tokens
    under q, positions whose most likely token is the same."""
    kl, nll, same = [], 0.0, 0
    for at in range(0, len(ids), ROWS):
        a, b = (x[at : at + ROWS].double().log_softmax(-1) for x in (p, q))
        kl += (a.exp() * (a - b)).sum(-1).tolist()
        same += (a.argmax(-1) == b.argmax(-1)).sum().item()
        after = torch.tensor(ids[at + 1 : at + 1 + ROWS])
        nll -= b[: len(after)].gather(1, after[:, None]).sum().item()
    return kl, nll, same


def reference_logits(folder, wins, key):
    """Logits [windows, size, vocab] of the f32 model, kept from run to run while windows and model stay the same."""
    path, stamp = folder / "reference.npy", folder / "reference.json"
    model = folder / "f32/model.safetensors"
    now = key | {"model": [model.stat().st_size, model.stat().st_mtime_ns]}
    if not (path.exists() and stamp.exists() and json.loads(stamp.read_text()) == now):
        stamp.unlink(missing_ok=True)
        variant = reference(folder / "f32")
        shape = (len(wins), len(wins[0]), variant.model.config.vocab_size)
        out = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        for i, ids in enumerate(wins):
            out[i] = variant.logits(ids).numpy()
            print(f"f32: window {i + 1} of {len(wins)}", end="\r", file=sys.stderr, flush=True)
        out.flush()
        stamp.write_text(json.dumps(now))
    # Private, so that torch may hold what is only read.
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def measure(name, variant, ref, wins):
    kl, nll, same, per_window = [], 0.0, 0, []
    for i, ids in enumerate(wins):
        found = compare(ref[i], variant.logits(ids), ids)
        kl, nll, same = kl + found[0], nll + found[1], same + found[2]
        per_window.append(sum(found[0]) / len(ids))
        print(f"{name}: window {i + 1} of {len(wins)}", end="\r", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    kl = torch.tensor(kl, dtype=torch.float64)
    return {
        "kl": kl.mean().item(),
        "kl_error": (kl.std() / math.sqrt(len(kl))).item(),
        "kl_99": kl.quantile(0.99).item(),
        "perplexity": math.exp(nll / sum(len(ids) - 1 for ids in wins)),
        "same_top": same / len(kl),
        "bytes": variant.bytes,
        "kl_of_windows": per_window,
    }


def open_variant(name, args, folder, calibration):
    """A variant by its name, or why there is none."""
    if name.startswith("inlaid") and not args.inlaid.exists():
        return f"{args.inlaid} is not there"
    if name.startswith("inlaid:"):
        path, _, weights = name.removeprefix("inlaid:").partition(":")
        return InlaidFile(args.inlaid, folder / path, weights or None)
    if name.startswith("inlaid-"):
        if "--packed" not in subprocess.run([args.inlaid, "convert", "--help"], capture_output=True, text=True).stdout:
            return "this inlaid's convert has no --packed"
        kind, _, calibrated = name.removeprefix("inlaid-").partition("-")
        return Inlaid(args.inlaid, folder / "f32", folder / name, kind, calibration if calibrated else None)
    path = folder / f"{name}.gguf"
    return from_gguf(folder / "f32", path) if path.exists() else f"{path} is not there"


def as_run(args, folder, names, text, size):
    """Mean KL of llama.cpp's own runs: {name: [mean, standard error]}."""
    base = folder / "logits.bin"
    common = [args.work / "build/bin/llama-perplexity", "-f", text, "-c", size, "-t", args.threads, "-ngl", 0]
    common += ["--kl-divergence-base", base, "--chunks", -(-args.tokens * 2 // size)]
    out = {}
    for name in ["f32", *names]:
        more = ["--kl-divergence"] if name != "f32" else []
        command = [str(x) for x in [*common, "-m", folder / f"{name}.gguf", *more]]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = re.search(r"Mean\s+KLD:\s*([-\d.e]+) ±\s*([-\d.e]+)", done.stdout + done.stderr)
        if found:
            out[name] = [float(x) for x in found.groups()]
    base.unlink()
    return out


def table(results, ref):
    yield f"f32: perplexity {ref['perplexity']:.3f}\n"
    yield "| variant | bytes | mean KL, nats | 99 % | perplexity | same top token | KL as llama.cpp runs it |"
    yield "| --- " * 7 + "|"
    for name, x in results.items():
        size = "?" if x["bytes"] is None else f"{x['bytes']:,}"
        run = "" if "as_run" not in x else f"{x['as_run'][0]:.3e} ± {x['as_run'][1]:.0e}"
        kl = f"{x['kl']:.3e} ± {x['kl_error']:.0e} | {x['kl_99']:.2e}"
        yield f"| {name} | {size} | {kl} | {x['perplexity']:.3f} | {100 * x['same_top']:.2f} % | {run} |"


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("model")
    parser.add_argument("--variants", default=USUAL)
    parser.add_argument("--tokens", type=int, default=20480)
    parser.add_argument("--window", type=int, default=512, help="tokens of a window, at most what the model takes")
    parser.add_argument("--inlaid", type=Path, default=Path(__file__).parents[2] / "target/release/inlaid")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--as-run", action="store_true")
    return parser.parse_args()


def main():
    args = options()
    torch.set_num_threads(args.threads)
    folder = args.work / args.model
    calibrate, texts = read_texts(args.work)
    calibration, measured = folder / "calibration.txt", folder / "measured.txt"
    calibration.write_text("\n".join(calibrate), encoding="utf-8")
    config = json.loads((folder / "f32/config.json").read_text())
    size = min(args.window, config["max_position_embeddings"])
    tokenizer = Tokenizer.from_file(str(folder / "f32/tokenizer.json"))
    wins = windows(tokenizer, texts, size, args.tokens)
    digest = hashlib.sha256(np.array(wins, np.uint32).tobytes()).hexdigest()
    path, key = folder / "quality.json", {"window": size, "windows": len(wins), "ids_sha256": digest}
    ref = reference_logits(folder, wins, key)
    whole = json.loads(path.read_text()) if path.exists() else {}
    if {k: whole.get(k) for k in key} != key:
        nll = sum(compare(p, p, ids)[1] for p, ids in zip(ref, wins, strict=True))
        whole = key | {"f32": {"perplexity": math.exp(nll / sum(len(ids) - 1 for ids in wins))}, "variants": {}}
    for name in args.variants.split(","):
        variant = open_variant(name, args, folder, calibration)
        if isinstance(variant, str):
            print(f"{name}: skipped: {variant}", file=sys.stderr)
            continue
        whole["variants"][name] = measure(name, variant, ref, wins)
        path.write_text(json.dumps(whole, indent=1) + "\n")
    if args.as_run:
        # Twice the tokens, since only half of each window counts; the rest of every text is left out.
        share = -(-8 * args.tokens // len(texts))
        measured.write_text("\n".join(text[:share] for text in texts), encoding="utf-8")
        names = [name for name in args.variants.split(",") if (folder / f"{name}.gguf").exists()]
        for name, found in as_run(args, folder, names, measured, size).items():
            whole["variants"][name]["as_run"] = found
        path.write_text(json.dumps(whole, indent=1) + "\n")
    print("\n".join(table(whole["variants"], whole["f32"])))


main()
