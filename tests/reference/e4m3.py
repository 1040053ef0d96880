"""Writes `e4m3.txt`: rows of numbers in torch's e4m3 with a scale each, and products of such rows.

    python tests/reference/e4m3.py      torch 2.9 on the processor

A line has a name and its numbers; those in f32 are written as their bits, so that nothing is lost. The first rows reach 448, so that their scale is 1
and their codes are those of torch's own conversion: all codes' values, the middles between neighbours (ties), and numbers next to
the middles.
"""

from pathlib import Path

import torch

GOLDEN = Path(__file__).parents[1] / "goldens" / "e4m3.txt"
LARGEST, LEAST = 448.0, 1e-30
COLUMNS = 64


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.int32)


def quantised(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales of rows."""
    most = x.abs().amax(1, keepdim=True).clamp_min(LEAST)
    codes = (x * (LARGEST / most)).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    return codes, most * torch.tensor(1.0 / LARGEST)


def exact_rows() -> torch.Tensor:
    """Numbers of e4m3, middles between them, and numbers beside those, with 448 in each row."""
    codes = torch.arange(0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    middles = (codes[:-1] + codes[1:]) / 2
    beside = [middles.view(torch.int32) + step for step in (-1, 1)]
    numbers = torch.cat([codes, middles, *(of.view(torch.float32) for of in beside)])
    signs = torch.where(torch.arange(len(numbers)) % 3 == 0, -1.0, 1.0)
    rows = -(-len(numbers) // (COLUMNS - 1))
    padded = torch.zeros(rows * (COLUMNS - 1))
    padded[: len(numbers)] = numbers * signs
    return torch.cat([padded.view(rows, -1), torch.full((rows, 1), LARGEST)], 1)


def main() -> None:
    torch.manual_seed(5)
    sizes = torch.tensor([1.0, 1e-6, 3e4, 1e-20, 1e-35, 0.0]).view(-1, 1)
    drawn = torch.randn(len(sizes), COLUMNS) * sizes
    x = torch.cat([exact_rows(), drawn])
    codes, scales = quantised(x)
    a, b = torch.randn(5, COLUMNS), torch.randn(4, COLUMNS)
    (a8, of_a), (b8, of_b) = quantised(a), quantised(b)
    # the codes' products are exact in f64
    product = (a8.double() @ b8.double().T) * of_a.double() * of_b.double().T
    lines = {
        "x": bits(x),
        "codes": codes.view(torch.uint8),
        "scales": bits(scales),
        "a": bits(a),
        "b": bits(b),
        "product": product,
    }
    with GOLDEN.open("w", encoding="utf-8") as file:
        for name, numbers in lines.items():
            print(name, *numbers.flatten().tolist(), file=file)


if __name__ == "__main__":
    main()
