"""Writes the golden adapters: pip install -r requirements.txt; python make_adapters.py [NAME...]

Each is a folder `adapters/NAME` as peft's `save_pretrained` leaves it (without its README, and with the name of a golden
model in place of a path), with what peft answers beside it. The numbers of an adapter are large enough that no part of it
can be left out unnoticed.

    expected.json   base: the golden model it was made on; merges: whether it is a change of weights; cases: {ids,
                    decoder_ids (of an encoder-decoder), max_abs (largest |logit|), f32_error (largest difference between
                    this answer and the same model's in f64), merged_error (largest difference to the model with the
                    adapter in its 16-bit weights; only of those), moved (largest difference to the model without it)}; with:
                    where several adapters answer together, their names and weights (such a folder holds no adapter)
    expected.safetensors   logits.0, ...: [positions, vocab] of each case, or [1, labels] of a text
"""

import copy
import json
import shutil
import sys
import warnings
from pathlib import Path

import torch
from peft import IA3Config, LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

import reference

HERE = Path(__file__).parent
OUT = HERE / "adapters"
TASKS = {
    "CAUSAL_LM": AutoModelForCausalLM,
    "SEQ_CLS": AutoModelForSequenceClassification,
    "SEQ_2_SEQ_LM": AutoModelForSeq2SeqLM,
}
MLP = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def lora(targets, r=4, alpha=6, task="CAUSAL_LM", **more):
    return LoraConfig(task_type=task, r=r, lora_alpha=alpha, target_modules=targets, **more)


def ia3(task="CAUSAL_LM", targets=None, inner=None):
    return IA3Config(task_type=task, target_modules=targets, feedforward_modules=inner)


def prompt(kind, n, task="CAUSAL_LM", **more):
    return kind(task_type=task, num_virtual_tokens=n, **more)


ADAPTERS = {
    "lora-names": ("llama-gqa", lora(["q_proj", "v_proj"])),
    # Rewritten below: peft turns the word into names before it saves them.
    "lora-all-linear": ("qwen2", lora("all-linear", r=3, use_rslora=True)),
    "lora-patterns": (
        "llama-gqa",
        lora(
            r"model\.layers\.\d+\.(self_attn\.[qk]|mlp\.(up|down))_proj", r=3,
            rank_pattern={"up_proj": 2, r"^model\.layers\.0\..*down_proj": 5},
            alpha_pattern={r"layers\.1\.self_attn\.q_proj": 11, "down_proj": 2},
        ),
    ),
    "lora-layers": (
        "llama-gqa",
        lora(["self_attn.o_proj", "gate_proj", "k_proj"], layers_to_transform=[1], layers_pattern="layers",
             exclude_modules=["k_proj"]),
    ),
    "lora-conv1d": ("gpt2", lora(["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True, bias="all")),
    "lora-biases": ("gpt2", lora(["c_attn"], fan_in_fan_out=True, bias="lora_only", lora_bias=True)),
    "lora-tied": ("gpt2", lora(["wte", "lm_head"], fan_in_fan_out=False)),
    "lora-embeddings": ("llama-gqa", lora(["embed_tokens", "lm_head"])),
    "lora-scaled-embeddings": ("gemma", lora(["embed_tokens", "q_proj"])),
    "lora-saved": (
        "llama-gqa", lora(["q_proj"], layers_to_transform=0, modules_to_save=["lm_head", "model.norm", "embed_tokens"])
    ),
    "lora-saved-conv1d": ("gpt2", lora(["c_fc"], fan_in_fan_out=True, modules_to_save=["h.1.attn.c_attn", "ln_1"])),
    "lora-fused": ("phi3", lora(["qkv_proj", "gate_up_proj", "o_proj"])),
    "lora-grouped": ("falcon-grouped", lora(["query_key_value", "dense"])),
    "lora-interleaved": ("gpt-neox", lora(["query_key_value", "dense_4h_to_h"])),
    "lora-classifier": ("bert-classify", lora(["query", "value", "pooler.dense"], task="SEQ_CLS")),
    "lora-pairs": ("t5", lora(["q", "v", "wo"], task="SEQ_2_SEQ_LM")),
    "lora-16bit": ("llama-f16", lora(MLP)),
    "dora-linear": ("llama-gqa", lora(["q_proj", "v_proj", "down_proj"], use_dora=True)),
    "dora-conv1d": ("gpt2", lora(["c_attn", "c_proj"], use_dora=True, fan_in_fan_out=True)),
    "ia3-gated": ("llama-gqa", ia3()),
    "ia3-conv1d": ("gpt2", ia3()),
    "ia3-classifier": ("bert-classify", ia3("SEQ_CLS")),
    "ia3-pairs": ("t5", ia3("SEQ_2_SEQ_LM")),
    "prompt-rope": ("llama-gqa", prompt(PromptTuningConfig, 5)),
    "prompt-learned": ("gpt2", prompt(PromptTuningConfig, 3)),
    "prompt-scaled": ("gemma", prompt(PromptTuningConfig, 4)),
    "prompt-classes": ("llama-classes", prompt(PromptTuningConfig, 4, "SEQ_CLS")),
    "prefix-grouped": ("llama-gqa", prompt(PrefixTuningConfig, 6)),
    "prefix-learned": ("gpt2", prompt(PrefixTuningConfig, 2, prefix_projection=True, encoder_hidden_size=16)),
    "prefix-window": ("mistral-window", prompt(PrefixTuningConfig, 4)),
}
TOGETHER = {"mixed": [("lora-names", 0.75), ("lora-patterns", -0.5)]}
SEEDS = dict(zip([*ADAPTERS, *TOGETHER], range(1, 200)))
SIXTEEN = {"llama-f16": torch.float16}
ALL_LINEAR = {"lora-all-linear"}


def strengthen(model, seed):
    """Numbers that move every logit."""
    for i, (name, p) in enumerate(sorted(model.named_parameters())):
        if not p.requires_grad:
            continue
        random = torch.Generator().manual_seed(1000 * seed + i)
        noise = torch.randn(p.shape, generator=random)
        if "lora_A" in name or "lora_embedding_A" in name:
            p.data = noise / p.shape[1] ** 0.5 if "embedding" not in name else 0.3 * noise
        elif "lora_B" in name and p.ndim == 2 or "lora_embedding_B" in name:
            p.data = 0.5 * noise / p.shape[1] ** 0.5
        elif "ia3_l" in name or "magnitude" in name:
            p.data = p.data * (0.4 + 1.2 * torch.rand(p.shape, generator=random))
        elif "prompt_encoder" in name:
            p.data = 0.6 * noise
        else:
            p.data = p.data + 0.25 * noise * p.data.std().clamp(min=0.1)


def base(name, task):
    return TASKS[task].from_pretrained(HERE / name, dtype=torch.float32, attn_implementation="eager")


@torch.no_grad()
def answer(model, ids, decoder_ids):
    more = {"decoder_input_ids": torch.tensor([decoder_ids])} if decoder_ids else {}
    logits = model(input_ids=torch.tensor([ids]), **more).logits
    # Rows before the text's own are those of a prompt.
    return logits.reshape(-1, logits.shape[-1])[-len(decoder_ids or ids) :].contiguous()


def merged(folder, name, task):
    """The model with the adapter in its weights, which are rounded to the type that they have."""
    model = PeftModel.from_pretrained(base(name, task).to(SIXTEEN[name]), folder)
    return model.merge_and_unload().float().eval()


def record(folder, name, task, model, seed, merges, more):
    torch.set_num_threads(1)
    model, plain = model.float().eval(), base(name, task).eval()
    exact = copy.deepcopy(model).double()
    rounded = merged(folder, name, task) if name in SIXTEEN else None
    vocab, cases, tensors = plain.config.vocab_size, [], {}
    random = torch.Generator().manual_seed(seed)
    for i, ids in enumerate(reference.inputs(vocab, seed)):
        ids = ids[:60]  # room for a prompt
        pair = task == "SEQ_2_SEQ_LM"
        decoder_ids = torch.randint(3, vocab - 1, (reference.DECODER_LENGTHS[i],), generator=random).tolist() if pair else None
        out = answer(model, ids, decoder_ids)
        case = {"ids": ids, **({"decoder_ids": decoder_ids} if pair else {}), "max_abs": out.abs().max().item()}
        case["f32_error"] = (out.double() - answer(exact, ids, decoder_ids)).abs().max().item()
        if rounded:
            case["merged_error"] = (out - answer(rounded, ids, decoder_ids)).abs().max().item()
        case["moved"] = (out - answer(plain, ids, decoder_ids)).abs().max().item()
        cases.append(case)
        tensors[f"logits.{i}"] = out
    worst = max(case["f32_error"] / case["max_abs"] for case in cases)
    moved = min(case["moved"] / case["max_abs"] for case in cases)
    print(f"{folder.name}: f32 error {worst:.1e}, moved {moved:.2f}")
    assert worst < 2e-5, "too sensitive to be a reference in f32"
    assert moved > 0.02, "too weak to show a mistake"
    rows = ",\n  ".join(json.dumps(case) for case in cases)
    head = "".join(f' {json.dumps(key)}: {json.dumps(value)},\n' for key, value in ({"base": name, "merges": merges} | more).items())
    (folder / "expected.json").write_text(f'{{\n{head} "cases": [\n  {rows}\n ]\n}}\n')
    save_file(tensors, folder / "expected.safetensors")


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def make(name, seed):
    folder, (on, config) = OUT / name, ADAPTERS[name]
    fresh(folder)
    task, config = config.task_type, copy.deepcopy(config)
    model = get_peft_model(base(on, task), config)
    strengthen(model, seed)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text())
    settings["base_model_name_or_path"] = on
    for key, value in settings.items():  # peft keeps sets
        settings[key] = sorted(value) if isinstance(value, list) else value
    if name in ALL_LINEAR:
        settings["target_modules"] = "all-linear"
    path.write_text(json.dumps(settings, indent=2) + "\n")
    # Read back: what is recorded is what the files say.
    model = PeftModel.from_pretrained(base(on, task), folder)
    record(folder, on, task, model, seed, not config.is_prompt_learning, {})


def together(name, seed):
    folder, parts = OUT / name, TOGETHER[name]
    fresh(folder)
    on, config = ADAPTERS[parts[0][0]]
    names = [part for part, _ in parts]
    model = PeftModel.from_pretrained(base(on, config.task_type), OUT / names[0], adapter_name=names[0])
    for part in names[1:]:
        model.load_adapter(OUT / part, adapter_name=part)
    model.base_model.set_adapter(names)
    for part, weight in parts:
        for module in model.modules():
            scaling = getattr(module, "scaling", None)
            if isinstance(scaling, dict) and part in scaling:
                scaling[part] *= weight
    record(folder, on, config.task_type, model, seed, True, {"with": parts})


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    for name, seed in SEEDS.items():
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            together(name, seed) if name in TOGETHER else make(name, seed)
