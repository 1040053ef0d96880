"""Sends a run's folder with `wandb sync` to a server on the loopback interface, and compares what arrives with the run.

    cargo build --bin simmer
    python tests/reference/check_wandb.py target/debug/simmer

The folder is read by W&B's own program; the server answers only as much as that needs. Needs `wandb`.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).resolve().parents[2]
STEP = ["loss", "learning_rate", "grad_norm", "epoch", "tokens_per_second", "peak_memory"]
SMALL = ["train.batch_size=2", "train.compare_rows=0", "train.max_steps=60", 'train.track=["wandb"]']

received = {"history": [], "summary": {}, "config": {}, "names": set(), "complete": [], "exit": []}


class Server(ThreadingHTTPServer):
    def handle_error(self, *_) -> None:
        pass  # a connection that wandb has closed


class Wandb(BaseHTTPRequestHandler):
    """As much of W&B's server as `wandb sync` asks."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def reply(self, answer: dict) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def do_GET(self) -> None:
        self.reply({})

    def do_PUT(self) -> None:
        self.body()
        self.reply({})

    def do_POST(self) -> None:
        body = self.body()
        if "/otel/" in self.path:
            return self.reply({})
        body = json.loads(body)
        if "graphql" in self.path:
            return self.reply({"data": self.graphql(body["query"], body.get("variables") or {})})
        for name, part in body.get("files", {}).items():
            if name == "wandb-history.jsonl":
                lines = received["history"]
                assert part["offset"] == len(lines), (part["offset"], len(lines))
                lines.extend(map(json.loads, part["content"]))
            if name == "wandb-summary.json":
                received["summary"] = json.loads(part["content"][-1])
        if body.get("complete"):
            received["complete"].append(True)
            received["exit"].append(body.get("exitcode"))
        self.reply({})

    def graphql(self, query: str, variables: dict) -> dict:
        if "upsertBucket" in query:
            if variables.get("config"):
                received["config"] = json.loads(variables["config"])
            received["names"].add((variables.get("name"), variables.get("displayName"), variables.get("project")))
            project = {"id": "P", "name": variables.get("project"), "entity": {"id": "E", "name": "me"}}
            bucket = {"id": "B", "name": variables.get("name"), "displayName": variables.get("displayName")}
            bucket |= {"historyLineCount": 0, "project": project, "config": None, "sweepName": None}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "createRunFiles" in query:
            address = "http://%s:%d/upload/" % self.server.server_address
            files = [{"name": name, "uploadUrl": address + name} for name in variables["files"]]
            return {"createRunFiles": {"runID": "B", "uploadHeaders": [], "files": files}}
        return {"viewer": {"id": "V", "entity": "me"}, "serverInfo": {"features": []}, "model": {"bucket": None}}


def expected(run: Path) -> list[dict]:
    lines = []
    for place, line in enumerate(map(json.loads, (run / "metrics.jsonl").read_text().splitlines())):
        values = {f"train/{key}": line[key] for key in STEP if key in line}
        if "validation_loss" in line:
            values = {"eval/loss": line["validation_loss"]}
        lines.append(values | {"train/global_step": line["step"], "_step": place, "_timestamp": line["time"]})
    return lines


def check(folder: Path) -> None:
    server = Server(("127.0.0.1", 0), Wandb)
    Thread(target=server.serve_forever, daemon=True).start()
    environment = os.environ | {
        "WANDB_BASE_URL": "http://127.0.0.1:%d" % server.server_address[1],
        "WANDB_API_KEY": "0" * 40,
        "WANDB_PROJECT": "kitchen",
        "HOME": str(folder),
    }
    run = folder / "run"
    sets = [word for value in SMALL for word in ("--set", value)]
    words = [sys.argv[1], "train", "recipes/quickstart.toml", "--out", str(run), *sets]
    done = subprocess.run(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    (synced,) = (run / "wandb").iterdir()
    assert f"wandb sync {synced}" in done.stderr, done.stderr
    sync = [str(Path(sys.executable).with_name("wandb")), "sync", str(synced)]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(sync, cwd=folder, env=environment, **output)
    assert done.returncode == 0 and "Finished syncing" in done.stdout, done.stdout

    wanted = expected(run)
    found = [{key: value for key, value in line.items() if key != "_runtime"} for line in received["history"]]
    assert found == wanted, (found[:2], wanted[:2])
    last = {key: value for line in wanted for key, value in line.items()}
    assert {key: received["summary"].get(key) for key in last} == last, received["summary"]
    assert received["config"]["train"]["value"]["batch_size"] == 2, received["config"]
    (identity,) = {name for name in received["names"] if name[1]}
    assert identity == (synced.name.rsplit("-", 1)[1], "run", "kitchen"), identity
    assert received["complete"] == [True] and received["exit"] == [0], received["exit"]
    print(f"{len(wanted)} lines, their summary and the configuration arrive as in metrics.jsonl and recipe.toml")


FOLDER = Path(tempfile.mkdtemp(prefix="simmer-wandb-"))
try:
    sys.argv[1] = str(Path(sys.argv[1]).resolve())
    check(FOLDER)
finally:
    shutil.rmtree(FOLDER)
