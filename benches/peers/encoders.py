"""Compares inlaid with onnxruntime and CTranslate2 on texts: python encoders.py WORK MODEL [--decoder] [--weights q8]

MODEL is the directory of a BERT encoder, as published; with --decoder of a Marian model, and where there is none one of
base shape with random weights is made there. The first run leaves what the peers read in WORK: a graph of the encoder
with its mean pooling, that graph with the operators that onnxruntime's own optimiser fuses, their dynamic int8 forms,
and CTranslate2's form. All take turns on the same weights and ids (A B C A B C ...), since a shared machine's speed
moves within seconds: every ratio is of neighbours in time. A first round that does not count warms them up, and finds
which of a peer's forms is the fastest for the row: from then on that one stands for it.

Rows are TEXTSxTOKENS; with --decoder TEXTSxBEAMS, of texts of 32 tokens answered in 64. With --weights q8 inlaid
quantises at load, and the peers are the int8 forms. Prints each round as it comes, writes WORK/NAME.json and
WORK/NAME.md. The peak is the machine's as inlaid measures it in the same call, with the same number of threads. A peer
that is not installed is left out with a line that says so. Needs onnxruntime, onnx, ctranslate2, torch, transformers.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy

from report import cell, summary

GOALS = {"32x128": 1.25, "32x16": 1.25, "1x16": 1.0, "1x128": 1.0}
DECODER_ROWS = ("1x1", "8x1", "1x4", "8x4")
SOURCE, ANSWER = 32, 64


def ids(texts, tokens, vocab):
    """The ids that `inlaid bench` makes up."""
    return (numpy.arange(texts * tokens, dtype=numpy.int64) * 7919 % vocab).reshape(texts, tokens)


class Inlaid:
    def __init__(self, args):
        self.args = args

    def rate(self, row):
        """Texts (of a decoder: tokens) per second, and the machine's peak."""
        a, texts = self.args, row.split("x")
        shape = ["--tokens", texts[1]]
        if a.decoder:
            shape = ["--tokens", str(SOURCE), "--gen-tokens", str(ANSWER), "--beams", texts[1]]
        command = [str(a.inlaid), "bench", str(a.model), "--threads", str(a.threads), "--weights", a.weights]
        # A short call takes its median of many, so that every engine is measured about equally long.
        repeat = max(3, min(50, 4096 // (int(texts[0]) * (ANSWER * 16 if a.decoder else int(texts[1])))))
        command += ["--texts", texts[0], *shape, "--repeat", str(repeat), "--json"]
        figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        speed = figures["tokens_per_s" if a.decoder else "sentences_per_s"]["median"]
        return speed, figures["peak_flops_per_s"], figures.get("share_of_peak")


def timed(call, seconds=0.5):
    """Median time of `call` over about so many seconds, three calls at least."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(numpy.median(times))


class Onnx:
    name = "onnxruntime"

    def __init__(self, args, path):
        import onnxruntime

        self.form, options = path.stem, onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
        self.session = onnxruntime.InferenceSession(str(path), options)

    def call(self, row, vocab):
        texts = ids(*map(int, row.split("x")), vocab)
        mask = numpy.ones_like(texts)
        return lambda: self.session.run(None, {"ids": texts, "mask": mask})


class CTranslate2:
    name = "CTranslate2"

    def __init__(self, args, path, kind):
        import ctranslate2

        of = ctranslate2.Translator if args.decoder else ctranslate2.Encoder
        options = {"inter_threads": 1, "intra_threads": args.threads, "compute_type": kind}
        self.form, self.engine, self.args = kind, of(str(path), device="cpu", **options), args

    def call(self, row, vocab):
        texts, other = map(int, row.split("x"))
        if not self.args.decoder:
            some = ids(texts, other, vocab).tolist()
            return lambda: numpy.array(self.engine.forward_batch(some).last_hidden_state).mean(1)
        words = list(Numbers(self.args).get_vocab())
        # The last one is a filler, which CTranslate2 has no row for.
        some = [[words[min(i, vocab - 2)] for i in text] for text in ids(texts, SOURCE, vocab)]
        options = {"beam_size": other, "min_decoding_length": ANSWER, "max_decoding_length": ANSWER}
        return lambda: self.engine.translate_batch(some, **options)


def export(args):
    """The encoder and its pooling as a graph; returns its path."""
    path = args.work / "f32.onnx"
    if path.exists():
        return path
    import torch
    import transformers

    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = transformers.AutoModel.from_pretrained(args.model, attn_implementation="eager").eval()

        def forward(self, ids, mask):
            states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask.unsqueeze(-1).to(states.dtype)
            return (states * weight).sum(1) / weight.sum(1)

    example, axes = torch.ones((2, 8), dtype=torch.int64), {0: "texts", 1: "tokens"}
    names = {"input_names": ["ids", "mask"], "output_names": ["pooled"]}
    torch.onnx.export(
        Pooled(),
        (example, example),
        path,
        **names,
        dynamic_axes={"ids": axes, "mask": axes, "pooled": {0: "texts"}},
        opset_version=17,
        dynamo=False,
    )
    return path


def fuse(args, graph):
    from onnxruntime.transformers import optimizer

    path, config = args.work / "fused.onnx", json.loads((args.model / "config.json").read_text())
    if not path.exists():
        sizes = {"num_heads": config["num_attention_heads"], "hidden_size": config["hidden_size"]}
        optimizer.optimize_model(str(graph), model_type="bert", opt_level=1, **sizes).save_model_to_file(str(path))
    return path


def quantise(args, graph):
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = args.work / f"{graph.stem}-int8.onnx"
    if not path.exists():
        # Fused operators say no types of what they give; all of it is f32.
        options = {"DefaultTensorType": TensorProto.FLOAT}
        quantize_dynamic(graph, path, weight_type=QuantType.QInt8, extra_options=options)
    return path


def onnx(args):
    if args.decoder:
        return []
    graphs = [export(args)]
    graphs.append(fuse(args, graphs[0]))
    if args.weights == "q8":
        graphs = [quantise(args, graph) for graph in graphs]
    return [Onnx(args, graph) for graph in graphs]


class Numbers:
    """A vocabulary of numbers for CTranslate2: what is compared is ids."""

    eos_token, unk_token, pad_token = "</s>", "<unk>", "<pad>"

    def __init__(self, args):
        self.size = vocabulary(args)

    def get_vocab(self):
        words = [self.eos_token, self.unk_token, *map(str, range(2, self.size - 1)), self.pad_token]
        return {word: i for i, word in enumerate(words)}


def vocabulary(args):
    return json.loads((args.model / "config.json").read_text())["vocab_size"]


def marian(path):
    """A Marian model of base shape whose weights are random."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"d_model": 512, "vocab_size": 8000, "decoder_vocab_size": 8000, "max_position_embeddings": 512}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 6, f"{side}_attention_heads": 8, f"{side}_ffn_dim": 2048}
    ids = {"pad_token_id": 7999, "eos_token_id": 0, "forced_eos_token_id": 0, "decoder_start_token_id": 7999}
    config = transformers.MarianConfig(**sizes, **ids, activation_function="swish", scale_embedding=True)
    transformers.MarianMTModel(config).save_pretrained(path)


def ctranslate2(args):
    import ctranslate2

    class Converter(ctranslate2.converters.TransformersConverter):
        def load_tokenizer(self, kind, *rest, **options):
            return Numbers(args) if args.decoder else super().load_tokenizer(kind, *rest, **options)

    path = args.work / ("ctranslate2-decoder" if args.decoder else "ctranslate2")
    if not path.exists():
        Converter(str(args.model)).convert(str(path))
    return [CTranslate2(args, path, "int8" if args.weights == "q8" else "float32")]


def peers(args):
    """Every form of every peer that is installed."""
    out = []
    for make in (onnx, ctranslate2):
        try:
            out += make(args)
        except ImportError as why:
            print(f"left out: {make.__name__}: {why}", file=sys.stderr)
    return out


def compare(args, row, inlaid, forms, vocab):
    """The results of a row."""
    calls = {form: form.call(row, vocab) for form in forms}
    texts, other = map(int, row.split("x"))
    work = texts * (ANSWER if args.decoder else 1)
    inlaid.rate(row)
    warm = {form: (call(), timed(call))[1] for form, call in calls.items()}
    best = {name: min((f for f in forms if f.name == name), key=warm.get) for name in {f.name for f in forms}}
    rounds = []
    for i in range(args.rounds):
        rates = {name: work / timed(calls[form]) for name, form in best.items()}
        speed, peak, share = inlaid.rate(row)
        rounds.append(rates | {"inlaid": speed, "peak": peak, "share": share})
        print(f"{row}, round {i + 1} of {args.rounds}: {json.dumps(rounds[-1])}", file=sys.stderr, flush=True)
    ratios = {name: summary([r["inlaid"] / r[name] for r in rounds]) for name in best}
    least = summary([r["inlaid"] / max(r[name] for name in best) for r in rounds]) if best else None
    speeds = {name: summary([r[name] for r in rounds]) for name in ["inlaid", *best]}
    goal = 1.2 if args.decoder else GOALS.get(row)
    out = {"row": row, "weights": args.weights, "threads": args.threads, "goal": 1.0 if args.weights == "q8" else goal}
    out |= {"speeds": speeds, "ratios": ratios, "ratio": least, "peak": summary([r["peak"] for r in rounds])}
    return out | {"forms": {name: form.form for name, form in best.items()}, "rounds": rounds}


def markdown(results, args):
    names = sorted({name for r in results for name in r["ratios"]})
    what = "texts x beams, tokens/s" if args.decoder else "texts x tokens, sentences/s"
    head = [what, "inlaid", *names, *[f"inlaid / {name}" for name in names], "goal", "peak GFLOP/s"]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for r in results:
        speeds = [f"{r['speeds'][name]['median']:.0f}" for name in ["inlaid", *names]]
        ratios = [cell(r["ratios"][name], 2) for name in names]
        line = [r["row"], *speeds, *ratios, r["goal"] or "", cell(r["peak"], 0, 1e-9)]
        yield "| " + " | ".join(map(str, line)) + " |"


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("model", type=Path)
    usual = Path(__file__).parents[2] / "target/release/inlaid"
    parser.add_argument("--inlaid", type=Path, default=usual, help="the program, if not that of the release build")
    parser.add_argument("--decoder", action="store_true", help="MODEL translates")
    parser.add_argument("--rows", help="separated by commas")
    parser.add_argument("--weights", default="auto", help="what inlaid is given as --weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default="encoders", help="name of the two files in WORK")
    return parser.parse_args()


def main():
    args = options()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.decoder and not (args.model / "config.json").exists():
        marian(args.model)
    vocab = vocabulary(args)
    rows = args.rows.split(",") if args.rows else DECODER_ROWS if args.decoder else GOALS
    inlaid, forms, results = Inlaid(args), peers(args), []
    for row in rows:
        results.append(compare(args, row, inlaid, forms, vocab))
        # Written after every row: a run that is cut short leaves what it has.
        text = "\n".join(markdown(results, args)) + "\n"
        (args.work / f"{args.out}.json").write_text(json.dumps(results, indent=1) + "\n")
        (args.work / f"{args.out}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
