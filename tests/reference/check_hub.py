"""Checks that simmer and huggingface_hub can share one cache: each finds the files that the other has downloaded, and does
not download them again.

    cargo build -p simmer-checkpoint --example fetch
    python tests/reference/check_hub.py target/debug/examples/fetch

Needs huggingface_hub, but no network: both download from a loopback server with the hub's interface.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub

NAME = "org/name"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
INDEX = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b'{"model": {}}',
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    "model-00001-of-00002.safetensors": bytes(range(256)) * 4000,
    "model-00002-of-00002.safetensors": bytes(range(255, -1, -1)) * 4000,
}
requests: list[str] = []


def is_large(file: str) -> bool:
    return file.endswith(".safetensors")


def git_sha1(contents: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(contents) + contents).hexdigest()


def sha256(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()


def tree_entry(file: str, contents: bytes) -> dict:
    entry = {"type": "file", "path": file, "size": len(contents), "oid": git_sha1(contents)}
    if is_large(file):
        entry["lfs"] = {"oid": sha256(contents), "size": len(contents), "pointerSize": 134}
    return entry


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        requests.append(f"{self.command} {self.path}")
        path = self.path.split("?")[0]
        if path == f"/api/models/{NAME}/revision/main":
            siblings = [{"rfilename": file} for file in FILES]
            self.reply(200, json.dumps({"id": NAME, "sha": COMMIT, "siblings": siblings}).encode())
        elif path == f"/api/models/{NAME}/tree/{COMMIT}":
            self.reply(200, json.dumps([tree_entry(*item) for item in FILES.items()]).encode())
        elif path.startswith("/storage/"):
            self.reply(200, FILES[path.removeprefix("/storage/")])
        elif (file := path.removeprefix(f"/{NAME}/resolve/{COMMIT}/")) in FILES:
            contents = FILES[file]
            if is_large(file):
                linked = {"X_Linked_Etag": f'"{sha256(contents)}"', "X_Linked_Size": len(contents)}
                # the hub's storage is on another host too
                storage = f"http://localhost:{self.server.server_port}/storage/{file}"
                self.reply(302, Location=storage, X_Repo_Commit=COMMIT, **linked)
            else:
                self.reply(200, contents, ETag=f'"{git_sha1(contents)}"', X_Repo_Commit=COMMIT)
        else:
            self.reply(404, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def run(command: list[str], home: Path, endpoint: str, offline: bool = False) -> Path:
    environment = {"PATH": os.environ["PATH"], "HF_HOME": str(home), "HF_ENDPOINT": endpoint}
    if offline:
        environment["HF_HUB_OFFLINE"] = "1"
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stderr}")
    return Path(done.stdout.strip().splitlines()[-1])


def check(what: str, fact: object) -> None:
    print(("ok      " if fact else "FAILED  ") + what)
    if not fact:
        raise SystemExit("\n".join(requests))


def main() -> None:
    simmer = [str(Path(sys.argv[1]).resolve()), NAME]
    download = "import huggingface_hub as hub; print(hub.snapshot_download({!r}, local_files_only={}))"
    python = [sys.executable, "-c", download.format(NAME, False)]
    python_local = [sys.executable, "-c", download.format(NAME, True)]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    hub = f"http://127.0.0.1:{server.server_port}"
    nobody = "http://127.0.0.1:9"
    print(f"huggingface_hub {huggingface_hub.__version__}")
    with tempfile.TemporaryDirectory() as work:
        for first, others in (("simmer", [python_local, python]), ("huggingface_hub", [simmer])):
            home = Path(work, first)
            found = run(simmer if first == "simmer" else python, home, hub)
            same = all((found / file).read_bytes() == contents for file, contents in FILES.items())
            check(f"{first} downloads every file", same and len(list(found.iterdir())) == len(FILES))
            for other in others:
                name = "simmer" if other is simmer else "huggingface_hub"
                check(f"{name} finds them offline", run(other, home, nobody, offline=True) == found)
                requests.clear()
                check(f"{name} finds them online", run(other, home, hub) == found)
                check("  and downloads no file", not any("/resolve/" in line or "/storage/" in line for line in requests))
            info = huggingface_hub.scan_cache_dir(home / "hub")
            (repo,) = info.repos
            (revision,) = repo.revisions
            check("the cache is valid", not info.warnings and revision.refs == {"main"})
            check("  and has every file once", len(list((repo.repo_path / "blobs").iterdir())) == len(FILES))


if __name__ == "__main__":
    main()
