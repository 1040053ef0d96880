"""Starts the programs that `compare`, `decode` and `gpu` measure, and prints tables of results."""

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
    """Standard output and standard error of a command, its time, and its peak memory."""

    output: str
    messages: str
    seconds: float
    peak_rss_mib: float

    def json(self) -> dict:
        """The last line of the output."""
        return json.loads(self.output.splitlines()[-1])


def run(*command, limit: float | None = None, environment: dict[str, str] | None = None) -> Finished:
    """Runs a command for at most `limit` seconds, with `environment` added to the environment variables.

    If the command fails, this program exits too (SystemExit), with the end of the command's output.
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
            # tests report failures on standard output
            sys.exit(f"{output.read()[-4000:]}{messages.read()[-4000:]}{why}: {' '.join(words)}")
        unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
        return Finished(output.read(), messages.read(), seconds, usage.ru_maxrss * unit / 2**20)


def add_arguments(parser) -> None:
    """Adds the arguments that `compare` and `decode` have in common."""
    parser.add_argument("model", metavar="MODEL_DIR", help="folder of a Hugging Face checkpoint")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds, default %(default)s")
    parser.add_argument("--simmer", metavar="PATH", help="program to measure; default: build it in release mode")
    parser.add_argument("--python", default="python3", metavar="PATH", help="a Python with torch, transformers and peft, default %(default)s")


def simmer(path: str | None) -> Path:
    """The given program, or a fresh release build."""
    if path:
        return Path(path)
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "simmer"


def note(text: str) -> None:
    """Prints progress to standard error."""
    print(text, file=sys.stderr, flush=True)


def note_load() -> None:
    """Warns (on Linux) if other programs use the processors.

    Threads that wait for each other then lose more than the share of time that the others take.
    """
    if not PROCESSORS.exists():
        return

    def times() -> tuple[int, int]:
        user, nice, system, idle, io, *others = map(int, PROCESSORS.read_text().split("\n")[0].split()[1:9])
        return idle + io, user + nice + system + idle + io + sum(others)

    idle, total = times()
    time.sleep(1)
    idle, total = (after - before for after, before in zip(times(), (idle, total)))
    if idle < 0.9 * total:
        note(f"warning: other programs use {1 - idle / total:.0%} of this machine; the figures will be wrong")


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Prints a table. All columns but the first are right-aligned."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    for row in [head, *rows]:
        others = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))
        print("  ".join([row[0].ljust(widths[0]), *others]))
