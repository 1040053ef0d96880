"""Generates tests/goldens/blocks.safetensors: matrices quantised and widened by bitsandbytes, torch and ggml.

    python tests/reference/blocks.py LIBGGML_BASE

Needs, beside requirements.txt, bitsandbytes==0.50.2 (its processor backend) and ggml's library libggml-base.so, for
example that of llama-cpp-python. Names of tensors:

- `source`: `[R, C]` in F32. `ggml.TYPE`: its rows, quantised by `ggml_quantize_chunk` without an importance matrix.
- `KIND.BLOCK.codes`, `.absmax`: `source` in nf4 or fp4. `.nested.absmax`, `.nested.codes`, `.nested.offset`: its absmax,
  quantised once more. `.f32`, `.bf16`, `.f16`: rows 13 to 16, widened from plain absmax and rounded to the dtype;
  `.nested.bf16` those from nested absmax. `nested_quant_map`: the values of nested codes.
- `odd.*`: a matrix `[3, 67]` in nf4, whose blocks of 64 continue in the next row and whose last byte is half used.
- `int8.codes`, `int8.scb`, `int8.f32`: `source` in int8 and its rows 13 to 16, widened.
- `e4m3`: the value of each code; `fp8.*`: a small matrix with scales by tensor, row and blocks of 4 x 8.
"""

import ctypes
import sys
from pathlib import Path

import bitsandbytes.functional as bnb
import numpy as np
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from gguf import GGMLQuantizationType as Type
from gguf.constants import GGML_QUANT_SIZES
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent.parent / "goldens" / "blocks.safetensors"
TYPES = [Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.IQ4_NL]
WIDENED = slice(13, 17)


def source(random: np.random.Generator) -> np.ndarray:
    """[R, 256]: normal rows of all magnitudes, and rows that are special for a type."""
    rows = [random.standard_normal(256) * 0.02 for _ in range(12)]
    rows += [random.standard_normal(256) * scale for scale in (1e-12, 1e-6, 1.0, 50.0, 3e3)]
    rows += [random.standard_t(2, 256) * 0.02 for _ in range(4)]
    rows += [np.abs(random.standard_normal(256)), -np.abs(random.standard_normal(256)), random.uniform(3, 4, 256)]
    # zeros; one value; ties of many roundings; one element among zeros; steps of a scale of one; some groups zero
    rows += [np.zeros(256), -np.zeros(256), np.full(256, -0.25), np.full(256, 0.3)]
    rows += [(np.arange(256) % 64 - 31.5) / 2, np.where(np.arange(256) == 77, -3.0, 0.0), np.arange(256) - 128.0]
    rows += [np.where(np.arange(256) // 32 % 2 == 0, 0, random.standard_normal(256))]
    rows += [random.standard_normal(256) * np.repeat(10.0 ** np.arange(-7, 1), 32)]
    rows += [np.round(random.standard_normal(256) * 4) / 8 for _ in range(3)]
    return np.array(rows, dtype=np.float32)


def ggml_quantize(library: ctypes.CDLL, kind: Type, values: np.ndarray) -> torch.Tensor:
    elements, size = GGML_QUANT_SIZES[kind]
    rows, columns = values.shape
    out = np.zeros((rows, columns // elements * size), dtype=np.uint8)
    pointer = ctypes.c_void_p
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, *[ctypes.c_int64] * 3, pointer]
    written = library.ggml_quantize_chunk(kind.value, values.ctypes.data, out.ctypes.data, 0, rows, columns, None)
    assert written == out.nbytes
    return torch.from_numpy(out)


def four_bit(values: torch.Tensor, kind: str, block: int) -> dict[str, torch.Tensor]:
    name = f"{kind}.{block}"
    codes, state = bnb.quantize_4bit(values, blocksize=block, quant_type=kind)
    tensors = {f"{name}.codes": codes.reshape(-1), f"{name}.absmax": state.absmax}
    for dtype, short in [(torch.float32, "f32"), (torch.bfloat16, "bf16"), (torch.float16, "f16")]:
        state.dtype = dtype
        tensors[f"{name}.{short}"] = bnb.dequantize_4bit(codes, state)[WIDENED].clone()
    _, state = bnb.quantize_4bit(values, blocksize=block, quant_type=kind, compress_statistics=True)
    state.dtype = torch.bfloat16
    tensors |= {
        f"{name}.nested.codes": state.absmax,
        f"{name}.nested.absmax": state.state2.absmax,
        f"{name}.nested.offset": state.offset.reshape(1),
        f"{name}.nested.bf16": bnb.dequantize_4bit(codes, state)[WIDENED].clone(),
    }
    return tensors


def odd(random: np.random.Generator) -> dict[str, torch.Tensor]:
    values = torch.from_numpy(random.standard_normal((3, 67)).astype(np.float32))
    codes, state = bnb.quantize_4bit(values, blocksize=64, quant_type="nf4")
    # the kernel with vectors of AVX-512 takes blocks for parts of rows; all others do as this one
    wide = _dequantize_4bit_compute(codes.reshape(-1), state.absmax, state.code, 64, values.shape, torch.float32)
    return {"odd.source": values, "odd.codes": codes.reshape(-1), "odd.absmax": state.absmax, "odd.f32": wide}


def int8(values: torch.Tensor) -> dict[str, torch.Tensor]:
    codes, scb, _ = bnb.int8_vectorwise_quant(values)
    wide = bnb.int8_vectorwise_dequant(codes, scb)
    return {"int8.codes": codes, "int8.scb": scb, "int8.f32": wide[WIDENED].clone()}


def fp8(random: np.random.Generator) -> dict[str, torch.Tensor]:
    codes = torch.arange(256).to(torch.uint8)
    small = torch.from_numpy(random.integers(0, 127, (10, 20), dtype=np.uint8))
    small = small | torch.from_numpy(random.integers(0, 2, (10, 20), dtype=np.uint8) << 7)
    wide = small.view(torch.float8_e4m3fn).to(torch.float32)
    scales = torch.from_numpy(random.uniform(1e-4, 1e-2, (3, 3)).astype(np.float32))
    rows = torch.from_numpy(random.uniform(1e-4, 1e-2, (10, 1)).astype(np.float32))
    blocks = scales.repeat_interleave(4, 0).repeat_interleave(8, 1)[:10, :20]
    return {
        "e4m3": codes.view(torch.float8_e4m3fn).to(torch.float32),
        "fp8.codes": small,
        "fp8.rows.scales": rows,
        "fp8.rows.f32": wide * rows,
        "fp8.blocks.scales": scales,
        "fp8.blocks.f32": wide * blocks,
        "fp8.matrix.f32": wide * scales[0, 0],
    }


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    library = ctypes.CDLL(sys.argv[1])
    random = np.random.default_rng(0)
    values = source(random)
    tensors = {"source": torch.from_numpy(values), "nested_quant_map": bnb.create_dynamic_map()}
    tensors |= {f"ggml.{kind.name}": ggml_quantize(library, kind, values) for kind in TYPES}
    for kind, block in [("nf4", 64), ("nf4", 32), ("fp4", 64), ("nf4", 4096)]:
        tensors |= four_bit(tensors["source"], kind, block)
    tensors |= odd(random) | int8(tensors["source"]) | fp8(random)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, OUT)


if __name__ == "__main__":
    main()
