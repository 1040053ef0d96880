"""Starts the programs that `compare`, `decode` and `gpu` measure, and prints what they measured."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROCESSORS = Path("/proc/stat")


@dataclass
class Finished:
    """What a command printed, what it said beside that, how long it took and the most memory that it held."""

    output: str
    messages: str
    seconds: float
    peak_rss_mib: float

    def json(self) -> dict:
        """The last line of the output."""
        return json.loads(self.output.splitlines()[-1])


def run(*command, limit: float | None = None, environment: dict[str, str] | None = None) -> Finished:
    """Runs a command to its end, `limit` seconds at most, with further variables in its environment.

    One that fails ends this program too (SystemExit), with what it said.
    """
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as messages:
        begin = time.perf_counter()
        variables = {**os.environ, **(environment or {})}
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=messages, env=variables)
        end = threading.Timer(limit or 0, os.kill, (process.pid, signal.SIGKILL))
        if limit is not None:
            end.start()
        _, status, usage = os.wait4(process.pid, 0)
        end.cancel()
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        messages.seek(0)
        if process.returncode != 0:
            why = "failed" if limit is None or seconds < limit else f"stopped after {limit:.0f} s"
            # what tests have to say is in their output
            sys.exit(f"{output.read()[-4000:]}{messages.read()[-4000:]}{why}: {' '.join(words)}")
        unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
        return Finished(output.read(), messages.read(), seconds, usage.ru_maxrss * unit / 2**20)


def add_arguments(parser) -> None:
    """The arguments that `compare` and `decode` share."""
    parser.add_argument("model", metavar="MODEL_DIR", help="folder of a Hugging Face checkpoint")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--simmer", metavar="PATH", help="program to measure, instead of building it in release mode")
    parser.add_argument("--python", default="python3", metavar="PATH", help="one that has torch, transformers and peft")


def simmer(path: str | None) -> Path:
    """The given program, or else the release build, built anew."""
    if path:
        return Path(path)
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "simmer"


def note(text: str) -> None:
    """Says how far it is."""
    print(text, file=sys.stderr, flush=True)


def note_load() -> None:
    """Warns where others compute (on Linux): threads that wait for each other suffer more than their share."""
    if not PROCESSORS.exists():
        return

    def times() -> tuple[int, int]:
        user, nice, system, idle, io, *others = map(int, PROCESSORS.read_text().split("\n")[0].split()[1:9])
        return idle + io, user + nice + system + idle + io + sum(others)

    idle, total = times()
    time.sleep(1)
    idle, total = (after - before for after, before in zip(times(), (idle, total)))
    if idle < 0.9 * total:
        note(f"warning: others use {1 - idle / total:.0%} of this machine; the figures will be wrong")


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as they need to be; all but the first to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    for row in [head, *rows]:
        others = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))
        print("  ".join([row[0].ljust(widths[0]), *others]))
