"""Device and versions of a machine, and the rates of its bf16 matrix multiplications and its memory: the first measurement
of `gpu`.

    python bench/gpu_facts.py [--device cuda:0]

The last line is JSON. `bf16_tflops` is the rate of multiplying square bf16 matrices of random numbers: the best of several
sizes, each the median of several timings. No other program should be faster on this machine.
`memory_gb_per_second` is the rate of copying, with the bytes that are read and those that are written.
"""

import argparse
import json
import platform
import subprocess
import time
from statistics import median

import peft
import torch
import transformers

TIMINGS = 7
REPEATED = 10


def seconds(a: torch.Tensor, b: torch.Tensor, repeated: int) -> float:
    """Mean time of a multiplication, over several in a row."""
    begin = time.perf_counter()
    for _ in range(repeated):
        product = a @ b
    product[0, 0].item()  # waits for the device
    return (time.perf_counter() - begin) / repeated


def rate(device: str, size: int, repeated: int) -> float:
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds(a, b, repeated)
    return 2 * size**3 / median(seconds(a, b, repeated) for _ in range(TIMINGS)) / 1e12


def memory_rate(device: str, size: int, repeated: int) -> float:
    """GB/s of copying `size` bytes."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def once() -> float:
        begin = time.perf_counter()
        for _ in range(repeated):
            target.copy_(source)
        target[0].item()  # waits for the device
        return (time.perf_counter() - begin) / repeated

    once()
    return 2 * size / median(once() for _ in range(TIMINGS)) / 1e9


def driver() -> str | None:
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.check_output(asked, text=True).split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="device name in torch, default %(default)s")
    device = parser.parse_args().device
    is_gpu = device.startswith("cuda")
    sizes, repeated = ([4096, 8192, 16384], REPEATED) if is_gpu else ([256], 1)
    found = {
        "device": torch.cuda.get_device_name(device) if is_gpu else platform.machine(),
        "memory_mib": torch.cuda.get_device_properties(device).total_memory >> 20 if is_gpu else None,
        "driver": driver(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "memory_gb_per_second": round(memory_rate(device, (4 << 30) if is_gpu else (16 << 20), repeated), 1),
        "bf16_tflops": round(max(rate(device, size, repeated) for size in sizes), 3),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
