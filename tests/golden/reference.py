"""What `make.py`, `make_gguf.py` and `make_smollm2.py` share: strong random weights, and what transformers answers.

Every golden model is a folder with `expected.json` and `expected.safetensors` beside the files of the model:

    expected.json   cases: one per input {ids, max_abs (largest |logit|), f32_error (largest difference between this
                    reference and the same model in f64), rounded_error (largest difference to the same model whose
                    linear layers round their inputs as our kernels do; only where they do)}; greedy: {prompt,
                    ids: the 16 most likely tokens one after the other, min_gap: the smallest lead of a chosen
                    token over the second}; rounds: what inputs are rounded to, if anything: bf16 (where weights
                    are bf16) or bytes (where weights are quantised)
    expected.safetensors   logits.0, logits.1, ...: [positions, vocab] f32, one tensor per case; for bf16 weights also
                           rounded.0, ...: the same with the inputs of linear layers rounded to bf16. (Bytes are coarse:
                           which of two steps an input falls on may hang on its last bit, so there only rounded_error
                           is kept.)

The logits are those of transformers in f32 with eager attention on one thread; stored 16-bit or quantised weights are
widened to f32 first.
"""

import copy
import json

import torch
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

GREEDY = 16
LENGTHS = (1, 2, 23, 71)  # 71 is past one attention chunk of 64 and past every window and trained length used here


def strengthen(model, seed):
    """Gives every parameter values spread far enough that no two logits, heads or channels are alike."""
    for i, (name, p) in enumerate(sorted(model.named_parameters())):
        random = torch.Generator().manual_seed(1000 * seed + i)
        if p.ndim == 1 and name.endswith("weight"):  # gains of norms
            value = 0.3 + 1.4 * torch.rand(p.shape, generator=random)
        elif p.ndim == 1:
            value = 0.3 * torch.randn(p.shape, generator=random)
        elif any(word in name for word in ("embed_tokens", "wte", "wpe")):
            value = 0.4 * torch.randn(p.shape, generator=random)
        else:
            fan_in = p.shape[0] if "c_" in name else p.shape[1]  # Conv1D keeps a row per input
            value = 1.5 * torch.randn(p.shape, generator=random) / fan_in**0.5
        p.data = value.to(p.dtype)


@torch.no_grad()
def logits(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0]


def greedy(model, prompt):
    ids, gap = list(prompt), float("inf")
    for _ in range(GREEDY):
        best = logits(model, ids)[-1].topk(2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    return {"prompt": list(prompt), "ids": ids[len(prompt) :], "min_gap": gap}


def inputs(vocab, seed):
    random = torch.Generator().manual_seed(seed)
    return [torch.randint(0, vocab, (n,), generator=random).tolist() for n in LENGTHS]


def bytes_of(x):
    """Each 32 inputs as signed bytes: the largest magnitude becomes 127."""
    blocks = x.unflatten(-1, (-1, 32))
    most = blocks.abs().amax(-1, keepdim=True)
    steps = torch.where(most > 0, blocks * (127 / most), 0).round()  # to nearest even
    return (steps * (most / 127)).flatten(-2)


ROUND = {"bf16": lambda x: x.bfloat16().float(), "bytes": bytes_of}


def rounding(model, rounds):
    """A copy whose linear layers round their inputs, and go on in f32. `rounds`: module name -> how."""
    rough = copy.deepcopy(model)
    for name, module in rough.named_modules():
        if isinstance(module, (torch.nn.Linear, Conv1D)) and rounds(name):
            module.register_forward_pre_hook(lambda _, args, how=ROUND[rounds(name)]: (how(args[0]),))
    return rough


def telling(model, rough, seed, tolerance):
    """Greedy tokens of the first prompt that are varied, lead by more than `tolerance` and are those of `rough` too."""
    for attempt in range(100):
        prompt = inputs(model.config.vocab_size, 1000 * attempt + seed)[2]
        answer = greedy(model, prompt)
        if len(set(answer["ids"])) < 6 or answer["min_gap"] < tolerance:
            continue
        if rough is None or greedy(rough, prompt)["ids"] == answer["ids"]:
            return answer
    raise AssertionError("too flat, or its greedy tokens hang on rounding")


def record(model, folder, seed, rounds=lambda name: None):
    """Writes expected.* for `model`, which must hold the weights of `folder` in f32. `rounds`: as of `rounding`."""
    torch.set_num_threads(1)
    model = model.float().eval()
    model.config._attn_implementation = "eager"
    hows = {rounds(name) for name, module in model.named_modules() if isinstance(module, (torch.nn.Linear, Conv1D))}
    how = next((how for how in ("bytes", "bf16") if how in hows), None)
    exact, rough = copy.deepcopy(model).double(), rounding(model, rounds) if how else None
    cases, tensors = [], {}
    for i, ids in enumerate(inputs(model.config.vocab_size, seed)):
        out = logits(model, ids)
        case = {"ids": ids, "max_abs": out.abs().max().item()}
        case["f32_error"] = (out.double() - logits(exact, ids)).abs().max().item()
        if rough:
            rounded = logits(rough, ids).contiguous()
            case["rounded_error"] = (rounded - out).abs().max().item()
            if how == "bf16":
                tensors[f"rounded.{i}"] = rounded
        cases.append(case)
        tensors[f"logits.{i}"] = out.contiguous()
    tolerance = max(4e-4 * cases[2]["max_abs"], cases[2].get("rounded_error", 0) / 2)
    answer = telling(model, rough, seed, tolerance)
    worst = max(c["f32_error"] / c["max_abs"] for c in cases)
    spread = tensors["logits.3"].std().item()
    print(f"{folder.name}: f32 error {worst:.1e}, spread {spread:.2f}, gap {answer['min_gap']:.3f}, {answer['ids']}")
    assert worst < 2e-5, "too sensitive to be a reference in f32"
    assert spread > 0.5, "too flat to show a mistake"
    rows = ",\n  ".join(json.dumps(case) for case in cases)
    text = f'{{\n "cases": [\n  {rows}\n ],\n "greedy": {json.dumps(answer)},\n "rounds": {json.dumps(how)}\n}}\n'
    (folder / "expected.json").write_text(text)
    save_file(tensors, folder / "expected.safetensors")
