"""Compares steps of learning with plain PyTorch: python learning.py WORK [SMOLLM2]

SMOLLM2 is a directory of SmolLM2-135M in f32 or bf16, as `build.sh` leaves one in WORK/smollm2; where it is left out,
random weights of its shape in bf16 will do. Both sides run the same
shapes in turns (A B A B ...), since a shared machine's speed moves within seconds: every ratio is of neighbours in time.
PyTorch stays loaded and has one step to warm up, in f32 and in bf16 (which takes minutes on processors that lack it);
the faster of the two stands for it from then on. inlaid runs in the type that the weights have, a program for each turn, whose first step does not count.
The PyTorch script is learning_torch.py.

Prints each round as it comes, writes WORK/learning.json and WORK/learning.md: seconds of a step and of its rollout,
ratios, and the most memory that either took. Needs torch, transformers, peft, tokenizers.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from report import cell, summary


@dataclass
class Row:
    """What is compared: of a rank of 0 all parameters learn."""

    name: str
    model: str
    kind: str
    batch: int
    prompt: int
    answer: int
    rank: int
    goal: float
    rollout_goal: float | None = None

    def task(self):
        return f"{self.kind} {self.batch} {self.prompt} {self.answer} {self.rank}"


ROWS = [
    Row("ppo-lora", "smollm2", "ppo", 4, 64, 64, 8, 4.0, 8.0),
    Row("sft-lora", "smollm2", "sft", 4, 128, 0, 8, 2.0),
    Row("ppo-all", "small", "ppo", 16, 32, 32, 0, 2.0),
]
STEPS = 3


# Llamas of random weights, with the tokenizer of the model that ships: SmolLM2's shape, and one of 6.9 million parameters.
SHAPES = {
    "smollm2": ("bfloat16", 49152, 576, 1536, 30, 9, 3),
    "small": ("float32", 8192, 256, 704, 6, 8, 8),
}


def shaped(path, shape, like):
    import torch
    import transformers

    torch.manual_seed(0)
    dtype, vocab, width, d_ff, layers, heads, kv_heads = shape
    config = transformers.LlamaConfig(
        vocab_size=vocab, hidden_size=width, intermediate_size=d_ff, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(path)
    # Whatever is drawn can be written: tokens that no text has fill the vocabulary.
    tokenizer = json.loads((like / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"<{i}>": i for i in range(len(tokenizer["model"]["vocab"]), vocab)}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    shutil.copy(like / "tokenizer_config.json", path)


def endless(source, path):
    """The same model, of which no answer ends early: all have the same length."""
    path.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.name != "generation_config.json" and not (path / file.name).exists():
            (path / file.name).symlink_to(file.resolve())
    vocab = json.loads((source / "config.json").read_text())["vocab_size"]
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": vocab + 1}))
    return path


def prompts(model, count, length):
    """Texts of exactly so many tokens."""
    from tokenizers import Tokenizer

    tokenizer, words = Tokenizer.from_file(str(model / "tokenizer.json")), ["the", "man", "and", "a", "day", "of", "it"]
    out = []
    for i in range(count):
        text = "It"
        while (size := len(tokenizer.encode(text).ids)) < length:
            text += " " + words[(i + size * size) % len(words)]
        out.append(text)
    return out


class Torch:
    def __init__(self, args, row, model, dtype):
        script = Path(__file__).with_name("learning_torch.py")
        command = [sys.executable, str(script), str(model), row.task(), dtype, str(args.threads)]
        self.dtype, pipe = dtype, subprocess.PIPE
        self.child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.warm = self.read()["seconds"]

    def read(self):
        line = self.child.stdout.readline()
        if not line:
            sys.exit(f"PyTorch stopped with status {self.child.wait()}")
        return json.loads(line)

    def step(self):
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        return self.read()

    def peak(self):
        self.child.stdin.close()
        return self.read()["peak_bytes"]


class Inlaid:
    def __init__(self, args, row, model):
        self.data = args.work / f"{row.name}.data"
        length = row.prompt if row.kind == "ppo" else row.prompt + 1
        texts = prompts(model, row.batch, length)
        lines = texts if row.kind == "ppo" else [json.dumps({"text": text}) for text in texts]
        self.data.write_text("\n".join(lines) + "\n")
        self.command = [str(args.inlaid), "train", row.kind, str(model), "--batch", str(row.batch)]
        self.command += ["--threads", str(args.threads), "--steps", str(STEPS), "--pass-tokens", "4096", "--rate", "1e-5"]
        if row.kind == "ppo":
            self.command += ["--prompts", str(self.data), "--reward", "builtin:length", "--max-tokens", str(row.answer)]
            self.command += ["--ppo-epochs", "1", "--minibatch", str(row.batch)]
        else:
            self.command += ["--data", str(self.data), "--max-length", str(row.prompt)]
        if row.rank:
            self.command += ["--lora-rank", str(row.rank), "--lora-targets", "q_proj,v_proj"]
        self.row, self.peak = row, 0

    def step(self):
        with tempfile.TemporaryDirectory() as out:
            with tempfile.TemporaryFile("w+") as errors:
                child = subprocess.Popen([*self.command, "--out", out], stderr=errors)
                _, status, used = os.wait4(child.pid, 0)
                child.returncode = os.waitstatus_to_exitcode(status)
                errors.seek(0)
                if child.returncode:
                    sys.exit(f"{' '.join(self.command)}: status {child.returncode}: {errors.read().strip()}")
            lines = [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]
        self.peak = max(self.peak, used.ru_maxrss * 1024)
        answer = self.row.answer
        if answer and any(line["tokens"] != answer for line in lines):
            sys.exit(f"{self.row.name}: an answer ended early")
        return min(lines[1:], key=lambda line: line["seconds"])


def fastest(args, row, model):
    """PyTorch in the type that is faster here."""
    best = None
    for dtype in args.dtypes.split(","):
        one = Torch(args, row, model, dtype)
        print(f"{row.name}, PyTorch in {dtype}: {one.warm:.1f} s to warm up", file=sys.stderr, flush=True)
        slower, best = (one, best) if best and best.warm < one.warm else (best, one)
        if slower:
            slower.peak()
    return best


def compare(args, row):
    source = args.model if args.model and row.model == "smollm2" else args.work / row.model
    if not source.exists():
        # In a process of its own: what a child has taken at most counts what its parent holds.
        job = (source, SHAPES[row.model], Path(__file__).parents[2] / "demo")
        maker = multiprocessing.get_context("spawn").Process(target=shaped, args=job)
        maker.start()
        maker.join()
    model = endless(source, args.work / f"{row.model}-endless")
    ours, theirs, rounds = Inlaid(args, row, model), fastest(args, row, model), []
    for i in range(args.rounds):
        one = {"torch": theirs.step()}
        one["inlaid"] = {key: value for key, value in ours.step().items() if key in ("seconds", "rollout_s")}
        rounds.append(one)
        print(f"{row.name}, round {i + 1} of {args.rounds}: {json.dumps(one)}", file=sys.stderr, flush=True)
    out = {"row": row.name, "dtype": theirs.dtype, "goal": row.goal, "rollout_goal": row.rollout_goal, "rounds": rounds}
    for key in ("seconds", "rollout_s") if row.rollout_goal else ("seconds",):
        out[key] = {name: summary([one[name][key] for one in rounds]) for name in ("torch", "inlaid")}
        out[f"{key} ratio"] = summary([one["torch"][key] / one["inlaid"][key] for one in rounds])
    return out | {"peak_bytes": {"torch": theirs.peak(), "inlaid": ours.peak}}


def markdown(results):
    yield "| step | inlaid s | PyTorch s | in | times faster | goal | of the rollout | goal | peak MB | PyTorch's |"
    yield "|" + "---|" * 10
    for r in results:
        seconds, peak = r["seconds"], r["peak_bytes"]
        rollout = cell(r["rollout_s ratio"], 2) if r["rollout_goal"] else ""
        cells = [r["row"], cell(seconds["inlaid"], 2), cell(seconds["torch"], 2), r["dtype"]]
        cells += [cell(r["seconds ratio"], 2), r["goal"], rollout, r["rollout_goal"] or ""]
        cells += [f"{peak['inlaid'] / 1e6:.0f}", f"{peak['torch'] / 1e6:.0f}"]
        yield "| " + " | ".join(map(str, cells)) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("model", type=Path, nargs="?")
    usual = Path(__file__).parents[2] / "target/release/inlaid"
    parser.add_argument("--inlaid", type=Path, default=usual, help="the program, if not that of the release build")
    parser.add_argument("--rows", help="separated by commas")
    parser.add_argument("--dtypes", default="float32,bfloat16", help="PyTorch's, of which the faster is taken")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    wanted, results = args.rows.split(",") if args.rows else [row.name for row in ROWS], []
    for row in ROWS:
        if row.name in wanted:
            results.append(compare(args, row))
            # Written after every row: a run that is cut short leaves what it has.
            text = "\n".join(markdown(results)) + "\n"
            (args.work / "learning.json").write_text(json.dumps(results, indent=1) + "\n")
            (args.work / "learning.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
