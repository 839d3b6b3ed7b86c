"""Makes the tokenizer of the model that ships: python tokenizer.py TEXTS OUT

A byte-level BPE with 4,096 tokens of TEXTS/train.txt, as texts.py writes it. Needs tokenizers and transformers.
"""

import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from texts import END

VOCAB, CONTEXT = 4096, 256


def main():
    texts, out = map(Path, sys.argv[1:])
    tok = Tokenizer(models.BPE(byte_fallback=False))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tok.train_from_iterator((texts / "train.txt").read_text(encoding="utf-8").split(END)[1:], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok, bos_token=END, eos_token=END, model_max_length=CONTEXT, clean_up_tokenization_spaces=False
    )
    fast.save_pretrained(out)


main()
