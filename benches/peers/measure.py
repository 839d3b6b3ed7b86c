"""Running either program once and reading what it says, and watching what the machine does meanwhile."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from rows import SESSIONS, THEIRS


class Failed(Exception):
    """A program did not do what was asked."""


def busy_and_all():
    """Seconds that all processors worked, and that passed on all of them; None where nobody tells."""
    try:
        ticks = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return None
    hertz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / hertz, sum(ticks) / hertz


def children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def watched(command, read, job):
    """What `read` makes of a command's output for the job's rows, and the foreign load meanwhile."""
    command = [str(word) for word in command]
    before, own = busy_and_all(), children()
    with tempfile.TemporaryFile("w+") as errors:
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        except OSError as why:
            raise Failed(f"{command[0]}: {why.strerror}") from why
        if done.returncode:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["it said nothing"])[-1]
            raise Failed(f"{' '.join(command)}: status {done.returncode}: {last}")
    after, own = busy_and_all(), children() - own
    load = None
    if before and after and after[1] > before[1]:
        load = max(0.0, (after[0] - before[0] - own) / (after[1] - before[1]))
    return read(done.stdout, job), load


@contextlib.contextmanager
def busy(count):
    """So many processes that compute, for as long as the context lives."""
    spin = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spin) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def forget(model):
    """Drops a model's files from the page cache, so that who reads them next does it in its own way. How the program that
    wrote a file went about it decides how large the pages are that it lies in, and that is worth a tenth of the speed."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in [model] if model.is_file() else model.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Inlaid:
    """`inlaid bench --json`."""

    def __init__(self, program):
        self.program = program
        self.help = None

    def has(self, *words):
        """Whether the program's options name all of the words: rows wait for options that it has not got yet."""
        if self.help is None:
            self.help = subprocess.run([str(self.program), "bench", "--help"], capture_output=True, text=True).stdout
        return all(word in self.help for word in words)

    def weights(self, args, job):
        """What is opened, and what is given as --weights (None: the program's own choice)."""
        folder = args.work / job.model
        if args.source == "packed":
            return folder / f"{job.kind}-packed", args.weights
        if job.kind in ("f32", "bf16"):
            return folder / job.kind, args.weights
        if args.source == "gguf":
            return folder / f"{THEIRS[job.kind]}.gguf", args.weights
        return folder / "bf16", args.weights or job.kind

    def model(self, args, job):
        return self.weights(args, job)[0]

    def pack(self, packed, job):
        """Makes the packed model of a job, once, from the directory beside it: the next runs find it."""
        if not packed.exists():
            plain = packed.parent / ("f32" if job.kind == "f32" else "bf16")
            watched([self.program, "convert", plain, packed, "--packed", "--to", job.kind], lambda *_: None, job)

    def lacks(self, args, job):
        """Why the job's rows cannot be run; None where they can."""
        model, weights = self.weights(args, job)
        if not self.program.exists():
            return f"{self.program} is not there: build it, or name one with --inlaid"
        if args.source == "packed":
            try:
                self.pack(model, job)
            except Failed as why:
                return str(why)
        if not model.exists():
            return f"{model} is not there"
        needs = {"--weights": weights, "--depth": job.deep, "--sessions": job.sessions}
        missing = [option for option, asked in needs.items() if asked and not self.has(option)]
        return f"this inlaid has no {' and no '.join(missing)}" if missing else None

    def command(self, args, job, flash):
        model, weights = self.weights(args, job)
        out = [self.program, "bench", model, "--json", "--threads", args.threads, "--repeat", 1]
        # A phase that no row wants is kept short.
        out += ["--prompt-tokens", args.prompt if job.row("prefill") else 1]
        out += ["--gen-tokens", args.gen if job.row("decode") or job.sessions else 1]
        out += ["--weights", weights] if weights else []
        out += ["--kv", args.kv] if args.kv else []
        out += ["--depth", args.depth] if job.deep else []
        return out + (["--sessions", SESSIONS] if job.sessions else [])

    def read(self, text, job):
        found = json.loads(text)
        flops, bandwidth = found["peak_flops_per_s"], found["read_bandwidth_bytes_per_s"]
        out = {}
        for row in job.rows:
            if row.phase == "sessions":
                # Of all sessions together.
                speed, share, peak = found["decode_tokens_per_s"]["median"], None, bandwidth
            else:
                speed = found[f"{row.phase}_tokens_per_s"]["median"]
                of = {"prefill": "prefill_share_of_peak", "decode": "decode_share_of_bandwidth"}
                share, peak = found[of[row.phase]], flops if row.phase == "prefill" else bandwidth
            out[row.name] = {"tokens_per_s": speed, "share": share, "peak": peak}
        return out


class Llama:
    """llama.cpp's llama-bench, and llama-batched-bench for several sessions."""

    def __init__(self, folder):
        self.folder = folder

    def model(self, args, job):
        path = args.work / job.model / f"{THEIRS[job.kind]}.gguf"
        if not path.exists():
            raise Failed(f"{path} is not there: build.sh makes it")
        return path

    def command(self, args, job, flash):
        model = self.model(args, job)
        cache = ["-ctk", args.kv_llama, "-ctv", args.kv_llama] if args.kv_llama else []
        if job.sessions:
            # Context of one token and the generated ones for each session, in whole cells of 256.
            context = SESSIONS * -(-(args.gen + 1) // 256) * 256
            out = [self.folder / "llama-batched-bench", "-m", model, "-t", args.threads, "-c", context, *cache]
            out += ["-npp", 1, "-ntg", args.gen, "-npl", SESSIONS, "--output-format", "jsonl"]
            return out + ["-ngl", 0, "-fa", "on" if flash[job.rows[0].name] else "off"]
        # A run for each way of attention that some row wants: `read` takes the row's own.
        ways = ",".join(str(way) for way in sorted(set(flash[name] for name in job.names)))
        out = [self.folder / "llama-bench", "-m", model, "-t", args.threads, "-r", 1, "-ngl", 0, "-o", "json", *cache]
        out += ["-p", args.prompt if job.row("prefill") else 0, "-n", args.gen if job.row("decode") else 0]
        return out + ["-fa", ways, *(["-d", args.depth] if job.deep else [])]

    def read(self, text, job):
        if job.sessions:
            lines = [line for line in text.splitlines() if line.startswith("{")]
            return {job.rows[0].name: {"tokens_per_s": json.loads(lines[-1])["speed_tg"]}}
        speeds = {"prefill": [], "decode": []}
        for run in json.loads(text):
            speeds["prefill" if run["n_prompt"] else "decode"].append(run["avg_ts"])
        return {row.name: {"tokens_per_s": max(speeds[row.phase])} for row in job.rows}
