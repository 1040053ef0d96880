"""Compares training on quantised weights with PEFT, on data/tiny-base.

    python tests/reference/check_qlora.py SIMMER [MODEL] [--gguf FILE]

nf4: `simmer convert --quantize nf4` makes a folder of bitsandbytes. PEFT trains ten steps on it with bitsandbytes' processor
backend, and simmer from PEFT's initial adapter: the logits of the start, the losses and the trained adapters are compared.

GGUF: simmer trains on a file whose rows of q and k are permuted and quantised. The adapter is loaded into PEFT on the Hugging Face
folder that the file is widened into: the log-probabilities are compared. FILE, else the model in Q8_0.

The exit code is 1 if losses or log-probabilities differ by more than 1e-3, or adapters by more than 1e-3 of their norm.
Needs `bitsandbytes` beside the packages of requirements.txt.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import smollm2
import training
from check_adapter import compare, load_strictly

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "data/kitchen/instructions.json"
STEPS, BATCH, RATE = 10, 4, 3e-4
LIMIT = 1e-3
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RECIPE = """\
device = "cpu"

[base]
path = {base}

[method.lora]
{lora}

[data]
train = [{{ path = {data}, template = "alpaca-lora", format = "alpaca" }}]
max_tokens = 512
shuffle = false

[train]
max_steps = {steps}
batch_size = {batch}
learning_rate = {rate}
schedule = "constant"
optimizer = {{ adamw = {{ beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01, decay = "all" }} }}
clip = "none"
checkpoint_every = "never"
compare_rows = 0
"""


def simmer(program: str, *arguments) -> str:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"simmer {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def train(program: str, folder: Path, base: Path, lora: str) -> list[float]:
    """Trains in `folder`/run, and returns the losses."""
    recipe = folder / "recipe.toml"
    quoted = {"base": json.dumps(str(base)), "data": json.dumps(str(DATA))}
    recipe.write_text(RECIPE.format(**quoted, lora=lora, steps=STEPS, batch=BATCH, rate=RATE))
    simmer(program, "train", recipe, "--out", folder / "run")
    metrics = map(json.loads, (folder / "run/metrics.jsonl").read_text().splitlines())
    return [step["loss"] for step in metrics if "tokens_per_second" in step]


def check_nf4(program: str, model: Path, folder: Path) -> bool:
    # in f32, so that bitsandbytes computes in f32 too
    simmer(program, "convert", model, folder / "plain", "--dtype", "f32")
    base = folder / "nf4"
    simmer(program, "convert", folder / "plain", base, "--quantize", "nf4")
    torch.manual_seed(0)
    peft = AutoModelForCausalLM.from_pretrained(base, device_map="cpu", dtype=torch.float32, attn_implementation="eager")
    config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=MODULES, task_type="CAUSAL_LM")
    peft = get_peft_model(peft, config).train()
    peft.save_pretrained(folder / "initial")
    ours = train(program, folder, base, f"from = {json.dumps(str(folder / 'initial'))}")
    tokenizer = AutoTokenizer.from_pretrained(base)
    examples = [smollm2.encode(row, tokenizer) for row in json.loads(DATA.read_text())[: STEPS * BATCH]]
    settings = training.Settings(RATE, "constant", 0, STEPS, BATCH, weight_decay=0.01, max_grad_norm=None)
    theirs = [step["loss"] for step in training.run(peft, examples, settings)["steps"]]
    peft.save_pretrained(folder / "trained")
    losses = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    theirs, ours = (load_file(path / "adapter_model.safetensors") for path in (folder / "trained", folder / "run/adapter"))
    assert theirs.keys() == ours.keys(), theirs.keys() ^ ours.keys()
    square = sum(float(((theirs[key] - ours[key]) ** 2).sum()) for key in theirs)
    norm = sum(float((tensor**2).sum()) for tensor in theirs.values())
    adapters = (square / norm) ** 0.5
    print(f"nf4, {STEPS} steps: losses differ by at most {losses:.1e}, adapters by {adapters:.1e} of their norm")
    return max(losses, adapters) <= LIMIT


def check_gguf(program: str, model: Path, file: Path | None, folder: Path) -> None:
    folder.mkdir()
    if file is None:
        file = folder / "model.gguf"
        simmer(program, "convert", model, file, "--quantize", "q8_0")
    widened = folder / "widened"
    simmer(program, "convert", file, widened, "--dtype", "f32")
    losses = train(program, folder, file, 'rank = 8\nalpha = 16\ntargets = "all-linear"')
    texts = [row["instruction"] + " " + row["output"] for row in json.loads(DATA.read_text())[:5]]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    adapter = folder / "run/adapter"
    scores = simmer(program, "score", "--base", file, "--adapter", adapter, "--json", folder / "texts.jsonl")
    (folder / "scores.json").write_text(scores)
    print(f"{file.name}: losses {losses[0]:.4f} to {losses[-1]:.4f}; PEFT on the widened folder:")
    compare(load_strictly(str(widened), str(adapter)), str(folder / "scores.json"), LIMIT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simmer")
    parser.add_argument("model", nargs="?", type=Path, default=ROOT / "data/tiny-base")
    parser.add_argument("--gguf", metavar="FILE", type=Path)
    args = parser.parse_args()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        equal = check_nf4(args.simmer, args.model, folder)
        check_gguf(args.simmer, args.model, args.gguf, folder / "gguf")
    if not equal:
        sys.exit(f"more than {LIMIT}")


if __name__ == "__main__":
    main()
