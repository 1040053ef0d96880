"""PEFT's merges of adapters into dequantised weights: `merged.safetensors` beside the quantised models in `quantised`.

The weights are those that bitsandbytes dequantised (`expected.safetensors`, by quantised.py). They are put into the ordinary
model in its dtype, as `model.dequantize()` does, and PEFT merges the adapter into them. To keep the files small, they have
the merged tensors of the first layer alone.
"""

from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

import models

GOLDENS = Path(__file__).resolve().parent.parent / "goldens"
# the quantised model, the model that it was quantised from, and an adapter of that
MERGES = [
    ("nf4", "tied-gqa", "qkvo"),
    ("nf4-bf16", "untied-mha", "all-linear"),
    ("fp4", "qwen2", "all-linear"),
    ("int8", "mistral", "all-linear"),
]


@torch.no_grad()
def merged(quantised: Path, source: Path, adapter: Path) -> dict[str, torch.Tensor]:
    model = models.load_for(adapter, source, dtype="auto")
    dequantised = load_file(quantised / "expected.safetensors")
    state = model.state_dict()
    for name, tensor in dequantised.items():
        state[name].copy_(tensor)
    before = {name: tensor.clone() for name, tensor in state.items()}
    after = PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()
    changed = {name: tensor for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed and changed.keys() <= dequantised.keys(), sorted(changed)
    return {name: tensor.contiguous() for name, tensor in changed.items() if "layers.0." in name}


def main() -> None:
    torch.set_num_threads(1)
    for folder, model, adapter in MERGES:
        quantised, source = GOLDENS / "quantised" / folder, GOLDENS / model
        tensors = merged(quantised, source, source / "adapters" / adapter)
        save_file(tensors, quantised / "merged.safetensors")
        print(folder, len(tensors), {str(tensor.dtype) for tensor in tensors.values()})


if __name__ == "__main__":
    main()
