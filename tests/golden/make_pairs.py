"""Writes the golden encoder-decoders: pip install -r requirements.txt; python make_pairs.py [NAME...]

As make.py; `expected.*` are those of `reference.record_pair`. `transformer` is a `torch.nn.Transformer` with what its
tutorials put around it, in the files of Inlaid's own `model_type`.
"""

import json
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import BartConfig, M2M100Config, MarianConfig, MBartConfig, MT5Config, T5Config

import reference

HERE = Path(__file__).parent
# The two sides differ in blocks, heads and inner widths.
SIZES = dict(
    vocab_size=61, d_model=24, encoder_layers=2, decoder_layers=3, encoder_attention_heads=3,
    decoder_attention_heads=2, encoder_ffn_dim=29, decoder_ffn_dim=37, max_position_embeddings=80, bos_token_id=0,
    pad_token_id=1, eos_token_id=2, decoder_start_token_id=2,
)  # fmt: skip
MARIAN = dict(SIZES, pad_token_id=60, decoder_start_token_id=60, eos_token_id=0, forced_eos_token_id=0)
T5 = dict(
    vocab_size=61, d_model=24, d_kv=9, d_ff=37, num_layers=3, num_decoder_layers=2, num_heads=3,
    relative_attention_num_buckets=12, relative_attention_max_distance=30, decoder_start_token_id=0,
)  # fmt: skip

MODELS = {
    "marian": ("MarianMTModel", MarianConfig(**MARIAN, scale_embedding=True, activation_function="swish")),
    "marian-separate": (
        "MarianMTModel",
        MarianConfig(**MARIAN, decoder_vocab_size=61, share_encoder_decoder_embeddings=False,
                     tie_word_embeddings=False, activation_function="relu"),
    ),
    "bart": ("BartForConditionalGeneration", BartConfig(**SIZES, forced_eos_token_id=None)),
    "bart-rules": ("BartForConditionalGeneration", BartConfig(**SIZES, scale_embedding=True)),
    "mbart": ("MBartForConditionalGeneration", MBartConfig(**SIZES, scale_embedding=True)),
    "m2m_100": ("M2M100ForConditionalGeneration", M2M100Config(**SIZES)),
    "t5": ("T5ForConditionalGeneration", T5Config(**T5)),
    "t5-untied": ("T5ForConditionalGeneration", T5Config(**T5, feed_forward_proj="gated-gelu")),
    "t5-encoder": ("T5EncoderModel", T5Config(**T5, feed_forward_proj="gated-silu")),
    "mt5": ("MT5ForConditionalGeneration", MT5Config(**T5)),
}  # fmt: skip
# Heads that class what the encoder, and then the decoder, has read.
HEADS = {
    "bart-classify": ("BartForSequenceClassification", BartConfig(**SIZES, num_labels=3)),
    "bart-span": ("BartForQuestionAnswering", BartConfig(**SIZES)),
    # Its decoder begins with the name of a language, the last token of a text.
    "mbart-classify": ("MBartForSequenceClassification", MBartConfig(**SIZES, num_labels=2)),
    "t5-classify": ("T5ForSequenceClassification", T5Config(**T5, num_labels=3)),
    "t5-tag": ("T5ForTokenClassification", T5Config(**T5, num_labels=4)),
    "t5-span": ("T5ForQuestionAnswering", T5Config(**T5, feed_forward_proj="gated-gelu")),
}  # fmt: skip
RULES = dict(num_beams=4, length_penalty=2.0, early_stopping=True, no_repeat_ngram_size=2, forced_bos_token_id=7, min_length=6)


def own_head(folder, seed):
    """A head that is not the table, as the files of version 1.1 of T5 have it."""
    tensors, path = load_file(folder / "model.safetensors"), folder / "config.json"
    random = torch.Generator().manual_seed(seed)
    tensors["lm_head.weight"] = torch.randn(tensors["shared.weight"].shape, generator=random) / 4
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads(path.read_text())
    config.pop("scale_decoder_outputs")
    config["tie_word_embeddings"] = False
    path.write_text(json.dumps(config, indent=2) + "\n")


def unlike(model, seed):
    """Lets answers wander: norms of mixed signs and small biases, so that a decoder does not repeat what it reads, and
    large embeddings of tokens, so that what it says hangs on what it reads."""
    for i, (name, p) in enumerate(sorted(model.named_parameters())):
        random = torch.Generator().manual_seed(1000 * seed + i)
        if p.ndim == 1 and name.endswith("weight"):
            p.data *= 1 - 2 * (torch.rand(p.shape, generator=random) < 0.5).float()
        elif p.ndim == 1:
            p.data *= 0.3
        elif name.endswith("Attention.q.weight"):
            p.data *= 0.2  # scores of T5 are not divided
        elif any(word in name for word in ("shared", "embed_tokens", "tok_emb")):
            p.data *= 3


def make(name, seed):
    folder, (family, config) = HERE / name, (MODELS | HEADS)[name]
    family = getattr(transformers, family)
    shutil.rmtree(folder, ignore_errors=True)
    model = family._from_config(config, attn_implementation="eager")
    sines = {n: p.data for n, p in model.named_parameters() if not p.requires_grad}
    reference.strengthen(model, seed)
    unlike(model, seed)
    for n, value in sines.items():
        model.get_parameter(n).data = value
    if hasattr(model, "final_logits_bias"):
        random = torch.Generator().manual_seed(seed)
        model.final_logits_bias.copy_(0.5 * torch.randn(model.final_logits_bias.shape, generator=random))
        model.final_logits_bias[0, config.eos_token_id] = 1.0  # so that answers end
    if name == "bart-rules":
        model.generation_config.update(**RULES)
    model.tie_weights()
    model.save_pretrained(folder)
    if name == "t5-untied":
        own_head(folder, seed)
    model = family.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    if name == "t5-encoder":
        reference.record_encoder(model, folder, seed)
    elif name in HEADS:
        language = 50 if config.model_type == "mbart" else None
        reference.record_encoder(model, folder, seed, True, language)
    else:
        reference.record_pair(model, folder, seed)


class Tokens(torch.nn.Module):
    def __init__(self, vocab, width):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocab, width)

    def forward(self, ids):
        return self.embedding(ids) * math.sqrt(self.embedding.embedding_dim)


class Transformer(torch.nn.Module):
    """Attention Is All You Need: sines and cosines in turn, a norm after each sum."""

    def __init__(self, config):
        super().__init__()
        self.transformer = torch.nn.Transformer(
            config.d_model, config.encoder_attention_heads, config.encoder_layers, config.decoder_layers,
            config.encoder_ffn_dim, batch_first=True,
        )  # fmt: skip
        self.generator = torch.nn.Linear(config.d_model, config.decoder_vocab_size)
        self.src_tok_emb = Tokens(config.vocab_size, config.d_model)
        self.tgt_tok_emb = Tokens(config.decoder_vocab_size, config.d_model)
        self.config = config

    def placed(self, x):
        d = x.shape[-1]
        angles = torch.arange(x.shape[1]).double()[:, None] / 10000 ** (torch.arange(0, d, 2).double() / d)
        return x + torch.stack([angles.sin(), angles.cos()], -1).flatten(1).to(x.dtype)

    def forward(self, input_ids, decoder_input_ids, **_):
        hidden = self.transformer.encoder(self.placed(self.src_tok_emb(input_ids)))
        x, n = self.placed(self.tgt_tok_emb(decoder_input_ids)), decoder_input_ids.shape[1]
        mask = torch.full((n, n), float("-inf"), dtype=x.dtype).triu(1)
        out = self.generator(self.transformer.decoder(x, hidden, tgt_mask=mask))
        return SimpleNamespace(encoder_last_hidden_state=hidden, logits=out)


def make_transformer(name, seed):
    torch.backends.mha.set_fastpath_enabled(False)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    config = dict(
        model_type="transformer", vocab_size=53, decoder_vocab_size=61, d_model=24, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=3, decoder_attention_heads=3, encoder_ffn_dim=37, decoder_ffn_dim=37,
        scale_embedding=True, max_position_embeddings=80, decoder_start_token_id=1, eos_token_id=2,
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = Transformer(SimpleNamespace(**config, pad_token_id=0)).eval()
    reference.strengthen(model, seed)
    unlike(model, seed)
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    reference.record_pair(model, folder, seed)


if __name__ == "__main__":
    for seed, name in enumerate([*MODELS, "transformer", *HEADS], start=201):
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            (make_transformer if name == "transformer" else make)(name, seed)
