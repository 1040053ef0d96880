"""Generates tests/goldens/inspect.json: measures of the adapters' updates s·B·A, by NumPy on full matrices in f64.

    python tests/reference/inspect_adapters.py
"""

import json
import math
import re
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

GOLDENS = Path(__file__).resolve().parent.parent / "goldens"
PAIRS = [
    ("tied-gqa/adapters/qkvo", "tied-gqa/adapters/rslora"),
    ("tied-gqa/adapters/init", "tied-gqa/adapters/qkvo"),
    ("untied-mha/adapters/all-linear", "untied-mha/adapters/saved-head"),
]


def number(value: float) -> float:
    return float(f"{value:.14g}")


def factors(folder: Path) -> dict[str, tuple[float, np.ndarray, np.ndarray]]:
    """Module -> scale, A and B in f64."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = {key: value.double().numpy() for key, value in load_file(folder / "adapter_model.safetensors").items()}
    found = {}
    for key, a in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        alpha = config["lora_alpha"]
        for pattern, value in config["alpha_pattern"].items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = value
                break
        rank = a.shape[0]
        scale = alpha / math.sqrt(rank) if config["use_rslora"] else alpha / rank
        found[module] = (scale, a, tensors[key.replace("lora_A", "lora_B")])
    return found


def inspected(folder: Path) -> dict:
    modules = {}
    for module, (scale, a, b) in factors(folder).items():
        values = np.linalg.svd(scale * b @ a, compute_uv=False)[: len(a)]
        if values[0] > 0:
            shares = values / values.sum()
            shares = shares[shares > 0]
            effective, stable = np.exp(-(shares * np.log(shares)).sum()), (values**2).sum() / values[0] ** 2
        else:
            effective = stable = 0.0
        modules[module] = {
            "scale": number(scale),
            "norm_a": number(np.linalg.norm(a)),
            "norm_b": number(np.linalg.norm(b)),
            "singular_values": [number(value) for value in values],
            "effective_rank": number(effective),
            "stable_rank": number(stable),
        }
    return modules


def basis(matrix: np.ndarray) -> np.ndarray:
    left, values, _ = np.linalg.svd(matrix)
    return left[:, : int((values > values[0] * max(matrix.shape) * np.finfo(float).eps).sum())]


def compared(first: Path, second: Path) -> dict:
    one, two = factors(first), factors(second)
    modules = {}
    for module in one.keys() & two.keys():
        updates = [scale * b @ a for scale, a, b in (one[module], two[module])]
        norms = [np.linalg.norm(update) for update in updates]
        found = {"distance": number(np.linalg.norm(updates[0] - updates[1]) / max(norms))}
        if min(norms) > 0:
            found["cosine"] = number((updates[0] * updates[1]).sum() / (norms[0] * norms[1]))
            for name, sides in (("outputs", updates), ("inputs", [update.T for update in updates])):
                first_basis, second_basis = map(basis, sides)
                cosines = np.linalg.svd(first_basis.T @ second_basis, compute_uv=False).clip(0, 1)
                found[name] = [number(cosine) for cosine in cosines]
        modules[module] = found
    return dict(sorted(modules.items()))


def main() -> None:
    folders = sorted(path.parent for path in GOLDENS.glob("*/adapters/*/adapter_config.json"))
    adapters = [path for path in folders if json.loads((path.parents[1] / "config.json").read_text())["model_type"] == "llama"]
    modules = {str(folder.relative_to(GOLDENS)): inspected(folder) for folder in adapters}
    golden = {
        "adapters": {name: found for name, found in modules.items() if found},  # some have no low-rank branch
        "pairs": [{"first": a, "second": b, "modules": compared(GOLDENS / a, GOLDENS / b)} for a, b in PAIRS],
    }
    path = GOLDENS / "inspect.json"
    path.write_text(json.dumps(golden, indent=0) + "\n")
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
