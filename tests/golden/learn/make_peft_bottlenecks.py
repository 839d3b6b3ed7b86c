"""Writes what the adapters library says of gradients and steps of bottleneck adapters, which peft has not: pip install
adapters==1.3.0 peft==0.21.2 (they want transformers 4.57, so in an environment of their own);
python make_peft_bottlenecks.py [NAME...]

Files are as `make_peft.py` describes them.
"""

import json
import sys
import warnings

import adapters
import torch
from transformers import AutoConfig

from make_learn import LOADERS
from make_peft import GOLDEN, OUT, record

ADAPTERS = {
    "bottleneck": ("llama-gqa", "bn-double"),
    "bottleneck-conv1d": ("gpt2", "bn-single-conv1d"),
    "bottleneck-encoder": ("bert-mlm", dict(kind="seq_bn", reduction_factor=6, non_linearity="gelu")),
    "bottleneck-encoder-double": ("bert-mlm", dict(kind="double_seq_bn", reduction_factor=6)),
}


def strengthen(model, seed):
    for i, (name, p) in enumerate(sorted(model.named_parameters())):
        if "adapters." in name:
            noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(1000 * seed + i))
            p.data = 0.8 * noise / p.shape[1] ** 0.5 if p.ndim == 2 else 0.3 * noise


def opened(name, seed):
    base, adapter = ADAPTERS[name]
    config = AutoConfig.from_pretrained(GOLDEN / base, attn_implementation="eager")
    loader = next(loader for loader, names in LOADERS.items() if base in names)
    load = lambda: loader.from_pretrained(GOLDEN / base, config=config, dtype=torch.float32)  # noqa: E731
    folder, said = GOLDEN / "adapters" / str(adapter), f"adapters/{adapter}"
    if not isinstance(adapter, str):
        folder, said = OUT / name, f"learn/peft/{name}"
        model, settings = load(), dict(adapter)
        adapters.init(model)
        model.add_adapter("golden", config=adapters.AdapterConfig.load(settings.pop("kind"), **settings))
        strengthen(model, seed)
        model.save_adapter(str(folder), "golden", use_safetensors=True, with_head=False)
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_name": base}, indent=2) + "\n")
    model = load()
    adapters.init(model)
    model.train_adapter(model.load_adapter(str(folder), use_safetensors=True))
    return model, base, said


def main():
    for seed, name in enumerate(ADAPTERS, start=800):
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            model, base, adapter = opened(name, seed)
            trained = {n: p for n, p in model.named_parameters() if "adapters." in n}
            record(name, model, base, adapter, trained)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    main()
