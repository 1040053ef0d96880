"""Two adapters of tied-gqa combined by PEFT's add_weighted_adapter: tests/goldens/combined.safetensors.

    python tests/reference/combining.py

For each method the update of some modules, before truncation (the rank is the shorter side, 24; PEFT fails beyond it). Of the methods that work on A and
B apart PEFT has no exact form but those in `_svd`; `cat` and `svd` are sums. `dare_*` is random and not here.
"""

from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

BASE = Path(__file__).resolve().parent.parent / "goldens" / "tied-gqa"
MODULES = ["model.layers.1.self_attn.k_proj", "model.layers.0.self_attn.v_proj"]
METHODS = {
    "cat": {"combination_type": "cat"},
    "svd": {"combination_type": "svd"},
    "ties": {"combination_type": "ties_svd", "density": 0.4},
    "ties_frequency": {"combination_type": "ties_svd", "density": 0.4, "majority_sign_method": "frequency"},
    "magnitude_prune": {"combination_type": "magnitude_prune_svd", "density": 0.3},
}
WEIGHTS = {"both": [0.7, 0.4], "less": [1.0, -0.5]}

if __name__ == "__main__":
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, BASE / "adapters" / "qkvo", adapter_name="qkvo")
    model.load_adapter(BASE / "adapters" / "rslora", adapter_name="rslora")
    tensors = {}
    for sign, weights in WEIGHTS.items():
        for name, settings in METHODS.items():
            combined = f"{sign}_{name}"
            rank = {} if name == "cat" else {"svd_rank": 24}
            model.add_weighted_adapter(["qkvo", "rslora"], weights, combined, **settings, **rank)
            for module in MODULES:
                delta = model.get_submodule(f"base_model.model.{module}").get_delta_weight(combined)
                tensors[f"{sign}.{name}.{module}"] = delta.detach().contiguous()
    save_file(tensors, BASE.parent / "combined.safetensors")
