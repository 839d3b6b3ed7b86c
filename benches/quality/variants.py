"""Models whose next-token distributions are compared: each gives logits for a window of ids, and says its bytes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, quants
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from to_gguf import gguf_name, rotated, separate  # noqa: E402


class Transformers:
    """A Llama in transformers, f32."""

    def __init__(self, model, size):
        self.model, self.bytes = model.eval(), size

    @torch.no_grad()
    def logits(self, ids):
        return self.model(input_ids=torch.tensor([ids])).logits[0]


def reference(folder):
    """The model that nobody quantised."""
    return Transformers(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), None)


def from_gguf(folder, path):
    """The weights of a GGUF file in the model of `folder`: the error of the weights alone, since activations stay f32.
    Its bytes are those of the tensors."""
    config = json.loads((folder / "config.json").read_text())
    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    size = sum(tensor.n_bytes for tensor in tensors.values())
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    state = {}
    for name, parameter in model.named_parameters():
        tensor = tensors.pop(gguf_name(name))
        values = quants.dequantize(tensor.data, tensor.tensor_type)
        heads = rotated(config, name) if values.ndim == 2 else 0
        values = separate(values, heads) if heads else values
        state[name] = torch.from_numpy(np.array(values, np.float32)).view(parameter.shape)
    if tensors:
        raise SystemExit(f"{path}: tensors that {folder} has no place for: {', '.join(tensors)}")
    model.load_state_dict(state, strict=not config["tie_word_embeddings"])
    return Transformers(model, size)


def inlaid_logits(program, model, weights, ids):
    """Logits [len(ids), vocab] of `inlaid logits`, f32: the whole engine, with its quantised activations. `weights` is
    given as --weights where it is not None."""
    command = [str(program), "logits", str(model), "--json", "--ids", ",".join(map(str, ids))]
    command += ["--weights", weights] if weights else []
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode()
    # {"shape":[rows,vocab],"logits":[[...],...]}: a json module would make objects of millions of numbers.
    head, body = text.split(',"logits":', 1)
    rows, vocab = json.loads(head + "}")["shape"]
    values = np.fromstring(body.replace("[", " ").replace("]", " ").rstrip("} \n"), np.float32, sep=",")
    if values.size != rows * vocab:
        raise SystemExit(f"{model}: expected {rows} x {vocab} logits, found {values.size} that are numbers")
    return torch.from_numpy(values.reshape(rows, vocab))


class Inlaid:
    """A model that inlaid has packed: converted once, so that its quantiser does not run for every window."""

    def __init__(self, program, folder, out, kind, calibration):
        if not out.exists():
            command = [str(program), "convert", str(folder), str(out), "--packed", "--to", kind]
            subprocess.run(command + (["--calibrate", str(calibration)] if calibration else []), check=True)
        self.program, self.folder = program, out
        self.bytes = sum(file.stat().st_size for file in out.glob("*.safetensors"))

    def logits(self, ids):
        return inlaid_logits(self.program, self.folder, None, ids)


class InlaidFile:
    """A directory or GGUF file that inlaid opens as it is; with `weights`, quantised at load."""

    def __init__(self, program, path, weights):
        self.program, self.path, self.weights = program, path, weights
        files = path.glob("*.safetensors") if path.is_dir() else [path]
        self.bytes = None if weights else sum(file.stat().st_size for file in files)

    def logits(self, ids):
        return inlaid_logits(self.program, self.path, self.weights, ids)
