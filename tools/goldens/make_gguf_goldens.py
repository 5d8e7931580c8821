#!/usr/bin/env python3
"""Writes test/golden/gguf-blocks.json: random blocks of every GGUF type that is read, and what gguf makes of them.

    python3 -m venv venv && venv/bin/pip install gguf==0.19.0 numpy==2.4.6
    venv/bin/python tools/goldens/make_gguf_goldens.py
"""

import base64
import json
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy as np

TARGET = Path(__file__).resolve().parents[2] / "test" / "golden" / "gguf-blocks.json"
BYTES_PER_TYPE = 450
# Where a block holds float16 numbers; their exponents are kept off infinity and NaN, which have many bit patterns.
HALFS = {"F16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q6_K": [208]}


def random_blocks(name, rng):
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][1]
    blocks = rng.integers(0, 256, (max(2, BYTES_PER_TYPE // size), size), dtype=np.uint8)
    for at in HALFS.get(name, []):
        high = blocks[:, at + 1]
        high[(high & 0x7C) == 0x7C] ^= 0x40
    if name in ("F32", "BF16"):
        high = blocks[:, -1]
        high[(high & 0x7F) == 0x7F] ^= 0x40
    return blocks


def main():
    rng = np.random.default_rng(6)
    cases = {}
    for name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"):
        blocks = random_blocks(name, rng)
        weights = gguf.quants.dequantize(blocks.reshape(1, -1), gguf.GGMLQuantizationType[name]).astype("<f4")
        encode = lambda array: base64.b64encode(array.tobytes()).decode()  # noqa: E731
        cases[name] = {"blocks": encode(blocks), "weights": encode(weights)}
    made = {"generatedBy": "tools/goldens/make_gguf_goldens.py", "gguf": version("gguf"), "cases": cases}
    TARGET.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
