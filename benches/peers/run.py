"""Compares `inlaid bench` with llama.cpp's llama-bench: python run.py WORK [--inlaid BIN] [--rounds N] [--types T,T]

WORK is what build.sh left. Both programs take turns (A B A B ...), since a shared machine's speed moves within minutes;
every ratio is of two neighbours in time. llama-bench runs with and without flash attention and the better counts.
Writes WORK/peers.json and WORK/peers.md; the foreign load is the share of all processors that other programs had
meanwhile, from /proc (null where there is none). Trust nothing measured beside more than a few percent of it.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
from pathlib import Path

KEYS = {"prefill": "prefill_tokens_per_s", "decode": "decode_tokens_per_s"}


def busy_and_all():
    """Seconds that all processors worked, and that passed on all of them."""
    try:
        ticks = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return None
    hertz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / hertz, sum(ticks) / hertz


def children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def watched(command):
    """The JSON that `command` prints, and the foreign load meanwhile."""
    before, own = busy_and_all(), children()
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    after, own = busy_and_all(), children() - own
    load = None
    if before and after and after[1] > before[1]:
        load = max(0.0, (after[0] - before[0] - own) / (after[1] - before[1]))
    return json.loads(out), load


def inlaid(args, kind):
    command = [args.inlaid, "bench", args.work / kind, "--json", "--threads", args.threads, "--repeat", 1]
    sizes = ["--prompt-tokens", args.prompt, "--gen-tokens", args.gen]
    out, load = watched([str(x) for x in command + sizes])
    return {name: out[key]["median"] for name, key in KEYS.items()} | {"foreign": load}


def llama(args, kind):
    command = [args.work / "build/bin/llama-bench", "-m", args.work / f"{kind}.gguf", "-t", args.threads, "-r", 1]
    sizes = ["-p", args.prompt, "-n", args.gen, "-fa", "0,1", "-ngl", 0, "-o", "json"]
    rows, load = watched([str(x) for x in command + sizes])
    prefill = [r["avg_ts"] for r in rows if r["n_gen"] == 0]
    decode = [r["avg_ts"] for r in rows if r["n_prompt"] == 0]
    return {"prefill": max(prefill), "decode": max(decode), "foreign": load}


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def compare(args, kind):
    rounds = []
    for i in range(args.rounds):
        rounds.append({"inlaid": inlaid(args, kind), "llama.cpp": llama(args, kind)})
        print(f"{kind}, round {i + 1} of {args.rounds}: {rounds[-1]}", flush=True)
    out = {"weights": kind, "rounds": rounds}
    for name in KEYS:
        ours, theirs = ([r[who][name] for r in rounds] for who in ("inlaid", "llama.cpp"))
        ratio = summary([a / b for a, b in zip(ours, theirs, strict=True)])
        out[name] = {"inlaid": summary(ours), "llama.cpp": summary(theirs), "ratio": ratio}
    loads = [r[who]["foreign"] for r in rounds for who in r if r[who]["foreign"] is not None]
    out["foreign"] = summary(loads) if loads else None
    return out


def markdown(results, args):
    def cell(x, digits):
        return f"{x['median']:.{digits}f} ({x['min']:.{digits}f} to {x['max']:.{digits}f})"

    yield f"Tokens per second, {args.threads} threads, {args.prompt} prompt tokens, {args.gen} generated; median (least"
    yield f"to most) of {args.rounds} interleaved rounds.\n"
    yield "| weights | phase | inlaid | llama.cpp | ratio | foreign load |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for r in results:
        load = "?"
        if r["foreign"]:
            load = f"{100 * r['foreign']['median']:.0f} % (at most {100 * r['foreign']['max']:.0f} %)"
        for name in KEYS:
            x = r[name]
            speeds = f"{cell(x['inlaid'], 1)} | {cell(x['llama.cpp'], 1)}"
            yield f"| {r['weights']} | {name} | {speeds} | {cell(x['ratio'], 2)} | {load} |"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--inlaid", type=Path, default=Path(__file__).parents[2] / "target/release/inlaid")
    parser.add_argument("--types", default="f32,bf16")
    for name, default in [("rounds", 5), ("threads", 2), ("prompt", 512), ("gen", 128)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    results = [compare(args, kind) for kind in args.types.split(",")]
    text = "\n".join(markdown(results, args)) + "\n"
    (args.work / "peers.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.work / "peers.md").write_text(text)
    print(text)


main()
