"""Compares attention with torch's scaled_dot_product_attention: python attention.py WORK [--bin BIN] [--rounds N] ...

BIN is kernels/examples/attention_speed (cargo build --release -p inlaid-kernels --example attention_speed). Both take
turns (A B A B ...) on the same shapes and threads in f32, since a shared machine's speed moves within minutes; every
ratio is of two neighbours in time, of the median call in each turn. Beside them stands the share of the machine's peak
(chains of multiply-adds that never leave the registers), measured in the same turn. `memory` is what we take beside
queries, keys, values and outputs. Writes WORK/attention.json and WORK/attention.md.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import time
from pathlib import Path

import torch
from torch.nn.functional import scaled_dot_product_attention


def ours(args, case, cache="f32"):
    command = [args.bin, f"cache={cache}", f"ms={args.ms}", *(f"{key}={value}" for key, value in case.items())]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def theirs(args, case):
    """Seconds of the median call."""
    torch.set_num_threads(case["threads"])
    rows = 1 if case["mode"] == "one" else case["len"]
    q = torch.randn(1, case["heads"], rows, case["dim"])
    k, v = (torch.randn(1, case["kv"], case["len"], case["dim"]) for _ in range(2))
    options = {"is_causal": case["mode"] == "causal", "enable_gqa": case["kv"] != case["heads"]}
    seconds, begin = [], time.perf_counter()
    with torch.inference_mode():
        while len(seconds) < 3 or time.perf_counter() - begin < args.ms / 1000:
            start = time.perf_counter()
            scaled_dot_product_attention(q, k, v, **options)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def compare(args, case):
    rounds = []
    for _ in range(args.rounds):
        mine = ours(args, case)
        rounds.append({"inlaid": mine["seconds"], "torch": theirs(args, case), "peak": mine["gflops"] / mine["peak"]})
        for cache in args.caches.split(",") if case["mode"] == "one" and args.caches else []:
            rounds[-1][cache] = ours(args, case, cache)["seconds"]
    out = {"case": case, "memory_bytes": mine["memory_bytes"], "rounds": rounds}
    out["ratio"] = summary([r["torch"] / r["inlaid"] for r in rounds])
    out["peak"] = summary([r["peak"] for r in rounds])
    print(case, f"{out['ratio']['median']:.2f}", flush=True)
    return out


def markdown(results, args):
    yield f"Seconds of torch {torch.__version__} over ours, f32: median (least to most) of {args.rounds} interleaved rounds.\n"
    yield "| heads / kv | length | mode | threads | ours, ms | torch, ms | ratio | share of peak | memory, KiB |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for r in results:
        c, x = r["case"], r["ratio"]
        ms = [1000 * statistics.median(one[who] for one in r["rounds"]) for who in ("inlaid", "torch")]
        yield (
            f"| {c['heads']} / {c['kv']} | {c['len']} | {c['mode']} | {c['threads']} | {ms[0]:.3g} | {ms[1]:.3g} | "
            f"{x['median']:.2f} ({x['min']:.2f} to {x['max']:.2f}) | {100 * r['peak']['median']:.0f} % | "
            f"{r['memory_bytes'] // 1024} |"
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    root = Path(__file__).parents[2]
    parser.add_argument("--bin", type=Path, default=root / "target/release/examples/attention_speed")
    parser.add_argument("--heads", default="9/9,9/3,32/32,32/8", help="query heads / key and value heads")
    parser.add_argument("--lens", default="512,2048,8192")
    parser.add_argument("--modes", default="causal,full,one")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--caches", default="", help="time these caches too, for a single query: f16,bf16,q8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ms", type=int, default=200, help="time for one turn; at least three calls are made")
    args = parser.parse_args()
    names = ("heads", "kv", "dim", "len", "mode", "threads")
    lists = [x.split(",") for x in (args.heads, args.lens, args.modes, args.threads)]
    results = []
    for heads, length, mode, threads in itertools.product(*lists):
        values = (*map(int, heads.split("/")), 64, int(length), mode, int(threads))
        results.append(compare(args, dict(zip(names, values, strict=True))))
    text = "\n".join(markdown(results, args)) + "\n"
    args.work.mkdir(parents=True, exist_ok=True)
    (args.work / "attention.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.work / "attention.md").write_text(text)
    print(text)


main()
