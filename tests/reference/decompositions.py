"""The decompositions that PiSSA and OLoRA start with, by torch.linalg: tests/goldens/decompositions.json.

    python tests/reference/decompositions.py

For each weight its largest singular values, and the parts of it that PEFT subtracts at rank r: of the singular value
decomposition, and of the QR decomposition. The parts do not depend on the signs of the vectors.
"""

from pathlib import Path

import torch

from files import write_json

OUT = Path(__file__).resolve().parent.parent / "goldens" / "decompositions.json"
SHAPES = [(19, 12, 4), (11, 26, 3), (8, 8, 8), (30, 9, 9)]


def case(rows: int, columns: int, rank: int) -> dict:
    # singular values that fall slowly, as those of a trained weight do
    left, right = (torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))[0] for n in (rows, columns))
    values = 0.5 + torch.rand(min(rows, columns), dtype=torch.float64).sort(descending=True)[0]
    weight = (left[:, : len(values)] * values @ right[: len(values)]).float()
    wide = weight.double()
    u, s, v = torch.linalg.svd(wide, full_matrices=False)
    q, r = torch.linalg.qr(wide)
    return {
        "shape": [rows, columns],
        "rank": rank,
        "weight": weight.flatten().tolist(),
        "values": s[:rank].tolist(),
        "principal": (u[:, :rank] * s[:rank] @ v[:rank]).flatten().tolist(),
        "qr": (q[:, :rank] @ r[:rank]).flatten().tolist(),
    }


if __name__ == "__main__":
    torch.manual_seed(5)
    write_json(OUT, [case(*shape) for shape in SHAPES])
