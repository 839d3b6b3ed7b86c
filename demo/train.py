"""Trains the model that ships: python train.py OUT MINUTES TEXT...

Texts are UTF-8 files of public-domain prose, one per book (README.md says which). Every 50th paragraph of each is held
out. Writes OUT/{config.json, generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json,
log.jsonl}. The learning rate follows the clock: warm-up over 2 % of MINUTES, then a cosine to zero.
Needs torch, transformers, tokenizers, safetensors.
"""

import json
import math
import os
import re
import sys
import time

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = "<|end|>"
VOCAB, CONTEXT, BATCH = 4096, 256, 16


def paragraphs(path):
    """Paragraphs with their lines joined; verse numbers and headings of the Bible dropped."""
    text = open(path, encoding="utf-8").read().replace("\r", "")
    text = re.sub(r"(?m)^\s+\d+ (?=\S)", "\n", text) if "kjv" in path else text
    out = []
    for part in re.split(r"\n\s*\n", text):
        part = re.sub(r"\s+", " ", part.replace("_", "")).strip()
        if len(part) > 20 and not part.isupper():
            out.append(part)
    if "kjv" in path:  # verses are short: some together make a paragraph
        out = [" ".join(out[i : i + 6]) for i in range(0, len(out), 6)]
    return out


def split(paths):
    train, held = [], []
    for path in paths:
        all_ = paragraphs(path)
        # Consecutive paragraphs stay together, so that the model sees how one follows from another.
        for i in range(0, len(all_), 10):
            block = "\n".join(all_[i : i + 10])
            (held if (i // 10) % 50 == 49 else train).append(block)
    return train, held


def make_tokenizer(texts):
    tok = Tokenizer(models.BPE(byte_fallback=False))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tok.train_from_iterator(texts, trainer)
    return tok


def encode(tok, texts):
    end, ids = tok.token_to_id(END), []
    for e in tok.encode_batch(texts):
        ids += [end] + e.ids
    return torch.tensor(ids)


@torch.no_grad()
def held_out(model, ids):
    """Mean loss in nats per token over whole windows."""
    n = (len(ids) - 1) // CONTEXT
    x = ids[: n * CONTEXT].view(n, CONTEXT)
    total = 0.0
    for i in range(0, n, 16):
        total += model(input_ids=x[i : i + 16], labels=x[i : i + 16]).loss.item() * len(x[i : i + 16])
    return total / n


def save(model, tok, out):
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok, bos_token=END, eos_token=END, model_max_length=CONTEXT, clean_up_tokenization_spaces=False
    )
    fast.save_pretrained(out)
    twin = LlamaForCausalLM(model.config).to(torch.bfloat16)
    twin.load_state_dict({k: v.to(torch.bfloat16) for k, v in model.state_dict().items()})
    twin.generation_config = GenerationConfig(
        bos_token_id=0, eos_token_id=0, do_sample=True, temperature=0.7, top_p=0.95
    )
    twin.save_pretrained(out)


def main():
    out, minutes, paths = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
    os.makedirs(out, exist_ok=True)
    torch.manual_seed(1)
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    train, held = split(paths)
    tok = make_tokenizer(train)
    end = tok.token_to_id(END)
    ids, held_ids = encode(tok, train), encode(tok, held)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=192, intermediate_size=512, num_hidden_layers=6, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, tie_word_embeddings=True, rope_theta=10000.0,
        rms_norm_eps=1e-5, bos_token_id=end, eos_token_id=end, initializer_range=0.05,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    print(f"{model.num_parameters()} parameters, {len(ids)} training tokens, {len(held_ids)} held out", flush=True)
    table = model.model.embed_tokens.weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not table]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    # Muon for the matrices, AdamW for the embedding table and the norms.
    muon = torch.optim.Muon(matrices, lr=0.0, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": [table], "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95))
    log, start, step, peak, saved = open(f"{out}/log.jsonl", "w"), time.time(), 0, 4e-3, 0.0
    while (done := (time.time() - start) / 60 / minutes) < 1:
        lr = peak * min(done / 0.02, 0.5 * (1 + math.cos(math.pi * done)))
        for g in muon.param_groups + adam.param_groups:
            g["lr"] = max(lr, 1e-6)
        at = torch.randint(0, len(ids) - CONTEXT, (BATCH,))
        x = torch.stack([ids[i : i + CONTEXT] for i in at.tolist()])
        loss = model(input_ids=x, labels=x).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in (muon, adam):
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        step += 1
        if step % 100 == 0:
            row = {"step": step, "tokens": step * BATCH * CONTEXT, "loss": loss.item(), "minutes": done * minutes}
            if step % 500 == 0:
                row["held_out"] = held_out(model, held_ids)
            print(json.dumps(row), file=log, flush=True)
        if time.time() - saved > 240:
            save(model, tok, out)
            saved = time.time()
    print(json.dumps({"step": step, "tokens": step * BATCH * CONTEXT, "held_out": held_out(model, held_ids)}), file=log)
    save(model, tok, out)


main()
