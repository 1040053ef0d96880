"""LoRA training with PEFT on random tokens in rows of one length: what stages of `gpu` compare simmer with.

    python bench/long_peers.py MODE MODEL_DIR [--rows 2] [--tokens 4096] [--groups 4] [--steps 6] [--rank 16] [--device cpu]

Modes:
plain             PEFT, attention by torch's SDPA
compile           the same, by torch.compile
liger             with the kernels of liger-kernel
liger-checkpoint  the same, with gradient checkpointing
nf4               with a base in nf4 by bitsandbytes

LoRA on all linear modules, alpha twice the rank, the base in bf16 (on a processor f32), the adapter in the dtype
that PEFT creates it in (f32), AdamW (fused). A step is `--groups`
micro-batches of `--rows` rows. The last line of the output is JSON, with the keys of peers.py; if a package is missing, or
the device cannot run the mode, it has the key `skipped` with the reason.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import sys
import time
from statistics import median

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM

WARM_STEPS = 2
MODES = ["plain", "compile", "liger", "liger-checkpoint", "nf4"]
# The package that a mode needs: its module, and its name for pip.
NEEDED = {"liger": ("liger_kernel", "liger-kernel"), "liger-checkpoint": ("liger_kernel", "liger-kernel"), "nf4": ("bitsandbytes", "bitsandbytes")}


def missing(mode: str, device: str) -> str | None:
    """Why a mode cannot run here."""
    module, package = NEEDED.get(mode, (None, None))
    if module is None:
        return None
    if importlib.util.find_spec(module) is None:
        return f"{package} is not installed in {sys.executable}"
    if not device.startswith("cuda"):
        return f"{package} has kernels for GPUs only"
    return None


def load(args):
    mode = args.mode
    if mode.startswith("liger"):
        from liger_kernel.transformers import apply_liger_kernel_to_llama

        apply_liger_kernel_to_llama()
    # most processors have no bf16, and emulate it slowly
    dtype = torch.bfloat16 if args.device.startswith("cuda") else torch.float32
    options = {}
    if mode == "nf4":
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
        options["device_map"] = {"": args.device}
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation="sdpa", **options)
    if mode == "nf4":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    else:
        model.to(args.device)
    config = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    if mode == "liger-checkpoint":
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train()
    model.config.use_cache = False
    return model


def train(model, args) -> tuple[list[float], list[float]]:
    """Loss and tokens/s of every step."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-4, fused=True)
    forward = torch.compile(model) if args.mode == "compile" else model
    vocabulary = min(model.config.vocab_size, 1500)
    losses, rates = [], []
    for _ in range(args.steps):
        begin = time.perf_counter()
        total = 0.0
        for _ in range(args.groups):
            ids = torch.randint(5, vocabulary, (args.rows, args.tokens), device=args.device)
            loss = forward(input_ids=ids, labels=ids).loss / args.groups
            loss.backward()
            total += loss.detach()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(total))  # waits for the device
        rates.append(args.rows * args.tokens * args.groups / (time.perf_counter() - begin))
    return losses, rates


def versions(mode: str) -> dict:
    names = ["torch", "transformers", "peft", *([NEEDED[mode][1]] if mode in NEEDED else [])]
    return {name: importlib.metadata.version(name) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("model", metavar="MODEL_DIR")
    parser.add_argument("--rows", type=int, default=2, help="rows per micro-batch, default %(default)s")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens per row, default %(default)s")
    parser.add_argument("--groups", type=int, default=4, help="micro-batches per step, default %(default)s")
    parser.add_argument("--steps", type=int, default=6, help="number of steps, default %(default)s")
    parser.add_argument("--rank", type=int, default=16, help="rank of LoRA, default %(default)s")
    parser.add_argument("--device", default="cpu", help="device name in torch, default %(default)s")
    args = parser.parse_args()
    if args.steps <= WARM_STEPS:
        parser.error(f"--steps {args.steps}: expected more than {WARM_STEPS}")
    reason = missing(args.mode, args.device)
    if reason:
        print(json.dumps({"skipped": reason}))
        return
    torch.manual_seed(0)
    losses, rates = train(load(args), args)
    told = {
        "mode": args.mode,
        "tokens": args.rows * args.tokens * args.groups * args.steps,
        "steps": len(losses),
        "median_tokens_per_second": round(median(rates[WARM_STEPS:]), 1),
        "losses": losses,
        "versions": versions(args.mode),
    }
    if args.device.startswith("cuda"):
        told["peak_allocated_mib"] = round(torch.cuda.max_memory_allocated(args.device) / 2**20)
        told["peak_reserved_mib"] = round(torch.cuda.max_memory_reserved(args.device) / 2**20)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
