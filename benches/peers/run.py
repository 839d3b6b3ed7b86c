"""Compares inlaid with llama.cpp: python run.py WORK [--models M,M] [--rows R,R] [--threads N] [--rounds N] [--quick]

WORK is what build.sh left. Both programs take turns on the same weights (A B A B ...), since a shared machine's speed
moves within minutes: every ratio is of two neighbours in time. A first round that does not count warms both up, and
finds whether llama.cpp is faster with flash attention or without; from then on it runs the faster way, each phase for
itself. Its caches of keys and values are f16 and its batches 512, which are its defaults.

Rows whose weights are quantised run inlaid's own format (`--weights q8`, made at load from the bf16 directory) against
llama.cpp's; with `--source packed` all rows open packed files, made once beside the bf16 directory as llama.cpp's are
(large models take minutes to quantise), and with `--source gguf` those rows read llama.cpp's very file. `--weights W`
and `--kv T` replace what a row gives to inlaid. A row that this inlaid has no options for is skipped with a line that
says so. `--theirs` runs llama.cpp alone. `--busy N` keeps N other processes computing meanwhile, for a host that has
work of its own.

Prints each round as it comes, writes WORK/peers.json and WORK/peers.md (or --out NAME). Shares are of the machine's
peak as inlaid measures it in the same run; llama.cpp's follow from the ratio. A goal is a ratio, or where that is less
a share of the peak. The foreign load is the share of all processors that other programs had meanwhile, from /proc
(null where there is none). Trust nothing measured beside more than a few percent of it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from measure import Failed, Inlaid, Llama, busy, forget, watched
from report import markdown, summary
from rows import ROWS, jobs


def one_round(args, job, engines, flash):
    """Figures of both engines, one after the other: {engine: {row: tokens/s, ..., "foreign": load}}."""
    out = {}
    for name, engine in engines.items():
        figures, load = watched(engine.command(args, job, flash), engine.read, job)
        out[name] = figures | {"foreign": load}
    return out


def choose_flash(args, job, llama):
    """For each row whether llama.cpp is faster with flash attention, from a run each way."""
    commands = {way: llama.command(args, job, dict.fromkeys(job.names, way)) for way in (0, 1)}
    speeds = {way: watched(command, llama.read, job)[0] for way, command in commands.items()}
    return {row.name: max((0, 1), key=lambda way: speeds[way][row.name]["tokens_per_s"]) for row in job.rows}


def compare(args, job, inlaid, llama):
    """The results of a job's rows, or a reason for each that is skipped."""
    engines = {"llama.cpp": llama}
    if not args.theirs:
        lacking = inlaid.lacks(args, job)
        if lacking:
            return [skipped(job, row, lacking) for row in job.rows]
        engines = {"inlaid": inlaid, "llama.cpp": llama}
    rounds = []
    try:
        for engine in engines.values():
            forget(engine.model(args, job))
        flash = choose_flash(args, job, llama)
        if not args.theirs:
            watched(inlaid.command(args, job, flash), inlaid.read, job)
        for i in range(args.rounds):
            rounds.append(one_round(args, job, engines, flash))
            print(f"{job}, round {i + 1} of {args.rounds}: {json.dumps(rounds[-1])}", file=sys.stderr, flush=True)
    except Failed as why:
        return [skipped(job, row, str(why)) for row in job.rows]
    return [result(args, job, row, rounds, flash[row.name]) for row in job.rows]


def skipped(job, row, why):
    print(f"{job.model}, {row.name}: skipped: {why}", file=sys.stderr, flush=True)
    return {"row": row.name, "model": job.model, "skipped": why}


def result(args, job, row, rounds, flash):
    def of(engine, key):
        values = [r[engine][row.name].get(key) for r in rounds]
        return values if all(v is not None for v in values) else None

    theirs = of("llama.cpp", "tokens_per_s")
    loads = [r[engine]["foreign"] for r in rounds for engine in r]
    out = {
        "row": row.name,
        "model": job.model,
        "threads": args.threads,
        "flash_attention": flash,
        "goal": {"ratio": row.ratio.get(job.model), "share": row.share},
        "llama.cpp": summary(theirs),
        "foreign": None if None in loads else summary(loads),
        "rounds": rounds,
    }
    if "inlaid" in rounds[0]:
        ours, share = of("inlaid", "tokens_per_s"), of("inlaid", "share")
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        out |= {"inlaid": summary(ours), "ratio": summary(ratios), "share": share and summary(share)}
        out["peak"] = of("inlaid", "peak") and summary(of("inlaid", "peak"))
        out["met"] = met(out)
    return out


def met(out):
    """Whether a goal is reached; None where the issue of speed names none for this model."""
    ratio, share = out["goal"]["ratio"], out["goal"]["share"]
    if ratio is None:
        return None
    return out["ratio"]["median"] >= ratio or (out["share"] is not None and out["share"]["median"] >= share)


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    usual = Path(__file__).parents[2] / "target/release/inlaid"
    parser.add_argument("--inlaid", type=Path, default=usual, help="the program, if not that of the release build")
    parser.add_argument("--models", default="smollm2,1b", help="folders of WORK, separated by commas")
    parser.add_argument("--rows", default="all", help="names or their beginnings: " + ",".join(ROWS))
    parser.add_argument("--source", choices=["own", "packed", "gguf"], default="own", help="what inlaid opens")
    parser.add_argument("--weights", help="what inlaid is given as --weights")
    parser.add_argument("--kv", help="what inlaid is given as --kv")
    parser.add_argument("--kv-llama", help="what llama.cpp is given as types of its caches")
    parser.add_argument("--theirs", action="store_true", help="llama.cpp alone")
    parser.add_argument("--busy", type=int, default=0, help="other processes that compute meanwhile")
    parser.add_argument("--quick", action="store_true", help="two rounds, a quarter of the generated tokens")
    parser.add_argument("--out", default="peers", help="name of the two files in WORK")
    for name, default in [("rounds", 5), ("threads", 2), ("prompt", 512), ("gen", 128), ("depth", 4096)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.gen = 2, max(1, args.gen // 4)
    return args


def main():
    args = options()
    inlaid, llama = Inlaid(args.inlaid), Llama(args.work / "build/bin")
    results = []
    with busy(args.busy):
        for job in jobs(args.models.split(","), args.rows.split(",")):
            results += compare(args, job, inlaid, llama)
            # Written after every job: a run that is cut short leaves what it has.
            text = "\n".join(markdown(results, args)) + "\n"
            (args.work / f"{args.out}.json").write_text(json.dumps(results, indent=1) + "\n")
            (args.work / f"{args.out}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
