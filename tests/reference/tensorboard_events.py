"""Generates tests/goldens/tensorboard/events: a small event file, written by the package tensorboard.

    pip install tensorboard
    python tests/reference/tensorboard_events.py

It has the same events as `lines()` in crates/train/src/tensorboard.rs.
"""

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

GOLDEN = Path(__file__).parent.parent / "goldens/tensorboard/events"


def scalars(time, step, **values):
    named = [Summary.Value(tag=tag.replace("__", "/"), simple_value=value) for tag, value in values.items()]
    return Event(wall_time=time, step=step, summary=Summary(value=named))


def step(number, **more):
    return scalars(
        1_700_000_000.125,
        number,
        train__loss=2.5,
        train__learning_rate=1e-4,
        train__grad_norm=0.75,
        train__epoch=0.25,
        train__tokens_per_second=80.0,
        **more,
    )


EVENTS = [
    Event(wall_time=1_700_000_000.0, file_version="brain.Event:2"),
    Event(wall_time=1_700_000_000.0, session_log=SessionLog(status=SessionLog.START)),
    step(1),
    step(127, train__peak_memory=3 << 30),
    scalars(1_700_000_001.0, 200, train__epoch=0.5),
    scalars(0.0, 70_000, eval__loss=0.0),
]

GOLDEN.parent.mkdir(parents=True, exist_ok=True)
with GOLDEN.open("wb") as file:
    writer = RecordWriter(file)
    for event in EVENTS:
        writer.write(event.SerializeToString(deterministic=True))
print(GOLDEN, GOLDEN.stat().st_size, "bytes")
