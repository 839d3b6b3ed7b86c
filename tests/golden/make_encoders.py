"""Writes the golden encoders: pip install -r requirements.txt; python make_encoders.py [NAME...]

As make.py; `expected.*` are those of `reference.record_encoder`.
"""

import shutil
import sys
from pathlib import Path

import torch
import transformers
from transformers import (
    BertConfig, CamembertConfig, DistilBertConfig, ElectraConfig, ModernBertConfig, MPNetConfig, RobertaConfig,
    XLMRobertaConfig,
)  # fmt: skip

import reference

HERE = Path(__file__).parent
SIZES = dict(
    vocab_size=61, hidden_size=30, intermediate_size=41, num_hidden_layers=2, num_attention_heads=3,
    max_position_embeddings=80, layer_norm_eps=1e-6,
)  # fmt: skip
SMALL = dict(vocab_size=61, dim=30, hidden_dim=41, n_layers=2, n_heads=3, max_position_embeddings=80)
# Positions of these begin after the padding token, 1, which the inputs hold.
FAIRSEQ = dict(SIZES, pad_token_id=1, bos_token_id=0, eos_token_id=2)
# Four blocks: the first and the last see all. A window of 5 to either side.
MODERN = dict(
    vocab_size=61, hidden_size=32, intermediate_size=23, num_hidden_layers=4, num_attention_heads=4,
    max_position_embeddings=128, local_attention=10, global_attn_every_n_layers=3, pad_token_id=0, bos_token_id=1,
    eos_token_id=2, cls_token_id=1, sep_token_id=2,
)  # fmt: skip

MODELS = {
    "bert": ("BertModel", BertConfig(**SIZES, hidden_act="gelu_new")),
    "bert-mlm": ("BertForMaskedLM", BertConfig(**SIZES)),
    "bert-mlm-untied": ("BertForMaskedLM", BertConfig(**SIZES, tie_word_embeddings=False, type_vocab_size=3)),
    "bert-pretraining": ("BertForPreTraining", BertConfig(**SIZES)),
    "bert-classify": ("BertForSequenceClassification", BertConfig(**SIZES, num_labels=5)),
    "bert-span": ("BertForQuestionAnswering", BertConfig(**SIZES, hidden_act="relu")),
    "distilbert-mlm": ("DistilBertForMaskedLM", DistilBertConfig(**SMALL)),
    "distilbert-classify": ("DistilBertForSequenceClassification", DistilBertConfig(**SMALL, num_labels=3)),
    "roberta-mlm": ("RobertaForMaskedLM", RobertaConfig(**FAIRSEQ, type_vocab_size=1)),
    "roberta-score": ("RobertaForSequenceClassification", RobertaConfig(**FAIRSEQ, num_labels=1)),
    "xlm-roberta-tag": ("XLMRobertaForTokenClassification", XLMRobertaConfig(**FAIRSEQ, num_labels=4)),
    "camembert-mlm": ("CamembertForMaskedLM", CamembertConfig(**FAIRSEQ)),
    "electra-mlm": ("ElectraForMaskedLM", ElectraConfig(**SIZES, embedding_size=19)),
    "electra-discriminator": ("ElectraForPreTraining", ElectraConfig(**SIZES, embedding_size=30)),
    "electra-classify": ("ElectraForSequenceClassification", ElectraConfig(**SIZES, embedding_size=30)),
    "mpnet": ("MPNetModel", MPNetConfig(**SIZES)),
    "mpnet-mlm": ("MPNetForMaskedLM", MPNetConfig(**SIZES)),
    "modernbert-mlm": ("ModernBertForMaskedLM", ModernBertConfig(**MODERN)),
    "modernbert-mean": (
        "ModernBertForSequenceClassification",
        ModernBertConfig(**MODERN, num_labels=3, classifier_pooling="mean", norm_bias=True, attention_bias=True,
                         mlp_bias=True, classifier_bias=True, classifier_activation="relu"),
    ),
    "modernbert-tag": ("ModernBertForTokenClassification", ModernBertConfig(**MODERN, hidden_activation="silu")),
}  # fmt: skip


def make(name, seed):
    folder, (family, config) = HERE / name, MODELS[name]
    family = getattr(transformers, family)
    shutil.rmtree(folder, ignore_errors=True)
    model = family._from_config(config, attn_implementation="eager")
    reference.strengthen(model, seed)
    model.tie_weights()
    model.save_pretrained(folder)
    if name == "bert-mlm":
        reference.old_norms(folder)
    model = family.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    reference.record_encoder(model, folder, seed)


if __name__ == "__main__":
    for seed, name in enumerate(MODELS, start=101):
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            make(name, seed)
