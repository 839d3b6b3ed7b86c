"""Writes golden.bin: random blocks of every quantised type and what the `gguf` package makes of them.

pip install gguf numpy; python make.py. Per type: name in 8 bytes, blocks and bytes and elements of a block as u32, all
blocks, all values as f32; little-endian.
"""

import struct
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Q
from gguf.quants import dequantize

# Offsets of the f16 fields within a block, which must hold finite numbers.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "IQ4_NL": [0]}
SCALES |= {"Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
BLOCKS = 4

rng = np.random.default_rng(7)
out = b""
for name, offsets in SCALES.items():
    elements, size = GGML_QUANT_SIZES[Q[name]]
    blocks = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for at in offsets:
        # The first block's scales are subnormal.
        scale = rng.normal(0, 0.02, BLOCKS) * np.where(np.arange(BLOCKS) == 0, 1e-4, 1)
        blocks[:, at : at + 2] = scale.astype("<f2").reshape(-1, 1).view(np.uint8)
    values = dequantize(blocks, Q[name]).astype("<f4")
    assert np.isfinite(values).all() and values.size == BLOCKS * elements
    out += struct.pack("<8sIII", name.encode(), BLOCKS, size, elements) + blocks.tobytes() + values.tobytes()
Path(__file__).with_name("golden.bin").write_bytes(out)
