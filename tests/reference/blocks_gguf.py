"""Generates tests/goldens/gguf/blocks.gguf: blocks of every type that simmer reads or writes, converted by the Python
package gguf. Needs only gguf==0.17.1 and numpy.

`<type>.blocks` are blocks as stored, `<type>.numbers` the same values in F32. `source` is in F32, `source.<type>` the same
converted to the type. The package also writes the file itself, with its metadata and its table of tensors.
"""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize

OUT = Path(__file__).parent.parent / "goldens" / "gguf" / "blocks.gguf"

# Offsets of the f16 scales of a block, in bytes.
SCALES = {
    Type.Q8_0: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2],
    Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208], Type.IQ4_NL: [0],
}  # fmt: skip

# Zero, the smallest and largest subnormal, the smallest normal, one, the largest; and their negatives.
EDGES = np.array([0x0000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0x7BFF], dtype=np.uint16)
EDGES = np.concatenate([EDGES, EDGES | 0x8000])


def random_blocks(kind: Type, random: np.random.Generator) -> np.ndarray:
    """[blocks, bytes]: any bytes are a valid block, except for scales that are not finite."""
    numbers, size = GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (2048 // numbers, size), dtype=np.uint8)
    for at in SCALES[kind]:
        scales = blocks[:, at : at + 2].copy().view(np.uint16)
        infinite = (scales & 0x7C00) == 0x7C00
        scales[infinite] &= 0xBFFF
        edges = random.permutation(EDGES)[: len(blocks) // 2]
        scales[: len(edges), 0] = edges
        blocks[:, at : at + 2] = scales.view(np.uint8)
    return blocks


def source(random: np.random.Generator) -> np.ndarray:
    """[rows, 32]: blocks of all magnitudes, ties of every rounding, zeros of both signs, and the largest values."""
    rows = [random.standard_normal(32) * scale for scale in (1e-9, 1e-4, 0.02, 1.0, 3e4)]
    rows += [np.zeros(32), -np.zeros(32), np.arange(32) - 16, np.full(32, -65504.0)]
    # A largest value of 127 gives Q8_0 a scale of one, so that halves are ties.
    rows.append(np.concatenate([[127.0, -127.0], np.arange(30) - 14.5]))
    ties = np.array([1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 2**-25, 3 * 2**-25, 65519.0, 2**-24])
    rows.append(np.concatenate([ties, -ties, ties * (1 + 2**-20), ties * (1 - 2**-20)]))
    return np.array(rows, dtype=np.float32)


def main() -> None:
    random = np.random.default_rng(0)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(str(OUT), "llama")
    writer.add_uint64("test.u64", 2**40)
    writer.add_int8("test.i8", -5)
    writer.add_float64("test.f64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_array("test.texts", ["a", "\u2581b", ""])
    writer.add_array("test.integers", [1, -2, 3])
    for kind in SCALES:
        blocks = random_blocks(kind, random)
        name = kind.name.lower()
        writer.add_tensor(f"{name}.blocks", blocks.reshape(4, -1), raw_dtype=kind)
        writer.add_tensor(f"{name}.numbers", dequantize(blocks, kind).reshape(4, -1))
    numbers = source(random)
    writer.add_tensor("source", numbers)
    for kind in (Type.F16, Type.BF16, Type.Q8_0):
        writer.add_tensor(f"source.{kind.name.lower()}", quantize(numbers, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
