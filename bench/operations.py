"""The operations of `cargo bench` in PyTorch: same shapes, f32, on the processor.

    python bench/operations.py [--threads 2] [--seconds 1]

`forward` computes the result. `backward` computes the result and then the gradients of the inputs; frozen weights have
none. Names, work and rates are as in crates/kernels/benches/kernels.rs: GFLOP/s for matrix multiplications and attention,
10^9 elements of the result per second for other operations. The time is the median over as many calls as fit into
--seconds.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from programs import print_table

# Tokens, hidden size, intermediate size, query heads, key heads, head_dim, vocabulary.
ROWS = [97, 128, 85, 130]
T, HIDDEN, INTERMEDIATE, HEADS, KEY_HEADS, DIM, VOCAB = sum(ROWS), 576, 1536, 9, 3, 64, 49152
RANK = 8
TARGETS = 256


@dataclass
class Operation:
    """A function of the inputs that get gradients, and its work: forward alone, and with the gradients."""

    name: str
    forward: int
    backward: int
    inputs: list[Tensor]
    compute: Callable[..., Tensor]


def weight(*shape: int) -> Tensor:
    """A weight with elements of the magnitude that trained models have."""
    return torch.randn(shape) * 0.05


def rms_norm() -> Operation:
    scale = torch.randn(HIDDEN)
    elements = T * HIDDEN
    return Operation(
        "rms_norm", elements, 2 * elements, [torch.randn(T, HIDDEN)], lambda x: F.rms_norm(x, (HIDDEN,), scale, 1e-5)
    )


def rope() -> Operation:
    """As in transformers."""
    angles = torch.randn(T, DIM // 2).repeat(1, 2)[:, None]  # [T, 1, D]
    cos, sin = angles.cos(), angles.sin()

    def rotate(x: Tensor) -> Tensor:
        low, high = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-high, low), dim=-1) * sin

    elements = T * HEADS * DIM
    return Operation("rope", elements, 2 * elements, [torch.randn(T, HEADS, DIM)], rotate)


def swiglu() -> Operation:
    elements = T * INTERMEDIATE
    inputs = [torch.randn(T, INTERMEDIATE), torch.randn(T, INTERMEDIATE)]
    return Operation("swiglu", elements, 2 * elements, inputs, lambda gate, up: F.silu(gate) * up)


def attention() -> Operation:
    """All rows in one call, with a block-diagonal causal mask."""
    row = torch.tensor([number for number, length in enumerate(ROWS) for _ in range(length)])
    mask = torch.ones(T, T, dtype=torch.bool).tril() & (row[:, None] == row[None, :])

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # [1, heads, T, D]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)

    product = 2 * sum(t * (t + 1) // 2 for t in ROWS) * HEADS * DIM
    inputs = [torch.randn(T, HEADS, DIM), torch.randn(T, KEY_HEADS, DIM), torch.randn(T, KEY_HEADS, DIM)]
    return Operation("attention", 2 * product, 6 * product, inputs, attend)


def linear(features: int, out: int) -> Operation:
    w = weight(out, features)
    product = 2 * T * features * out
    return Operation(
        f"linear f32 {features}x{out}", product, 2 * product, [torch.randn(T, features)], lambda x: F.linear(x, w)
    )


def lora_linear(out: int) -> Operation:
    w = weight(out, HIDDEN)
    product, low = 2 * T * HIDDEN * out, 2 * T * RANK * (HIDDEN + out)
    inputs = [torch.randn(T, HIDDEN), weight(RANK, HIDDEN), weight(out, RANK)]
    return Operation(
        f"lora_linear f32 {HIDDEN}x{out}",
        product + low,
        2 * product + 3 * low,
        inputs,
        lambda x, a, b: F.linear(x, w) + F.linear(F.linear(x, a), b) * 2.0,
    )


def linear_cross_entropy() -> Operation:
    w = weight(VOCAB, HIDDEN)
    targets = torch.randint(VOCAB, (TARGETS,))
    product = 2 * TARGETS * HIDDEN * VOCAB
    return Operation(
        "linear_cross_entropy f32",
        product,
        2 * product,
        [torch.randn(TARGETS, HIDDEN)],
        lambda hidden: F.cross_entropy(F.linear(hidden, w), targets, reduction="sum"),
    )


def seconds(call: Callable[[], object], least: float) -> float:
    """The median time of a call."""
    for _ in range(3):
        call()
    times: list[float] = []
    end = time.perf_counter() + least
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return median(times)


def rows(operation: Operation, least: float) -> list[list[str]]:
    """The two table rows of an operation."""
    leaves = [x.requires_grad_() for x in operation.inputs]
    ones = torch.ones_like(operation.compute(*leaves))

    def forward() -> None:
        with torch.no_grad():
            operation.compute(*leaves)

    def backward() -> None:
        torch.autograd.grad(operation.compute(*leaves), leaves, ones)

    table = []
    for name, call, work in [("forward", forward, operation.forward), ("backward", backward, operation.backward)]:
        took = seconds(call, least)
        table.append([f"{operation.name}/{name}", f"{took * 1e3:.3f}", f"{work / took / 1e9:.2f}"])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="number of threads, default %(default)s")
    parser.add_argument("--seconds", type=float, default=1.0, help="time per figure, default %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    operations = [rms_norm(), rope(), swiglu(), attention()]
    shapes = [(HIDDEN, HIDDEN), (HIDDEN, KEY_HEADS * DIM), (HIDDEN, INTERMEDIATE), (INTERMEDIATE, HIDDEN)]
    operations += [linear(features, out) for features, out in shapes]
    operations += [lora_linear(out) for out in (HIDDEN, KEY_HEADS * DIM)]
    operations.append(linear_cross_entropy())
    table = [row for operation in operations for row in rows(operation, args.seconds)]
    print_table([f"torch {torch.__version__}, {args.threads} threads", "ms", "GFLOP/s"], table)


if __name__ == "__main__":
    main()
