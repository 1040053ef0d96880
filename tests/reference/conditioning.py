"""Compares the goldens with the same computation in f64: a correct f32 program may differ by about as much.

    python tests/reference/conditioning.py      after generate.py, half a minute

Prints, for each adapter, the largest absolute difference of logits, losses and trained tensors, and the largest relative
difference of a gradient tensor (norm of the difference, divided by the norm).
"""

import json
import os
import warnings
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

import adapters
import families
import models
import rows
import training


def measure(spec: adapters.TinyAdapter) -> dict[str, float]:
    folder = Path(spec.model, "adapters", spec.name)
    scalars, tensors = json.loads((folder / "golden.json").read_text()), load_file(folder / "golden.safetensors")
    golden_rows = scalars.get("rows") or json.loads(Path(spec.model, "golden.json").read_text())["rows"]
    model = PeftModel.from_pretrained(models.load_for(folder, spec.model, torch.float64), folder, is_trainable=True)
    off = {"logits": 0.0, "gradient": 0.0, "trained": 0.0}
    for index, row in enumerate(golden_rows):
        if f"logits.{index}" not in tensors:
            continue  # a compact golden
        gap = rows.logits(model, row["input_ids"]).detach() - tensors[f"logits.{index}"]
        off["logits"] = max(off["logits"], gap.abs().max().item())
    rows.backward(model, golden_rows)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    for key, value in adapters.saved_keys(model, gradients).items():
        if value.any():
            off["gradient"] = max(off["gradient"], ((value - tensors[f"grad.{key}"]).norm() / value.norm()).item())
    model.zero_grad()
    steps = training.run(model, golden_rows, spec.steps)["steps"]
    off["losses"] = max(abs(a["loss"] - b["loss"]) for a, b in zip(steps, scalars["training"]["steps"]))
    for key, value in adapters.trained(model).items():
        if f"trained.{key}" not in tensors:
            continue
        off["trained"] = max(off["trained"], (value - tensors[f"trained.{key}"]).abs().max().item())
    return off


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`")
    transformers.logging.disable_progress_bar()
    os.chdir(Path(__file__).resolve().parent.parent / "goldens")
    for adapter in adapters.ADAPTERS + families.ADAPTERS:
        off = "  ".join(f"{what} {value:.1e}" for what, value in measure(adapter).items())
        print(f"{adapter.model + '/' + adapter.name:28} {off}")
