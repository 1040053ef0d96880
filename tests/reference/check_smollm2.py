"""Compares simmer with transformers and PEFT on a real model: SmolLM2-135M-Instruct in Hugging Face layout.

    python tests/reference/check_smollm2.py SIMMER MODEL DATA.json OUT [--steps 20] [--threads 1]

Runs smollm2.py, which writes the references into the folder OUT, and then simmer on the same model in f32 on the processor:

    the greedy answer to a question with the model's chat template: the same tokens
    the training steps, from the adapter as PEFT initialised it: the losses
    the log-probabilities of texts, of the base model and with PEFT's adapter
    the same with the adapter that simmer trained, loaded into PEFT

The exit code is 1 if a token differs, a loss by more than 1e-4, or a log-probability by more than 1e-3.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import smollm2  # first: it sets the environment of transformers
from check_adapter import load_strictly
from transformers import AutoTokenizer

RECIPE = """\
device = "cpu"

[base]
path = {model}
precision = "f32"

[method.lora]
from = {adapter}

[data]
train = [{{ path = {rows}, template = "alpaca-lora" }}]
max_tokens = 512
shuffle = false

[train]
max_steps = {steps}
batch_size = 4
learning_rate = 3e-4
schedule = "constant"
clip = {{ norm = 1.0 }}
"""


def run(program: Path, *args) -> str:
    return subprocess.run([program, *map(str, args)], check=True, stdout=subprocess.PIPE, text=True).stdout


def on_model(args, command: str, *rest) -> str:
    return run(args.simmer, command, "--base", args.model, "--precision", "f32", "--device", "cpu", "--json", *rest)


def apart(ours: list[float], theirs: list[float]) -> float:
    assert len(ours) == len(theirs), (len(ours), len(theirs))
    return max(abs(a - b) for a, b in zip(ours, theirs))


def answers_differ(args) -> bool:
    said = json.loads(on_model(args, "generate", "--chat", "--greedy", "--max-new-tokens", 64, "--prompt", smollm2.QUESTION))
    expected = json.loads((args.out / "chat.json").read_text())
    end = AutoTokenizer.from_pretrained(args.model).eos_token_id
    ids = [token for token in expected["ids"] if token != end]
    return (said["prompt_ids"], said["ids"]) != (expected["prompt_ids"], ids)


def scored(args, folder: Path, *adapter) -> list[dict]:
    texts = folder / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in smollm2.TEXTS))
    return [json.loads(line) for line in on_model(args, "score", *adapter, texts).splitlines()]


def scores_apart(ours: list[dict], theirs: list[dict]) -> float:
    assert [score["ids"] for score in ours] == [score["ids"] for score in theirs], "other tokens"
    return max(apart(a["logprobs"], b["logprobs"]) for a, b in zip(ours, theirs))


def train(args, folder: Path) -> list[float]:
    """Trains from PEFT's initial adapter; returns the losses. The adapter is in folder/run/adapter."""
    rows = folder / "rows.json"
    rows.write_text(json.dumps(json.loads(args.data.read_text())[: 4 * args.steps]))
    places = {"model": args.model.resolve(), "adapter": (args.out / "initial").resolve(), "rows": rows}
    quoted = {name: json.dumps(str(path)) for name, path in places.items()}
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(steps=args.steps, **quoted))
    run(args.simmer, "train", recipe, "--out", folder / "run")
    lines = (folder / "run/metrics.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("simmer", "model", "data", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.simmer = args.simmer.resolve()
    smollm2.write_references(args)

    def reference(name: str):
        return json.loads((args.out / name).read_text())

    differences = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        losses = train(args, folder)
        expected = [step["loss"] for step in reference("steps.json")["steps"]]
        differences.append(("losses of the steps", apart(losses, expected), 1e-4))
        base = scored(args, folder)
        differences.append(("log-probabilities of the base model", scores_apart(base, reference("scores.base.json")), 1e-3))
        trained = scored(args, folder, "--adapter", args.out / "trained")
        differences.append(("log-probabilities with PEFT's adapter", scores_apart(trained, reference("scores.json")), 1e-3))
        adapter = folder / "run/adapter"
        ours = scored(args, folder, "--adapter", adapter)
        in_peft = smollm2.scores(load_strictly(str(args.model), str(adapter)), AutoTokenizer.from_pretrained(args.model))
        differences.append(("log-probabilities with simmer's adapter", scores_apart(ours, in_peft), 1e-3))
    wrong = answers_differ(args)
    print(f"greedy answer: {'other tokens' if wrong else 'the same tokens'}")
    for what, difference, most in differences:
        print(f"{what}: {difference:.1e} apart (at most {most:.0e})")
        wrong |= not difference <= most
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
