"""Writes golden.json: what the logits processors of `transformers` make of a few rows of logits.

    pip install torch transformers; python make.py
"""

import json
import os
import random

import torch
from transformers.generation import logits_process as lp

VOCAB = 24
random.seed(5)
cases = []
for case in range(12):
    logits = [round(random.gauss(0, 3), 3) for _ in range(VOCAB)]
    history = [random.randrange(VOCAB) for _ in range(random.randrange(1, 30))]
    config = {
        "temperature": random.choice([0.3, 1.0, 1.7]),
        "top_k": random.choice([0, 1, 5, 12]),
        "top_p": random.choice([1.0, 0.9, 0.5, 0.05]),
        "min_p": random.choice([0.0, 0.05, 0.5]),
        "repetition_penalty": random.choice([1.0, 1.3, 0.8]),
        "logit_bias": [[i, random.choice([2.5, -4.0])] for i in random.sample(range(VOCAB), 3)],
    }
    ids, scores = torch.tensor([history]), torch.tensor([logits])
    bias = lp.SequenceBiasLogitsProcessor({(i,): b for i, b in config["logit_bias"]})
    scores = lp.RepetitionPenaltyLogitsProcessor(config["repetition_penalty"])(ids, bias(ids, scores))
    adjusted = scores[0].tolist()
    scores = lp.TemperatureLogitsWarper(config["temperature"])(ids, scores)
    if config["top_k"]:
        scores = lp.TopKLogitsWarper(config["top_k"])(ids, scores)
    if config["top_p"] < 1:
        scores = lp.TopPLogitsWarper(config["top_p"])(ids, scores)
    if config["min_p"]:
        scores = lp.MinPLogitsWarper(config["min_p"])(ids, scores)
    cases.append(
        {
            "logits": logits,
            "history": history,
            "config": config,
            "adjusted": adjusted,
            "probs": scores.softmax(-1)[0].double().tolist(),
        }
    )
with open(os.path.join(os.path.dirname(__file__), "golden.json"), "w") as file:
    file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
