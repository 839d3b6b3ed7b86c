"""Writes what torch says of gradients and of ten steps of AdamW: python make_learn.py [NAME or KIND...]

Of golden models beside this folder, one file each:

    NAME.safetensors   grad.TENSOR: the gradient of the loss by each tensor of the model, under its name in the file (computed
                       in f64, stored in f32); after.TENSOR (of some models): the tensor after ten steps
    NAME.json          cases: {ids, rows, targets, source (of encoder-decoders)}; loss; losses: before each of the ten steps
                       (of some models)

And of other losses (steps/):

    KIND.json          model; data: answers {ids, first: tokens of the prompt} of each prompt, the best first, or rollouts;
                       mix: texts of pretraining, and mix_coef, the weight of their loss (of ppo-mix); losses: before each of
                       ten steps
    KIND.safetensors   the model's tensors after them

The loss of the first is the mean cross-entropy of `targets` at positions `rows`, over all cases together. Steps are torch.optim.AdamW in
f64 with the settings below; the same batch each time.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

HERE = Path(__file__).parent
DECODERS = ["llama-gqa", "gpt2", "gemma2", "gpt-neox", "bloom", "mistral-window", "qwen3", "olmo2", "gptj", "opt-350m"]
ENCODERS = ["bert-mlm", "modernbert-mlm", "distilbert-mlm", "mpnet-mlm"]
PAIRS = ["t5", "t5-untied", "mt5", "bart", "marian", "m2m_100"]
CLASSIFIERS = ["bert-classify", "distilbert-classify"]
TAGGERS = ["xlm-roberta-tag"]
LOADERS = {
    AutoModelForCausalLM: DECODERS,
    AutoModelForMaskedLM: ENCODERS,
    AutoModelForSeq2SeqLM: PAIRS,
    AutoModelForSequenceClassification: CLASSIFIERS,
    AutoModelForTokenClassification: TAGGERS,
}
KINDS = {"reward": "opt-350m-reward", "dpo": "llama-gqa", "ppo": "gpt2", "ppo-mix": "gpt2"}
MIX_COEF = 0.5
STEPPED = {"llama-gqa", "gpt2", "bert-mlm", "t5"}
LENGTHS = (23, 2, 70)
SOURCES = (40, 71, 3)
ADAMW = dict(lr=2e-3, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.01)


def cases(name, config):
    random = torch.Generator().manual_seed(7)
    draw = lambda n, below: torch.randint(3, below, (n,), generator=random).tolist()  # noqa: E731
    vocab = config.vocab_size
    if name in PAIRS:
        vocab = min(vocab, config.pad_token_id) if config.pad_token_id > 3 else vocab  # no gradient flows to its row in torch
    out = []
    for length, source in zip(LENGTHS, SOURCES, strict=True):
        ids = draw(length + 1, vocab)
        if name in CLASSIFIERS:
            case = dict(rows=[0], targets=torch.randint(config.num_labels, (1,), generator=random).tolist())
        elif name in TAGGERS:
            rows = list(range(0, length, 3))
            case = dict(rows=rows, targets=torch.randint(config.num_labels, (len(rows),), generator=random).tolist())
        elif name in ENCODERS:
            rows = list(range(0, length, 3))
            case = dict(rows=rows, targets=draw(len(rows), vocab))
        else:
            rows = [i for i in range(length) if i % 5 != 3]
            case = dict(rows=rows, targets=[ids[i + 1] for i in rows])
        case = dict(ids=ids[:length]) | case
        out.append(case | dict(source=draw(source, vocab)) if name in PAIRS else case)
    return out


def answer(model, case):
    """What the head says at each of the rows."""
    ids = torch.tensor([case["ids"]])
    if "source" in case:
        return model(input_ids=torch.tensor([case["source"]]), decoder_input_ids=ids).logits[0][case["rows"]]
    logits = model(input_ids=ids).logits
    return logits if logits.ndim == 2 else logits[0][case["rows"]]  # of the text, or of its tokens


def loss(model, batch):
    total, count = 0.0, 0
    for case in batch:
        logprobs = torch.log_softmax(answer(model, case), -1)
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


def sums(model, pairs):
    """The sum of an answer's log-probabilities, of each answer behind its prompt."""
    out = []
    for ids, first in pairs:
        logprobs = torch.log_softmax(model(input_ids=torch.tensor([ids[:-1]])).logits[0], -1)
        out.append(sum(logprobs[i - 1, ids[i]] for i in range(first, len(ids))))
    return torch.stack(out)


def answers(vocab, prompts, each):
    """Answers of each prompt, the best first: {ids, first} (tokens of the prompt)."""
    random = torch.Generator().manual_seed(11)
    draw = lambda n: torch.randint(3, vocab, (n,), generator=random).tolist()  # noqa: E731
    out = []
    for i in range(prompts):
        prompt = draw(3 + 4 * i)
        out.append([dict(ids=prompt + draw(5 + 3 * j), first=len(prompt)) for j in range(each)])
    return out


def reward(model, reference, rankings):
    """Ouyang et al. 2022, equation 1: a mean over prompts of a mean over pairs."""
    total = 0.0
    for ranking in rankings:
        scores = torch.stack([model(input_ids=torch.tensor([a["ids"]])).logits[0, 0] for a in ranking])
        pairs = [(i, j) for i in range(len(scores)) for j in range(i + 1, len(scores))]
        total = total - sum(torch.nn.functional.logsigmoid(scores[i] - scores[j]) for i, j in pairs) / len(pairs)
    return total / len(rankings)


def dpo(model, reference, rankings):
    """Rafailov et al. 2023, equation 7, beta 0.1."""
    pairs = [(a["ids"], a["first"]) for ranking in rankings for a in ranking[:2]]
    with torch.no_grad():
        before = sums(reference, pairs)
    margin = sums(model, pairs) - before
    return -torch.nn.functional.logsigmoid(0.1 * (margin[0::2] - margin[1::2])).mean()


class Policy(torch.nn.Module):
    """A model and a value head, which is zero at first."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.value = torch.nn.Linear(model.config.hidden_size, 1).double()
        torch.nn.init.zeros_(self.value.weight)
        torch.nn.init.zeros_(self.value.bias)


def rollouts(policy, vocab):
    """Answers, and what a former policy said of them: near this one, but not at it."""
    out = []
    random = torch.Generator().manual_seed(13)
    for ranking in answers(vocab, 2, 2):
        for a in ranking:
            n = len(a["ids"]) - a["first"]
            with torch.no_grad():
                logits = policy.model(input_ids=torch.tensor([a["ids"][:-1]])).logits[0, a["first"] - 1 :]
                now = torch.log_softmax(logits, -1)[torch.arange(n), a["ids"][a["first"] :]]
            near = lambda scale: scale * torch.randn(n, generator=random)  # noqa: E731
            out.append(a | dict(
                logprob=(now.float() + near(0.15)).tolist(), value=near(0.3).tolist(),
                advantage=near(1.0).tolist(), returns=near(1.0).tolist(),
            ))  # fmt: skip
    return out


def ppo(policy, reference, batch):
    """Schulman et al. 2017, equation 7, with clipped values and an entropy bonus: a mean over tokens."""
    total, count = 0.0, 0
    for a in batch:
        n = len(a["ids"]) - a["first"]
        old, value, advantage, returns = (torch.tensor(a[k]).double() for k in ("logprob", "value", "advantage", "returns"))
        out = policy.model(input_ids=torch.tensor([a["ids"][:-1]]), output_hidden_states=True)
        logprobs = torch.log_softmax(out.logits[0, a["first"] - 1 :], -1)
        ratio = (logprobs[torch.arange(n), a["ids"][a["first"] :]] - old).exp()
        policy_loss = torch.max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
        now = policy.value(out.hidden_states[-1][0, a["first"] - 1 :])[:, 0]
        near = torch.min(torch.max(now, value - 0.2), value + 0.2)
        value_loss = 0.5 * torch.max((now - returns) ** 2, (near - returns) ** 2)
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        total = total + (policy_loss + 0.1 * value_loss - 0.01 * entropy).sum()
        count += n
    return total / count


def texts(vocab):
    """Texts of pretraining."""
    random = torch.Generator().manual_seed(17)
    return [torch.randint(3, vocab, (n,), generator=random).tolist() for n in (20, 2, 41)]


def unlikely(model, batch):
    """The mean loss of all next tokens of texts."""
    total, count = 0.0, 0
    for ids in batch:
        logprobs = torch.log_softmax(model(input_ids=torch.tensor([ids[:-1]])).logits[0], -1)
        total = total - logprobs[torch.arange(len(ids) - 1), ids[1:]].sum()
        count += len(ids) - 1
    return total / count


def preferred(kind, name):
    """Ten steps of another loss."""
    folder = HERE.parent / name
    config = AutoConfig.from_pretrained(folder, attn_implementation="eager")
    loader = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    load = lambda: loader.from_pretrained(folder, config=config, dtype=torch.float32).double().eval()  # noqa: E731
    model, reference = load(), load()
    if kind.startswith("ppo"):
        model = Policy(model)
        data, value_of = rollouts(model, config.vocab_size), ppo
    else:
        data, value_of = answers(config.vocab_size, 3, 3), dict(reward=reward, dpo=dpo)[kind]
    stored = load_file(folder / "model.safetensors")
    optimizer = torch.optim.AdamW(groups(model), **ADAMW)
    said = dict(kind=kind, model=name, adamw=ADAMW, data=data, losses=[])
    if kind == "ppo-mix":
        # Ouyang et al. 2022, equation 2: its last term, as a loss.
        said |= dict(mix=texts(config.vocab_size), mix_coef=MIX_COEF)
    for _ in range(10):
        optimizer.zero_grad()
        value = value_of(model, reference, data)
        if "mix" in said:
            value = value + MIX_COEF * unlikely(model.model, said["mix"])
        value.backward()
        optimizer.step()
        said["losses"].append(value.item())
    whole = model.model if kind.startswith("ppo") else model
    tensors = {k: p.detach().float().reshape(stored[k].shape).contiguous() for k, p in named(whole, stored).items()}
    (HERE / "steps").mkdir(exist_ok=True)
    save_file(tensors, HERE / "steps" / f"{kind}.safetensors")
    (HERE / "steps" / f"{kind}.json").write_text(json.dumps(said) + "\n")
    print(kind, said["losses"])


def make(name):
    folder = HERE.parent / name
    config = AutoConfig.from_pretrained(folder, attn_implementation="eager")
    loader = next(loader for loader, names in LOADERS.items() if name in names)
    model = loader.from_pretrained(folder, config=config, dtype=torch.float32).double().eval()
    stored = load_file(folder / "model.safetensors")
    batch = cases(name, config)
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
    chosen = sys.argv[1:]
    for name in chosen or [name for names in LOADERS.values() for name in names]:
        if name not in KINDS:
            make(name)
    for kind in KINDS:
        if not chosen or kind in chosen:
            preferred(kind, KINDS[kind])
