"""What the scripts here share: strong random weights, and what transformers answers.

Every golden model is a folder with `expected.json` and `expected.safetensors` beside the files of the model:

    expected.json   cases: one per input {ids, max_abs (largest |logit|), f32_error (largest difference between this
                    reference and the same model in f64), rounded_error (largest difference to the same model whose
                    linear layers round their inputs as our kernels do; only where they do)}; greedy: {prompt,
                    ids: the 16 most likely tokens one after the other, min_gap: the smallest lead of a chosen
                    token over the second}, or null where the head is no language model; rounds: what inputs are rounded to, if anything: bf16 (where weights
                    are bf16) or bytes (where weights are quantised)
    expected.safetensors   logits.0, logits.1, ...: [positions, vocab] f32, one tensor per case (what another head says, or
                           the states of a model without one, in their place); for bf16 weights also
                           rounded.0, ...: the same with the inputs of linear layers rounded to bf16. (Bytes are coarse:
                           which of two steps an input falls on may hang on its last bit, so there only rounded_error
                           is kept.)

Encoders (`"branch": "encoder"`), and encoder-decoders that class what they read, have other ones:

    expected.json   cases: {ids, types (of some, where the model has token types), hidden: {max_abs, f32_error},
                    logits: the same of the head, where it has one}
    expected.safetensors   hidden.0, ...: the last hidden states of the encoder [positions, width]; logits.0, ...: what the head says of
                    every position, or [1, labels] of the text

Encoder-decoders (`"branch": "encoder-decoder"`):

    expected.json   cases: {ids, decoder_ids, hidden, logits: as above}; answers: {source, beams, ids: what `generate` adds
                    to the decoder's first token, by the rules of the folder's generation_config.json}
    expected.safetensors   hidden.0, ...: what the encoder returns; logits.0, ...: of every position of the decoder

The logits are those of transformers in f32 with eager attention on one thread; stored 16-bit or quantised weights are
widened to f32 first.
"""

import copy
import json

import torch
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

GREEDY = 16
LENGTHS = (1, 2, 23, 71)  # 71 is past one attention chunk of 64 and past every window and trained length used here


def strengthen(model, seed):
    """Gives every parameter values spread far enough that no two logits, heads or channels are alike."""
    modules = dict(model.named_modules())
    tables = {f"{name}.weight" for name, module in modules.items() if isinstance(module, torch.nn.Embedding)}
    columns = {f"{name}.weight" for name, module in modules.items() if isinstance(module, Conv1D)}  # a row per input
    less = {f"{name}.weight" for name, module in modules.items() if "Gemma" in type(module).__name__}  # gains, less 1
    for i, (name, p) in enumerate(sorted(model.named_parameters())):
        random = torch.Generator().manual_seed(1000 * seed + i)
        if p.ndim == 1 and name.endswith("weight"):  # gains of norms
            value = 0.3 + 1.4 * torch.rand(p.shape, generator=random) - float(name in less)
        elif p.ndim == 1:
            value = 0.3 * torch.randn(p.shape, generator=random)
        elif name in tables:
            # Where embeddings are scaled and the head is tied: else each token would be followed by itself.
            scale = getattr(modules[name.removesuffix(".weight")], "scalar_embed_scale", 1.0)
            value = 0.4 / scale**0.5 * torch.randn(p.shape, generator=random)
        else:
            fan_in = p.shape[0] if name in columns else p.shape[1]
            value = 1.5 * torch.randn(p.shape, generator=random) / fan_in**0.5
        p.data = value.to(p.dtype)


@torch.no_grad()
def logits(model, ids):
    """[positions, n]; of a model that classes whole texts [1, n]; of one without a head its states."""
    answer = model(input_ids=torch.tensor([ids]))
    if "start_logits" in answer:
        return torch.stack([answer.start_logits, answer.end_logits], -1)[0]
    out = answer.logits if "logits" in answer else answer.last_hidden_state
    return out.reshape(-1, out.shape[-1])


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


def record(model, folder, seed, rounds=lambda name: None, attention="eager"):
    """Writes expected.* for `model`, which must hold the weights of `folder` in f32. `rounds`: as of `rounding`."""
    torch.set_num_threads(1)
    model = model.float().eval()
    model.config._attn_implementation = attention
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
    speaks = type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))
    answer = telling(model, rough, seed, tolerance) if speaks else None
    worst = max(c["f32_error"] / c["max_abs"] for c in cases)
    spread = (tensors["logits.3"] if speaks else torch.cat([t.flatten() for t in tensors.values()])).std().item()
    told = f"gap {answer['min_gap']:.3f}, {answer['ids']}" if answer else type(model).__name__
    print(f"{folder.name}: f32 error {worst:.1e}, spread {spread:.2f}, {told}")
    assert worst < 2e-5, "too sensitive to be a reference in f32"
    assert spread > 0.5, "too flat to show a mistake"
    rows = ",\n  ".join(json.dumps(case) for case in cases)
    text = f'{{\n "cases": [\n  {rows}\n ],\n "greedy": {json.dumps(answer)},\n "rounds": {json.dumps(how)}\n}}\n'
    (folder / "expected.json").write_text(text)
    save_file(tensors, folder / "expected.safetensors")


def old_norms(folder):
    """The names that the first BERT files have."""
    names = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}
    tensors = load_file(folder / "model.safetensors")
    for new, old in names.items():
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def sizes(out, exact):
    """How large an answer is, and how far from the one in f64."""
    return {"max_abs": out.abs().max().item(), "f32_error": (out.double() - exact.double()).abs().max().item()}


@torch.no_grad()
def encoded(model, ids, types):
    """The last hidden states, and what the head says, one row per position or one in all."""
    more = {"token_type_ids": torch.tensor([types])} if types else {}
    out = model(input_ids=torch.tensor([ids]), output_hidden_states=True, **more)
    names = ("last_hidden_state", "encoder_last_hidden_state")
    hidden = next((out[name] for name in names if name in out), None)
    hidden = out.hidden_states[-1] if hidden is None else hidden
    if type(model).__name__.startswith("ModernBert") and "last_hidden_state" not in out:
        hidden = model.model(input_ids=torch.tensor([ids])).last_hidden_state
    names = ("logits", "prediction_logits", "start_logits")
    logits = next((out[name] for name in names if name in out), None)
    if "start_logits" in out:
        logits = torch.stack([out.start_logits, out.end_logits], -1)
    if type(model).__name__ == "ElectraForPreTraining":
        logits = logits.unsqueeze(-1)  # one number per token
    return hidden[0], None if logits is None else logits.reshape(-1, logits.shape[-1])


def ended(ids, config, language):
    """A text as heads on encoder-decoders want it: without padding, it ends with the end token, or with that and the name
    of a language."""
    end, pad = config.eos_token_id, config.pad_token_id
    ids = [end if id == pad else id for id in ids]
    ids = [end if i in (3, len(ids) - 1) else id for i, id in enumerate(ids)]
    return ids[:-2] + [end, language] if language and len(ids) > 1 else ids


def record_encoder(model, folder, seed, ends=False, language=None):
    """Writes expected.* for an encoder, which must hold the weights of `folder` in f32; or for an encoder-decoder that
    classes texts, which are then `ended`."""
    torch.set_num_threads(1)
    model = model.float().eval()
    exact, types = copy.deepcopy(model).double(), getattr(model.config, "type_vocab_size", 1)
    cases, tensors = [], {}
    for i, ids in enumerate(inputs(model.config.vocab_size, seed)):
        ids = ended(ids, model.config, language) if ends else ids
        kinds = [j * types // len(ids) for j in range(len(ids))] if types > 1 and i % 2 == 1 else []
        case = {"ids": ids, "types": kinds} if kinds else {"ids": ids}
        answers, truths = encoded(model, ids, kinds), encoded(exact, ids, kinds)
        for what, answer, truth in zip(("hidden", "logits"), answers, truths):
            if answer is not None:
                case[what] = sizes(answer, truth)
                tensors[f"{what}.{i}"] = answer.contiguous()
        cases.append(case)
    write(folder, {"branch": "encoder"}, cases, tensors)


DECODER_LENGTHS = (5, 1, 23, 40)


@torch.no_grad()
def paired(model, ids, decoder_ids):
    """What the encoder returns, and the logits of the decoder."""
    out = model(input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([decoder_ids]))
    return out.encoder_last_hidden_state[0], out.logits[0]


@torch.no_grad()
def answer(model, source, beams):
    """What the library's own search answers; a model that is not of the library is greedy."""
    start, end = model.config.decoder_start_token_id, model.config.eos_token_id
    if hasattr(model, "generate"):
        more = dict(num_beams=beams, do_sample=False, max_new_tokens=GREEDY)
        return model.generate(torch.tensor([source]), **more)[0].tolist()[1:]
    ids = [start]
    while len(ids) <= GREEDY and end not in ids[1:]:
        ids.append(paired(model, source, ids)[1][-1].argmax().item())
    return ids[1:]


def shaken(model, seed):
    """A copy with weights changed in their last digits: where answers hang on those, they tell nothing."""
    copied, random = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for p in copied.parameters():
        p.data *= 1 + 3e-4 * torch.randn(p.shape, generator=random)
    return copied


def answers(model, seed):
    """Answers to three sources that are the same whatever the rounding; some that end, where there are any."""
    other, found = shaken(model, seed), {True: [], False: []}
    for attempt in range(24):
        source = [x for x in inputs(model.config.vocab_size, 1000 * attempt + seed)[2] if x != model.config.pad_token_id]
        both = {beams: answer(model, source, beams) for beams in ((1, 4) if hasattr(model, "generate") else (1,))}
        ends = len(both[max(both)]) < GREEDY
        if len(set(both[1])) < 3 or len(found[ends]) == (2 if ends else 1):
            continue
        if all(answer(other, source, b) == ids for b, ids in both.items()):
            found[ends].append([{"source": source, "beams": b, "ids": ids} for b, ids in both.items()])
        if len(found[True]) + len(found[False]) == 3:
            break
    chosen = [one for group in found[True] + found[False] for one in group]
    print(f"  {attempt + 1} sources; answers {[one['ids'] for one in chosen]}")
    assert chosen, "no answer is varied and sure"
    return chosen


def record_pair(model, folder, seed):
    """Writes expected.* for an encoder-decoder, which must hold the weights of `folder` in f32."""
    torch.set_num_threads(1)
    model = model.float().eval()
    exact, config = copy.deepcopy(model).double(), model.config
    vocab = getattr(config, "decoder_vocab_size", None) or config.vocab_size
    random = torch.Generator().manual_seed(seed + 500)
    cases, tensors = [], {}
    for i, ids in enumerate(inputs(config.vocab_size, seed)):
        decoder_ids = torch.randint(3, vocab - 1, (DECODER_LENGTHS[i],), generator=random).tolist()
        case = {"ids": ids, "decoder_ids": decoder_ids}
        outs, truths = paired(model, ids, decoder_ids), paired(exact, ids, decoder_ids)
        for what, out, truth in zip(("hidden", "logits"), outs, truths):
            case[what] = sizes(out, truth)
            tensors[f"{what}.{i}"] = out.contiguous()
        cases.append(case)
    write(folder, {"branch": "encoder-decoder", "answers": answers(model, seed)}, cases, tensors)


def write(folder, more, cases, tensors):
    """Writes expected.*, unless they would not tell right from wrong."""
    whats = [what for what in ("hidden", "logits") if what in cases[-1]]
    worst = max(case[what]["f32_error"] / case[what]["max_abs"] for case in cases for what in whats)
    spread = min(torch.cat([tensors[f"{what}.{i}"] for i in range(len(cases))]).std().item() for what in whats)
    print(f"{folder.name}: f32 error {worst:.1e}, spread {spread:.2f}")
    assert worst < 2e-5, "too sensitive to be a reference in f32"
    assert spread > 0.05, "too flat to show a mistake"
    rows = ",\n  ".join(json.dumps(case) for case in cases)
    fields = "".join(f' {json.dumps(key)}: {json.dumps(value)},\n' for key, value in more.items())
    (folder / "expected.json").write_text(f'{{\n{fields} "cases": [\n  {rows}\n ]\n}}\n')
    save_file(tensors, folder / "expected.safetensors")
