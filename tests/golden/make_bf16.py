"""What the golden models answer once their weights are bf16: pip install -r requirements.txt; python make_bf16.py [NAME...]

For one model or more of each family, `expected-bf16.safetensors` beside its `expected.json`: hidden.0, ..., logits.0, ...
of the same inputs, in f32, by the same weights rounded to bf16 and with the inputs of all linears rounded to bf16, as our
kernels round them. Metadata: `cases`, JSON, for each input {hidden, logits: {max_abs, f32_error, rounded_error}}: what
f32 costs, and what the rounding of the inputs does.
"""

import contextlib
import copy
import json
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
import transformers
from safetensors.torch import load_file, save_file

import make_pairs
import reference

HERE = Path(__file__).parent
MODELS = """
    gpt gpt2 gpt-neox gpt-neox-serial gptj opt opt-350m bloom falcon falcon-grouped falcon-alibi-rounded llama-gqa
    llama3-rope mistral-window qwen2 qwen3 gemma gemma2 phi phi3 phi3-longrope starcoder2 olmo2 llama-classes
    bert-mlm bert-classify distilbert-mlm roberta-mlm camembert-mlm xlm-roberta-tag electra-mlm electra-discriminator
    mpnet-mlm modernbert-mlm modernbert-mean bart mbart marian m2m_100 t5 t5-untied mt5 transformer
""".split()


def rounded_copy(folder, copied):
    """The same files with values that bf16 holds."""
    shutil.copytree(folder, copied, ignore=shutil.ignore_patterns("expected*"))
    tensors = load_file(folder / "model.safetensors")
    rounded = {name: t.bfloat16().float() if t.is_floating_point() else t for name, t in tensors.items()}
    save_file(rounded, copied / "model.safetensors", {"format": "pt"})


def opened(folder):
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] == "transformer":
        torch.backends.mha.set_fastpath_enabled(False)
        model = make_pairs.Transformer(SimpleNamespace(**config))
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model
    attention = "sdpa" if config["model_type"] == "falcon" else "eager"
    family = getattr(transformers, config["architectures"][0])
    return family.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)


def inputs_rounded():
    """Rounds what `torch` itself calls a linear with, beside the hooks of `reference.rounding`."""
    linear = torch.nn.functional.linear
    how = lambda x, w, bias=None: linear(reference.ROUND["bf16"](x), w, bias)  # noqa: E731
    return mock.patch("torch.nn.functional.linear", how)


def answers(model, branch, case):
    """What the model says of a case, by name."""
    if branch == "encoder":
        hidden, logits = reference.encoded(model, case["ids"], case.get("types"))
    elif branch == "encoder-decoder":
        hidden, logits = reference.paired(model, case["ids"], case["decoder_ids"])
    else:
        hidden, logits = None, reference.logits(model, case["ids"])
    return {name: out for name, out in (("hidden", hidden), ("logits", logits)) if out is not None}


def make(name):
    folder = HERE / name
    expected = json.loads((folder / "expected.json").read_text())
    with tempfile.TemporaryDirectory() as there:
        rounded_copy(folder, Path(there) / name)
        model = opened(Path(there) / name).float().eval()
    rough, exact = reference.rounding(model, lambda _: "bf16"), copy.deepcopy(model).double()
    tensors, cases, branch = {}, [], expected.get("branch", "decoder")
    for i, case in enumerate(expected["cases"]):
        plain, truth = answers(model, branch, case), answers(exact, branch, case)
        with inputs_rounded() if name == "transformer" else contextlib.nullcontext():
            outs = answers(rough, branch, case)
        tensors |= {f"{what}.{i}": out.contiguous() for what, out in outs.items()}
        error = lambda what: (outs[what] - plain[what]).abs().max().item()  # noqa: E731, B023
        sizes = {what: reference.sizes(plain[what], truth[what]) for what in outs}
        cases.append({what: size | {"rounded_error": error(what)} for what, size in sizes.items()})
    worst = {what: max(c[what]["rounded_error"] / c[what]["max_abs"] for c in cases) for what in cases[0]}
    print(name, {what: f"{share:.1e}" for what, share in worst.items()})
    assert all(share > 1e-4 for share in worst.values()), "nothing was rounded"
    save_file(tensors, folder / "expected-bf16.safetensors", {"cases": json.dumps(cases)})


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in MODELS:
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            make(name)
