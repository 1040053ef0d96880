"""Writes `halves.json`: by how much transformers and PEFT in bf16 differ from the goldens, which are in f32.

    python tests/reference/halves.py      after generate.py, a minute

What a program in bf16 may differ by depends on the model: these random ones are badly conditioned. For each model: the root
mean square of the differences of log-probabilities. For each adapter that PEFT loads: the norm of the difference of all gradients,
divided by the norm of the gradients.

The base and its activations are in bf16, A and B in f32, as PEFT loads them; logits are widened before the loss. Attention is the
eager one.
"""

import json
import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

import adapters
import families
import methods
import models
import rows
from files import write_json


class WideLogits:
    """A model whose logits are widened to f32."""

    def __init__(self, model) -> None:
        self.model = model

    def __call__(self, **inputs) -> SimpleNamespace:
        return SimpleNamespace(logits=self.model(**inputs).logits.float())


def of_model(name: str) -> float:
    model = WideLogits(models.load(name, torch.bfloat16))
    gaps = [
        found - expected
        for score in json.loads(Path(name, "golden.json").read_text())["score"]
        for found, expected in zip(rows.log_probs(model, score["ids"]), score["log_probs"])
    ]
    return torch.tensor(gaps).square().mean().sqrt().item()


def of_adapter(spec: adapters.TinyAdapter) -> float:
    folder = Path(spec.model, "adapters", spec.name)
    scalars, tensors = json.loads((folder / "golden.json").read_text()), load_file(folder / "golden.safetensors")
    golden_rows = scalars.get("rows") or json.loads(Path(spec.model, "golden.json").read_text())["rows"]
    model = PeftModel.from_pretrained(models.load_for(folder, spec.model, torch.bfloat16), folder, is_trainable=True)
    rows.backward(WideLogits(model), golden_rows)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    found = {f"grad.{key}": value.float() for key, value in adapters.saved_keys(model, gradients).items()}
    assert set(found) == {key for key in tensors if key.startswith("grad.")}, folder
    off = sum((value - tensors[key]).square().sum() for key, value in found.items())
    norm = sum(tensors[key].square().sum() for key in found)
    return (off / norm).sqrt().item()


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers.logging.disable_progress_bar()
    os.chdir(Path(__file__).resolve().parent.parent / "goldens")
    of_models = {spec.name: of_model(spec.name) for spec in models.MODELS + families.FAMILIES}
    all_adapters = adapters.ADAPTERS + methods.ADAPTERS + families.ADAPTERS
    of_adapters = {f"{spec.model}/{spec.name}": of_adapter(spec) for spec in all_adapters}
    write_json(Path("halves.json"), {"log_probs": of_models, "gradients": of_adapters})
