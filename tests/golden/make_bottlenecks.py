"""Writes the golden bottleneck adapters, which peft has not: pip install adapters==1.3.0 peft==0.21.2 (they want
transformers 4.57, so in an environment of their own); python make_bottlenecks.py [NAME...]

Folders are as `make_adapters.py` describes them, but for the adapter's files: those of the adapters library, with the head
that it saves beside an adapter only where that is not the model's own.
"""

import json
import sys
import warnings

import adapters
import torch

from make_adapters import OUT, base, fresh, record

ADAPTERS = {
    "bn-double": ("llama-gqa", "CAUSAL_LM", "double_seq_bn", {}),
    "bn-single": ("llama-gqa", "CAUSAL_LM", "seq_bn", dict(leave_out=[0], scaling=0.7)),
    "bn-double-conv1d": ("gpt2", "CAUSAL_LM", "double_seq_bn", dict(non_linearity="gelu")),
    "bn-single-conv1d": ("gpt2", "CAUSAL_LM", "seq_bn", dict(reduction_factor=2)),
    "bn-double-classes": ("bert-classify", "SEQ_CLS", "double_seq_bn", {}),
    "bn-single-classes": ("bert-classify", "SEQ_CLS", "seq_bn", {}),
    "bn-single-pairs": ("t5", "SEQ_2_SEQ_LM", "seq_bn", {}),
    "bn-cross-pairs": ("t5", "SEQ_2_SEQ_LM", "double_seq_bn", dict(cross_adapter=True)),
}
SEEDS = dict(zip(ADAPTERS, range(500, 600)))


def strengthen(model, seed):
    for i, (name, p) in enumerate(sorted(model.named_parameters())):
        random = torch.Generator().manual_seed(1000 * seed + i)
        noise = torch.randn(p.shape, generator=random)
        if ".adapters." in name or "_adapters." in name:
            p.data = 0.8 * noise / p.shape[1] ** 0.5 if p.ndim == 2 else 0.3 * noise
        elif name.startswith("classifier."):
            p.data = p.data + 0.3 * noise * p.data.std()


def make(name, seed):
    folder, (on, task, kind, more) = OUT / name, ADAPTERS[name]
    fresh(folder)
    model = base(on, task)
    adapters.init(model)
    model.add_adapter("golden", config=adapters.AdapterConfig.load(kind, **{"reduction_factor": 6, **more}))
    model.set_active_adapters("golden")
    strengthen(model, seed)
    model.save_adapter(str(folder), "golden", use_safetensors=True)
    if task != "SEQ_CLS":
        for file in ("model_head.safetensors", "head_config.json"):
            (folder / file).unlink(missing_ok=True)
    for file in ("adapter_config.json", "head_config.json"):
        path = folder / file
        if path.exists():
            settings = json.loads(path.read_text()) | {"model_name": on}
            path.write_text(json.dumps(settings, indent=2) + "\n")
    # Read back: what is recorded is what the files say.
    model = base(on, task)
    adapters.init(model)
    model.set_active_adapters(model.load_adapter(str(folder), use_safetensors=True))
    record(folder, on, task, model, seed, False, {})


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    for name, seed in SEEDS.items():
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            make(name, seed)
