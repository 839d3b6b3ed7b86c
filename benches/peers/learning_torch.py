"""The learning steps that learning.py compares, in plain PyTorch: learning_torch.py MODEL TASK DTYPE THREADS

Loads the model, does one step to warm up, then one step for each line on standard input, and prints what each took:
{"seconds", "rollout_s"}. At the end of its input it prints {"peak_bytes"}. A task is a list of numbers and words,
as learning.py says them: KIND BATCH PROMPT ANSWER RANK (rank 0: all parameters learn).

It is written as one would write it without a framework: answers are drawn with a cache, then one pass gives the old
log-probabilities and values, one the reference's, and the update is a forward and a backward pass. PPO is that of
Ouyang et al. 2022 with one epoch and one minibatch, the reference policy is the model without its adapter or, where
all learns, a frozen copy.
"""

import copy
import json
import resource
import sys
import time

import torch
from torch.nn.functional import cross_entropy, log_softmax, mse_loss


def log_probs(logits, targets):
    return log_softmax(logits.float(), -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


class Learner:
    def __init__(self, path, kind, batch, prompt, answer, rank, dtype):
        import transformers

        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
        self.batch, self.prompt, self.answer, self.rank = batch, prompt, answer, rank
        self.vocab = model.config.vocab_size
        self.frozen = None
        if rank:
            import peft

            config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj"])
            model = peft.get_peft_model(model, config)
        elif kind == "ppo":
            self.frozen = copy.deepcopy(model).requires_grad_(False)
        self.model = model.train()
        self.head = torch.nn.Linear(model.config.hidden_size, 1).to(torch.float32)
        torch.nn.init.zeros_(self.head.weight)
        learn = [p for p in self.model.parameters() if p.requires_grad] + list(self.head.parameters())
        self.optimizer = torch.optim.AdamW(learn, lr=1e-5)
        self.step = self.ppo if kind == "ppo" else self.sft

    def ids(self, length):
        return torch.randint(0, self.vocab, (self.batch, length))

    def update(self, loss):
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def sft(self):
        ids = self.ids(self.prompt)
        logits = self.model(input_ids=ids).logits
        self.update(cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten()))
        return 0.0

    @torch.no_grad()
    def rollout(self, prompts):
        ids, cache = prompts, None
        for _ in range(self.answer):
            fed = ids if cache is None else ids[:, -1:]
            out = self.model(input_ids=fed, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            drawn = torch.multinomial(torch.softmax(out.logits[:, -1].float(), -1), 1)
            ids = torch.cat([ids, drawn], 1)
        return ids

    def said(self, model, ids):
        """Log-probabilities of the answers, and the states that they came from."""
        keep = self.answer + 1
        out = model(input_ids=ids, output_hidden_states=True, logits_to_keep=keep)
        states = out.hidden_states[-1][:, -keep:-1]
        return log_probs(out.logits[:, :-1], ids[:, self.prompt :]), self.head(states.float()).squeeze(-1)

    @torch.no_grad()
    def reference(self, ids):
        if self.frozen is not None:
            return self.said(self.frozen, ids)[0]
        with self.model.disable_adapter():
            return self.said(self.model, ids)[0]

    def ppo(self):
        start = time.perf_counter()
        ids = self.rollout(self.ids(self.prompt))
        rollout = time.perf_counter() - start
        with torch.no_grad():
            old, values = self.said(self.model, ids)
        rewards = -0.05 * (old - self.reference(ids))
        rewards[:, -1] += torch.rand(self.batch)
        advantages, last = torch.zeros_like(rewards), torch.zeros(self.batch)
        for t in reversed(range(self.answer)):
            following = values[:, t + 1] if t + 1 < self.answer else 0.0
            last = rewards[:, t] + following - values[:, t] + 0.95 * last
            advantages[:, t] = last
        returns = advantages + values
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        new, now = self.said(self.model, ids)
        ratio = (new - old).exp()
        policy = torch.max(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2)).mean()
        near = values + (now - values).clamp(-0.2, 0.2)
        value = torch.max(mse_loss(now, returns, reduction="none"), mse_loss(near, returns, reduction="none")).mean()
        self.update(policy + 0.05 * value)
        return rollout


def timed(learner):
    start = time.perf_counter()
    rollout = learner.step()
    print(json.dumps({"seconds": time.perf_counter() - start, "rollout_s": rollout}), flush=True)


def main():
    path, task, dtype, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    kind, *numbers = task.split()
    learner = Learner(path, kind, *map(int, numbers), dtype)
    timed(learner)
    for _ in sys.stdin:
        timed(learner)
    print(json.dumps({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


main()
