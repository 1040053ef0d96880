"""Writes the tensors of an adapter of PEFT as early versions of PEFT did, with torch.save.

    python tests/reference/pickled_adapter.py

reads tests/goldens/tied-gqa/adapters/qkvo, and writes tests/goldens/adapter_model.bin.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file

GOLDENS = Path(__file__).parent.parent / "goldens"

if __name__ == "__main__":
    tensors = load_file(GOLDENS / "tied-gqa" / "adapters" / "qkvo" / "adapter_model.safetensors")
    torch.save(tensors, GOLDENS / "adapter_model.bin")
