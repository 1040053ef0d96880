"""Reads the event files of runs with the package tensorboard, and compares them with the runs' metrics.jsonl files.

    pip install -r tests/reference/requirements.txt
    python tests/reference/check_tensorboard.py runs/quickstart...

Every scalar must exist once, with its step and time. Values must be equal after rounding to f32, the dtype of events.
"""

import json
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

STEP = ["loss", "learning_rate", "grad_norm", "epoch", "tokens_per_second", "peak_memory"]


def f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def expected(run):
    """The scalars in the metrics: (time, step, value) for each tag."""
    tags = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(line)
        if "validation_loss" in line:
            named = {"eval/loss": line["validation_loss"]}
        else:
            named = {f"train/{key}": line[key] for key in STEP if key in line}
        for tag, value in named.items():
            tags.setdefault(tag, []).append((line["time"], line["step"], f32(value)))
    return tags


def found(run):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    of = lambda tag: [(event.wall_time, event.step, event.value) for event in events.Scalars(tag)]
    return {tag: of(tag) for tag in events.Tags()["scalars"]}


def check(run):
    files = [file for file in (run / "tensorboard").glob("events.out.tfevents.*") if file.stat().st_size > 0]
    assert len(files) == 1, files  # files of interrupted processes are empty
    in_metrics, in_events = expected(run), found(run)
    assert in_metrics.keys() == in_events.keys(), (in_metrics.keys(), in_events.keys())
    for tag, values in in_metrics.items():
        assert values == in_events[tag], tag
    count = sum(map(len, in_metrics.values()))
    print(f"{run}: {count} scalars under {len(in_metrics)} tags equal metrics.jsonl")


for run in sys.argv[1:]:
    check(Path(run))
