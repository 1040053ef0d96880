"""Loads a folder in Meta's layout with PyTorch and compares it with the same model in Hugging Face's layout.

    python tests/reference/check_meta.py META_FOLDER HF_FOLDER_OR_SAFETENSORS

The files are loaded with `weights_only=True`, both into memory and memory-mapped, and the checksums of the archives are
checked. The exit code is 1 if a tensor is missing, unexpected, or differs in any bit.
"""

import json
import sys
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file

import meta


def load_parts(folder: Path) -> list[dict[str, torch.Tensor]]:
    parts = []
    for file in sorted(folder.glob("consolidated.*.pth")):
        wrong = zipfile.ZipFile(file).testzip()
        if wrong:
            raise SystemExit(f"{file}: {wrong}: the checksum does not match")
        part = torch.load(file, weights_only=True)
        mapped = torch.load(file, weights_only=True, mmap=True)
        for name in part.keys() | mapped.keys():
            if not torch.equal(part[name], mapped[name]):
                raise SystemExit(f"{file}: {name} differs if it is memory-mapped")
        parts.append(part)
    return parts


def joined(parts: list[dict[str, torch.Tensor]], params: dict) -> dict[str, torch.Tensor]:
    """The whole model, with Hugging Face's names."""
    embedding_split = 0 if parts[0]["tok_embeddings.weight"].shape[1] == params["dim"] else 1
    names = meta.names(params["n_layers"], embedding_split)
    for number, part in enumerate(parts):
        wrong = (part.keys() - {"rope.freqs"}) ^ names.keys()
        if wrong:
            raise SystemExit(f"part {number}: missing or unexpected tensors: {sorted(wrong)}")
    tensors = {}
    for name, (other, split) in names.items():
        cuts = [part[name] for part in parts]
        if split is None and any(not torch.equal(cuts[0], cut) for cut in cuts):
            raise SystemExit(f"{name} differs between parts")
        weight = cuts[0] if split is None else torch.cat(cuts, dim=split)
        heads = meta.heads_of(name, params)
        tensors[other] = meta.to_halves(weight, heads) if heads else weight
    return tensors


def main() -> None:
    folder, other = Path(sys.argv[1]), Path(sys.argv[2])
    params = json.loads((folder / "params.json").read_text())
    found = joined(load_parts(folder), params)
    expected = {}
    for file in sorted(other.glob("*.safetensors")) if other.is_dir() else [other]:
        expected |= load_file(file)
    expected = {name: tensor for name, tensor in expected.items() if not name.endswith("rotary_emb.inv_freq")}
    expected.setdefault("lm_head.weight", expected["model.embed_tokens.weight"])
    for name in sorted(found.keys() | expected.keys()):
        if name not in found or name not in expected:
            raise SystemExit(f"{name} is in only one of the two models")
        if found[name].dtype != expected[name].dtype or not torch.equal(found[name], expected[name]):
            raise SystemExit(f"{name} differs")
    print(f"{folder}: all {len(found)} tensors are equal")


if __name__ == "__main__":
    main()
