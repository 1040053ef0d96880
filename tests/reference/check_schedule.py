#!/usr/bin/env python3
"""Compares simmer's learning rates with the log of a published run.

    tests/reference/check_schedule.py SIMMER TRAINER_STATE.json

TRAINER_STATE.json is the log of a LLaMA-7B run with transformers' Trainer (github.com/Kent0n-Li/ChatDoctor): 609 steps,
cosine schedule, warmup ratio 0.03, peak 2e-5. This script trains a tiny model for as many steps with the same schedule and
compares the learning rates in its metrics.jsonl, each within 1e-9, which is less than the last digit of the log.

The rate that the log has for a step is the rate of the next step.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-9


def main() -> None:
    simmer, log = sys.argv[1:]
    state = json.loads(Path(log).read_text())
    logged = {entry["step"]: entry["learning_rate"] for entry in state["log_history"] if "learning_rate" in entry}
    steps = state["max_steps"]
    settings = {
        "train.schedule.cosine.warmup_ratio": 0.03,
        "train.learning_rate": 2e-5,
        "train.epochs": 100000,
        "train.max_steps": steps,
        "train.batch_size": 1,
        "train.validate_every": "never",
        "train.checkpoint_every": "never",
        "data.validation.rows": 1,
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        command = [simmer, "train", "recipes/quickstart.toml", "--out", out, *sets]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["learning_rate"] for line in lines if "learning_rate" in line}
    compared = [step for step in logged if step + 1 in rates]
    worst = max(abs(logged[step] - rates[step + 1]) for step in compared)
    print(f"{len(compared)} of {steps} steps compared, largest difference {worst:.2e}")
    if len(compared) < steps - 1 or worst > TOLERANCE:
        sys.exit(1)


if __name__ == "__main__":
    main()
