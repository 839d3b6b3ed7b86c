#!/usr/bin/env bash
# PPO learns: on the model that ships, the share of words from a list more than doubles at a divergence below 10 nats an answer,
# for each of three seeds. Prints the mean reward of the first and the last five rounds.
set -euo pipefail
cd "$(dirname "$0")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
printf '%s\n' the of sea her she >"$work/words.txt"
printf '%s\n' 'It was a bright morning, and' 'And the king said unto him,' 'Elizabeth was' 'The captain looked at' \
    'In the beginning' 'He said that' 'She could not' 'There was a' >"$work/prompts.txt"
for seed in 1 2 3; do
    cargo run --locked --quiet --profile quick -- train ppo demo --prompts "$work/prompts.txt" \
        --reward "builtin:lexicon:$work/words.txt" --out "$work/$seed" --steps "${ROUNDS:-120}" --batch 64 --max-tokens 32 \
        --minibatch 32 --rate 2e-4 --kl-coef 0.15 --kl-target 7 --pass-tokens 4096 --seed "$seed"
    python3 - "$work/$seed/log.jsonl" <<'PY'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
mean = lambda part, key: sum(line[key] for line in part) / len(part)
first, last, kl = mean(lines[:5], "reward"), mean(lines[-5:], "reward"), mean(lines[-5:], "kl")
print(f"reward {first:.3f} -> {last:.3f}, KL {kl:.2f} nats an answer")
sys.exit(not (last > 2 * first and kl < 10))
PY
done
