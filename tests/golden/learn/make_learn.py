"""Writes what torch says of gradients and of ten steps of AdamW: python make_learn.py [NAME...]

Of golden models beside this folder, one file each:

    NAME.safetensors   grad.TENSOR: the gradient of the loss by each tensor of the model, under its name in the file (computed
                       in f64, stored in f32); after.TENSOR (of some models): the tensor after ten steps
    NAME.json          cases: {ids, rows, targets}; loss; losses: before each of the ten steps (of some models)

The loss is the mean cross-entropy of `targets` at positions `rows`, over all cases together. Steps are torch.optim.AdamW in
f64 with the settings below; the same batch each time.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

HERE = Path(__file__).parent
DECODERS = ["llama-gqa", "gpt2", "gemma2", "gpt-neox", "bloom", "mistral-window", "qwen3", "olmo2", "gptj", "opt-350m"]
ENCODERS = ["bert-mlm", "modernbert-mlm", "distilbert-mlm"]
STEPPED = {"llama-gqa", "gpt2", "bert-mlm"}
LENGTHS = (23, 2, 70)
ADAMW = dict(lr=2e-3, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.01)


def cases(vocab, masked):
    random = torch.Generator().manual_seed(7)
    out = []
    for length in LENGTHS:
        ids = torch.randint(3, vocab, (length + 1,), generator=random).tolist()
        if masked:
            rows = list(range(0, length, 3))
            targets = torch.randint(3, vocab, (len(rows),), generator=random).tolist()
        else:
            rows = [i for i in range(length) if i % 5 != 3]
            targets = [ids[i + 1] for i in rows]
        out.append(dict(ids=ids[:length], rows=rows, targets=targets))
    return out


def loss(model, batch):
    total, count = 0.0, 0
    for case in batch:
        logits = model(input_ids=torch.tensor([case["ids"]])).logits[0]
        logprobs = torch.log_softmax(logits[case["rows"]], -1)
        total = total - logprobs[torch.arange(len(case["rows"])), case["targets"]].sum()
        count += len(case["rows"])
    return total / count


def groups(model):
    """Weight decay falls on matrices alone."""
    parameters = list(model.parameters())
    decayed, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim == 1]
    return [dict(params=decayed), dict(params=others, weight_decay=0.0)]


def named(model, stored):
    """Parameters under the names of the file: what is tied stands there once, some without their prefix."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    out = {}
    for name in stored:
        found = [p for n, p in parameters.items() if n == name or n.endswith("." + name)]
        if found:
            out[name] = found[0]
    return out


def make(name):
    folder = HERE.parent / name
    config = AutoConfig.from_pretrained(folder, attn_implementation="eager")
    kind = AutoModelForMaskedLM if name in ENCODERS else AutoModelForCausalLM
    model = kind.from_pretrained(folder, config=config, dtype=torch.float32).double().eval()
    stored = load_file(folder / "model.safetensors")
    batch = cases(config.vocab_size, name in ENCODERS)
    tensors, said = {}, dict(cases=batch)
    value = loss(model, batch)
    value.backward()
    said["loss"] = value.item()
    parameters = named(model, stored)
    for key, p in parameters.items():
        gradient = torch.zeros_like(p) if p.grad is None else p.grad
        tensors[f"grad.{key}"] = gradient.float().reshape(stored[key].shape).contiguous()
    if name in STEPPED:
        optimizer = torch.optim.AdamW(groups(model), **ADAMW)
        said |= dict(adamw=ADAMW, losses=[])
        for _ in range(10):
            optimizer.zero_grad()
            value = loss(model, batch)
            value.backward()
            optimizer.step()
            said["losses"].append(value.item())
        for key, p in parameters.items():
            tensors[f"after.{key}"] = p.detach().float().reshape(stored[key].shape).contiguous()
    save_file(tensors, HERE / f"{name}.safetensors")
    (HERE / f"{name}.json").write_text(json.dumps(said) + "\n")
    print(name, said["loss"], said.get("losses", [])[-1:])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or DECODERS + ENCODERS:
        make(name)
