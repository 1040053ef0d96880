"""The stage `ranks` of `gpu`: several ranks whose GPUs NCCL connects."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from programs import run

from gpu_bench import Bench, Skip

STEPS = 20
# The largest relative difference of a loss: NCCL adds in another order.
TOLERANCE = 1e-3


def gpus() -> int:
    """The number of GPUs that nvidia-smi lists."""
    try:
        return subprocess.check_output(["nvidia-smi", "-L"], text=True).count("GPU ")
    except (OSError, subprocess.CalledProcessError):
        return 0


def library(folder: Path) -> Path | None:
    """NCCL, beside the libraries of torch: in the wheel nvidia-nccl."""
    found = sorted(folder.parents[1].glob("nvidia/nccl/lib/libnccl.so.2"))
    return found[0] if found else None


def one_rank(bench: Bench, environment: dict[str, str]) -> int:
    """The tests of NCCL in crates/kernels, which connect a GPU where there is one; returns how many passed."""
    command = (bench.args.kernels, "nccl::tests")
    lines = run(*command, limit=bench.left(), environment=environment).output.splitlines()
    passed = sum(line.startswith("test ") and line.endswith("ok") for line in lines)
    if passed == 0:
        sys.exit(f"{bench.args.kernels}: no test of NCCL ran")
    return passed


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "grad_norm" in line]


def trained(bench: Bench, environment: dict[str, str], ranks: int, out: Path) -> str:
    """Trains the quickstart as torchrun would start it; returns the messages of rank 0."""
    sets = ["train.micro_batch_tokens=100", f"train.max_steps={STEPS}"]
    words = [str(bench.args.simmer), "train", "--device", "libtorch-cuda:0", "--out", str(out)]
    for key in sets:
        words += ["--set", key]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank in range(ranks):
        variables = {"WORLD_SIZE": ranks, "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        variables = {name: str(value) for name, value in variables.items()}
        running.append(subprocess.Popen(words, env={**os.environ, **environment, **variables}, text=True, stderr=subprocess.PIPE))
    said = [process.communicate(timeout=bench.left())[1] for process in running]
    for rank, process in enumerate(running):
        if process.returncode != 0:
            sys.exit(f"rank {rank} of {ranks} failed:\n{said[rank]}")
    return said[0]


def ranks(bench: Bench) -> dict:
    """One rank through NCCL; with two GPUs two ranks, which must have the losses of one."""
    if bench.gpu is None:
        raise Skip("NCCL connects GPUs")
    environment = bench.simmer_environment()
    if nccl := library(bench.args.libtorch):
        environment["SIMMER_NCCL"] = str(nccl)
    found = {"tests": one_rank(bench, environment), "gpus": gpus()}
    if found["gpus"] < 2:
        print("two ranks: not run, there is one GPU", flush=True)
        return {**found, "two_ranks": "not run: one GPU"}
    with bench.place() as folder:
        trained(bench, environment, 1, folder / "one")
        said = trained(bench, environment, 2, folder / "two")
        if "NCCL" not in said or "main memory" in said:
            sys.exit(f"two ranks did not use NCCL:\n{said}")
        one, two = losses(folder / "one"), losses(folder / "two")
    if len(one) != len(two) or not one:
        sys.exit(f"one rank has {len(one)} steps, two have {len(two)}")
    difference = max(abs(b / a - 1) for a, b in zip(one, two))
    print(f"two ranks: losses of {len(one)} steps differ by {difference:.1e} at most", flush=True)
    if difference > TOLERANCE:
        sys.exit(f"the losses of two ranks differ by {difference:.1e}, expected at most {TOLERANCE:g}")
    return {**found, "two_ranks": {"steps": len(one), "largest_difference": difference}}
