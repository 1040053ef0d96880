"""Sends runs to MLflow's own server on the loopback interface, and compares what it has with the runs' folders.

    cargo build --bin simmer
    python tests/reference/check_mlflow.py target/debug/simmer

One run is interrupted and resumed, and stays one run; one run meets no server, ends as always, and is sent later with
`simmer track`. Needs `mlflow`.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEP = ["loss", "learning_rate", "grad_norm", "epoch", "tokens_per_second", "peak_memory"]
SMALL = ["train.batch_size=2", "train.compare_rows=0", "train.max_steps=60", 'train.track=["tensorboard","mlflow"]']


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_server(folder: Path, port: int) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"]
    server = subprocess.Popen(command, cwd=folder, stdout=open(folder / "log", "w"), stderr=subprocess.STDOUT)
    for _ in range(240):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
            return server
        except OSError:
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.5)
    raise SystemExit("the server does not answer:\n" + (folder / "log").read_text())


def simmer(words: list[str], environment: dict, stop_after: int | None = None) -> tuple[int, str]:
    """Runs simmer; with `stop_after`, interrupts it when its run has so many lines of metrics. Exit code and messages."""
    process = subprocess.Popen([PROGRAM, *words], env=os.environ | environment, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    if stop_after:
        metrics = Path(words[words.index("--out") + 1]) / "metrics.jsonl"
        while not metrics.exists() or len(metrics.read_text().splitlines()) < stop_after:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
    messages = process.communicate()[1]
    return process.returncode, messages


def train(out: Path, environment: dict, **more) -> tuple[int, str]:
    sets = [word for value in SMALL for word in ("--set", value)]
    resume = ["--resume"] if more.pop("resume", False) else []
    return simmer(["train", "recipes/quickstart.toml", "--out", str(out), *sets, *resume], environment, **more)


def in_metrics(run: Path) -> dict:
    """The metrics of a run's folder: value and milliseconds, by name and step."""
    values = {}
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        named = {f"train/{key}": line[key] for key in STEP if key in line}
        if "validation_loss" in line:
            named = {"eval/loss": line["validation_loss"]}
        for name, value in named.items():
            values[name, line["step"]] = (value, round(line["time"] * 1000))
    return values


def on_server(client, run_id: str, names: set[str]) -> dict:
    """The same on the server; of a step that was done again after a resume, the later one."""
    values = {}
    for name in names:
        history = client.get_metric_history(run_id, name)
        for point in sorted(history, key=lambda point: point.timestamp):
            values[name, point.step] = (point.value, point.timestamp)
    return values


def compare(client, run: Path, status: str) -> str:
    """Compares a run's folder with the one run of its name on the server; its ID."""
    experiment = client.get_experiment_by_name("kitchen, simmer")
    found = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{run.name}'")
    assert len(found) == 1, found
    info, data = found[0].info, found[0].data
    assert info.status == status, info
    wanted = in_metrics(run)
    assert on_server(client, info.run_id, {name for name, _ in wanted}) == wanted
    recipe = tomllib.loads((run / "recipe.toml").read_text())
    assert data.params["train.batch_size"] == str(recipe["train"]["batch_size"])
    assert data.params["data.train.0.template"] == recipe["data"]["train"][0]["template"]
    assert data.tags["simmer.version"].startswith("0."), data.tags
    files = {file.path for file in client.list_artifacts(info.run_id)}
    assert {"recipe.toml", "manifest.json"} <= files, files
    if status == "FINISHED":
        assert {file.path for file in client.list_artifacts(info.run_id, "adapter")} >= {"adapter/README.md"}
    print(f"{run.name}: {len(wanted)} values, {len(data.params)} parameters: as on the server, {status}")
    return info.run_id


def check(folder: Path) -> None:
    from mlflow import MlflowClient

    port = free_port()
    address = f"http://127.0.0.1:{port}"
    environment = {"MLFLOW_TRACKING_URI": address + "/", "MLFLOW_EXPERIMENT_NAME": "kitchen, simmer"}
    late = folder / "late"
    code, messages = train(late, environment)
    assert code == 0 and (late / "adapter").is_dir(), messages
    assert messages.count("warning: MLflow") == 1 and f"simmer track {late}" in messages, messages
    server = start_server(folder / "server", port)
    try:
        client = MlflowClient(address)
        assert simmer(["track", str(late)], environment)[0] == 0
        compare(client, late, "FINISHED")
        assert simmer(["track", str(late), "--to", "mlflow"], environment)[0] == 0
        compare(client, late, "FINISHED")

        run = folder / "resumed"
        code, messages = train(run, environment, stop_after=12)
        assert code == 130 and "warning" not in messages.replace("warning: near", ""), messages
        first = compare(client, run, "KILLED")
        code, messages = train(run, environment, resume=True)
        assert code == 0, messages
        assert compare(client, run, "FINISHED") == first
    finally:
        server.terminate()
        server.wait()


PROGRAM = str(Path(sys.argv[1]).resolve())
FOLDER = Path(tempfile.mkdtemp(prefix="simmer-mlflow-"))
try:
    check(FOLDER)
finally:
    shutil.rmtree(FOLDER)
