"""Writes what peft says of gradients and of five steps of AdamW of adapters: python make_peft.py [NAME...]

    peft/NAME.safetensors   grad.TENSOR: the gradient of the loss by each tensor of the adapter, under its name in the file
                            (computed in f64, stored in f32); after.TENSOR: the tensor after the steps
    peft/NAME.json          base: the golden model; adapter: the golden adapter that learning goes on from (none: biases of the
                            model); cases, loss, adamw and losses as `make_learn.py` has them
    peft/NAME/              of adapters that are not among the golden ones, the adapter itself

Weight decay falls on matrices, not on magnitudes, factors and biases.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from make_learn import ADAMW, LOADERS, cases

HERE = Path(__file__).parent
GOLDEN = HERE.parent
OUT = HERE / "peft"
ADAPTERS = {
    "dora": ("llama-gqa", "dora-linear"),
    "dora-encoder": ("bert-mlm", LoraConfig(r=3, lora_alpha=5, target_modules=["query", "value", "output.dense"], use_dora=True)),
    "ia3": ("llama-gqa", "ia3-gated"),
    "ia3-conv1d": ("gpt2", "ia3-conv1d"),
    "ia3-encoder": (
        "bert-mlm",
        IA3Config(target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]),
    ),
    "ia3-pairs": ("t5", "ia3-pairs"),
    "dora-pairs": ("t5", LoraConfig(r=2, lora_alpha=3, target_modules=["q", "v", "wo"], use_dora=True)),
    "prompt": ("llama-gqa", "prompt-rope"),
    "prompt-learned": ("gpt2", "prompt-learned"),
    "prefix": ("llama-gqa", "prefix-grouped"),
    "prefix-window": ("mistral-window", "prefix-window"),
    "biases": ("gpt2", None),
}
STEPS = 5
PLAIN = ("ia3_l", "lora_magnitude_vector", ".bias")


def strengthen(model, seed):
    """Numbers that all parts of the adapter show in."""
    for i, (name, p) in enumerate(sorted(model.named_parameters())):
        if p.requires_grad:
            noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(1000 * seed + i))
            factor = any(word in name for word in PLAIN)
            p.data = p.data * (1 + 0.3 * noise) if factor else 0.5 * noise / p.shape[1] ** 0.5


def opened(name, seed):
    base, adapter = ADAPTERS[name]
    config = AutoConfig.from_pretrained(GOLDEN / base, attn_implementation="eager")
    loader = next(loader for loader, names in LOADERS.items() if base in names)
    model = loader.from_pretrained(GOLDEN / base, config=config, dtype=torch.float32)
    if adapter is None:  # how peft says that biases alone learn
        config = LoraConfig(target_modules="dummy-target-modules", bias="all", r=1)
        return get_peft_model(model, config), base, None
    if isinstance(adapter, str):
        folder, said = GOLDEN / "adapters" / adapter, f"adapters/{adapter}"
    else:
        folder, said = OUT / name, f"learn/peft/{name}"
        made = get_peft_model(model, adapter)
        strengthen(made, seed)
        made.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        path = folder / "adapter_config.json"
        settings = json.loads(path.read_text()) | {"base_model_name_or_path": base}
        settings = {k: sorted(v) if isinstance(v, list) else v for k, v in settings.items()}  # peft keeps sets
        path.write_text(json.dumps(settings, indent=2) + "\n")
        model = made.unload()
    config = PeftConfig.from_pretrained(folder)
    if not config.is_prompt_learning:
        return PeftModel.from_pretrained(model, folder, is_trainable=True), base, said
    config.inference_mode = False
    model = get_peft_model(model, config)  # peft opens prompts to be read alone
    model.prompt_encoder["default"].embedding.weight.data = load_file(folder / "adapter_model.safetensors")["prompt_embeddings"]
    return model, base, said


def saved(name):
    """The name of a parameter in the adapter's file."""
    if name.startswith("prompt_encoder"):
        return "prompt_embeddings"
    return name.replace(".default", "").replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def loss(model, batch):
    """As make_learn.loss; rows before the text's own are those of a prompt."""
    total, count = 0.0, 0
    for case in batch:
        ids = torch.tensor([case["ids"]])
        pair = dict(input_ids=torch.tensor([case["source"]]), decoder_input_ids=ids) if "source" in case else dict(input_ids=ids)
        logits = model(**pair).logits[0][-len(case["ids"]) :][case["rows"]]
        logprobs = torch.log_softmax(logits, -1)
        total = total - logprobs[torch.arange(len(case["rows"])), case["targets"]].sum()
        count += len(case["rows"])
    return total / count


def record(name, model, base, adapter, parameters):
    """Gradients and steps of `parameters`, by their names in the adapter's file."""
    model = model.double().eval()
    batch = cases(base, model.config if hasattr(model.config, "vocab_size") else model.base_model.config)
    for case in batch:  # room for a prompt
        case["ids"] = case["ids"][:60]
        kept = [i for i, row in enumerate(case["rows"]) if row < 60]
        case["rows"], case["targets"] = [[case[key][i] for i in kept] for key in ("rows", "targets")]
    plain = [p for n, p in parameters.items() if any(n.endswith(word) for word in PLAIN)]
    others = [p for n, p in parameters.items() if not any(n.endswith(word) for word in PLAIN)]
    optimizer = torch.optim.AdamW([dict(params=others), dict(params=plain, weight_decay=0.0)], **ADAMW)
    said = dict(base=base, adapter=adapter, cases=batch, loss=None, adamw=ADAMW, losses=[])
    tensors = {}
    for step in range(STEPS):
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        if step == 0:
            for key, p in parameters.items():
                gradient = torch.zeros_like(p) if p.grad is None else p.grad
                tensors[f"grad.{key}"] = gradient.float().contiguous()
        optimizer.step()
        said["losses"].append(value.item())
    said["loss"] = said["losses"][0]
    tensors |= {f"after.{key}": p.detach().float().contiguous() for key, p in parameters.items()}
    save_file(tensors, OUT / f"{name}.safetensors")
    (OUT / f"{name}.json").write_text(json.dumps(said) + "\n")
    print(name, said["losses"])


def make(name, seed):
    model, base, adapter = opened(name, seed)
    record(name, model, base, adapter, {saved(n): p for n, p in model.named_parameters() if p.requires_grad})


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    for seed, name in enumerate(ADAPTERS, start=700):
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            make(name, seed)
