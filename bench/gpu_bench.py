"""What the stages of `gpu` have in common: programs that run within the time, models with random weights, training in simmer
and in other programs, and tables of their results."""

import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from programs import ROOT, Finished, note, print_table, run

BENCH = Path(__file__).resolve().parent
RANK = 16
WARM_STEPS = 2
LEAST_SECONDS = 1
PROFILED_STEPS = 6
# The line of `train --profile` with the share of the time in which the GPU is idle.
IDLE = re.compile(r"^(?:nothing: )?GPU idle .* ([\d.]+)%$", re.MULTILINE)
TINY = ROOT / "data" / "tiny-base"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL_LINEAR = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]

RECIPE = """\
device = {device}

[base]
path = {model}
tokenizer = {tokenizer}
precision = {precision}
compute = {compute}

[method.lora]
rank = {rank}
alpha = {alpha}
targets = {targets}

[data]
train = [{{ path = {data}, template = "alpaca-lora", format = "alpaca" }}]
max_tokens = {max_tokens}
shuffle = false
# rows are written longer than max_tokens, so that they are all of one length
lint.allow = ["truncated"]

[train]
epochs = 1
batch_size = {batch_rows}
micro_batch_tokens = {micro_batch}
recompute = {recompute}
learning_rate = 3e-4
schedule = "constant"
clip = "none"
checkpoint_every = "never"
"""


class Skip(Exception):
    """The reason why a stage is skipped."""


class Watch:
    """Watches a run: the peak increase of a GPU's memory in use, and the end of the first step."""

    def __init__(self, gpu: int | None, metrics: Path | None = None):
        self.gpu, self.metrics = gpu, metrics
        self.began = time.perf_counter()
        self.first_step: float | None = None
        self.before = self.most = self.used()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def used(self) -> int | None:
        """MiB in use by all programs: nvidia-smi cannot always tell which program uses them."""
        if self.gpu is None:
            return None
        asked = ["nvidia-smi", f"--id={self.gpu}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        try:
            return int(subprocess.check_output(asked, text=True, stderr=subprocess.DEVNULL))
        except (OSError, ValueError, subprocess.CalledProcessError):
            return None

    def look(self) -> None:
        while not self.ended.wait(0.1):
            if self.first_step is None and self.metrics and self.metrics.exists() and self.metrics.stat().st_size:
                self.first_step = time.perf_counter() - self.began
            used = self.used()
            if used is not None:
                self.most = max(used, self.most or 0)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error) -> None:
        self.ended.set()
        self.thread.join()

    def peak_mib(self, finished: Finished) -> int:
        if self.before is None or self.most is None:
            return round(finished.peak_rss_mib)
        return self.most - self.before


class Bench:
    """The stages, and the settings that they share."""

    def __init__(self, args, folder: Path):
        self.args, self.folder = args, folder
        self.end = time.monotonic() + 60 * args.minutes
        gpu = args.device.removeprefix("libtorch-cuda:")
        self.gpu = int(gpu) if gpu.isdigit() else None
        self.torch_device = "cpu" if self.gpu is None else f"cuda:{self.gpu}"
        self.facts: dict = {}

    def left(self) -> float:
        return max(self.end - time.monotonic(), LEAST_SECONDS)

    def run(self, *command, environment=None) -> Finished:
        """Runs a program to measure. When the time is over, it is stopped and skipped, not failed."""
        over = Skip(f"the {self.args.minutes:g} minutes are over")
        if self.left() <= LEAST_SECONDS:
            raise over
        try:
            return run(*command, limit=self.left(), environment=environment)
        except SystemExit:
            if self.left() <= LEAST_SECONDS:
                raise over from None
            raise

    def simmer_environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.args.libtorch)}

    def run_simmer(self, *words, **variables) -> Finished:
        return self.run(self.args.simmer, *words, environment={**self.simmer_environment(), **variables})

    @property
    def dtype(self) -> str:
        """Dtype of other programs: most processors have no bf16, and emulate it slowly."""
        return "float32" if self.gpu is None else "bfloat16"

    @property
    def is_tiny(self) -> bool:
        return self.args.shape == "tiny"

    @contextmanager
    def place(self):
        """A folder for the weights and runs of a stage."""
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            yield Path(place)

    def shape(self, size: str) -> tuple[str, dict]:
        """The name of a size in `simmer show`, and its configuration."""
        name = str(TINY) if self.is_tiny else size
        return name, json.loads(self.run_simmer("show", name, "--json").output)["config"]

    def write_model(self, size: str, folder: Path) -> dict:
        """Writes random weights in bf16; returns the configuration."""
        name, config = self.shape(size)
        weights = weights_bytes(config)
        if shutil.disk_usage(folder.parent).free < 1.05 * weights:
            raise Skip(f"the disk of {folder.parent} has less than {1.05 * weights / 1e9:.0f} GB free")
        command = (self.args.python, BENCH / "random_model.py", self.args.simmer, name, folder, "bf16")
        written = self.run(*command, environment=self.simmer_environment())
        note(f"  wrote the weights in {written.seconds:.0f} s")
        return config

    def share(self, config: dict, rate: float) -> float | None:
        """The share of the peak of bf16 matrix multiplications at a rate in tokens/s."""
        peak = self.facts.get("bf16_tflops")
        flops = 4 * config["num_hidden_layers"] * layer_weights(config) * rate
        return round(flops / peak / 1e12, 4) if peak else None

    def memory_share(self, config: dict, rate: float) -> float | None:
        """The share of the memory's rate, if every token reads all weights in bf16 once."""
        peak = self.facts.get("memory_gb_per_second")
        read = 2 * (config["num_hidden_layers"] * layer_weights(config) + vocabulary_weights(config))
        return round(read * rate / peak / 1e9, 4) if peak else None

    def recipe(self, model: Path, data: Path, out: Path, **settings) -> Path:
        chosen = {
            "device": self.args.device,
            "model": str(model),
            "tokenizer": str(TINY),
            "data": str(data),
            "rank": RANK,
            "alpha": 2 * RANK,
            "targets": ATTENTION,
            "precision": "bf16",
            # simmer's own kernels compute only in f32
            "compute": "f32" if self.args.device == "cpu" else "bf16",
            "max_tokens": 512,
            "recompute": "none",
            **settings,
        }
        recipe = out.with_suffix(".toml")
        recipe.write_text(RECIPE.format(**{key: json.dumps(value) for key, value in chosen.items()}))
        return recipe

    def train(self, model: Path, data: Path, out: Path, variables: dict | None = None, **settings) -> dict:
        recipe = self.recipe(model, data, out, **settings)
        metrics = out / "metrics.jsonl"
        with Watch(self.gpu, metrics) as watch:
            finished = self.run_simmer("train", recipe, "--out", out, **(variables or {}))
        steps = [step for step in map(json.loads, metrics.read_text().splitlines()) if "loss" in step]
        rates = [step["tokens"] / step["seconds"] for step in steps[WARM_STEPS:]]
        if not rates:
            sys.exit(f"too few steps to measure: {len(steps)}, expected more than {WARM_STEPS}")
        return {
            "tokens_per_second": round(median(rates), 1),
            "peak_mib": watch.peak_mib(finished),
            "first_loss": steps[0]["loss"],
            "last_loss": steps[-1]["loss"],
            "tokens": sum(step["tokens"] for step in steps),
            "steps": len(steps),
            "before_steps_seconds": round((watch.first_step or finished.seconds) - steps[0]["seconds"], 1),
        }

    def profile(self, model: Path, data: Path, out: Path, variables: dict | None = None, **settings) -> dict:
        """A profile of some steps, which are slower because each kernel is recorded."""
        recipe = self.recipe(model, data, out, **settings)
        words = ("train", recipe, "--out", out, "--profile", "--set", f"train.max_steps={PROFILED_STEPS}")
        said = self.run_simmer(*words, **(variables or {})).messages
        table = re.search(r"^\d+ steps took .*?^peak: .*?$", said, re.MULTILINE | re.DOTALL)
        if table is None:
            sys.exit(f"train --profile printed no table:\n{said[-2000:]}")
        idle = IDLE.search(table[0])
        return {"idle_percent": float(idle[1]) if idle else None, "table": table[0].splitlines()}

    def peer(self, *command) -> dict:
        """A training in another program, whose last line is JSON."""
        with Watch(self.gpu) as watch:
            finished = self.run(self.args.python, *command, "--device", self.torch_device)
        told = finished.json()
        if "skipped" in told:
            raise Skip(told["skipped"])
        kept = ("peak_allocated_mib", "peak_reserved_mib", "tokens", "steps", "versions")
        return {
            "tokens_per_second": told["median_tokens_per_second"],
            "peak_mib": watch.peak_mib(finished),
            "first_loss": told["losses"][0],
            "last_loss": told["losses"][-1],
            **{key: told[key] for key in kept if key in told},
        }


    def attempt(self, name: str, measure) -> dict:
        """The measurement, or the reason why it was skipped or failed."""
        try:
            measured = measure()
        except Skip as why:
            note(f"  skipped: {why}")
            return {"skipped": str(why)}
        except SystemExit as error:
            note(f"  {name} failed:\n{error}")
            return {"failed": str(error)[-500:]}
        if "tokens_per_second" in measured:
            note(f"  {name}: {measured['tokens_per_second']:.0f} tokens/s, {measured['peak_mib']} MiB")
        return measured

    def measure(self, config: dict, programs: dict) -> dict[str, dict]:
        """Measures programs, and prints a table of them."""
        found = {name: self.attempt(name, measure) for name, measure in programs.items()}
        self.show(config, found)
        return found

    def show(self, config: dict, found: dict[str, dict]) -> None:
        """Prints a table, and adds to `found` the shares of the peak and simmer's speed relative to each program."""
        ours = found.get("simmer", {}).get("tokens_per_second")
        rows = []
        for name, measured in found.items():
            rate = measured.get("tokens_per_second")
            if rate is None:
                rows.append([name, "failed" if "failed" in measured else "skipped", "", "", "", ""])
                continue
            measured["share_of_peak"] = self.share(config, rate)
            if ours:
                measured["simmer_is"] = round(ours / rate, 3)
            share, ratio = measured["share_of_peak"], measured.get("simmer_is")
            cells = [f"{rate:.0f}", f"{ratio:.2f} x" if ratio else "", f"{share:.1%}" if share else ""]
            rows.append([name, *cells, str(measured["peak_mib"]), str(measured.get("before_steps_seconds", ""))])
        print_table(["", "tokens/s", "simmer is", "of peak", "peak MiB", "before steps s"], rows)


def layer_weights(config: dict) -> int:
    """Number of weights in the matrices of one layer."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    query, key = (config[f"num_{kind}_heads"] * config["head_dim"] for kind in ("attention", "key_value"))
    return 2 * hidden * (query + key) + 3 * hidden * inner


def vocabulary_weights(config: dict) -> int:
    """Number of weights in the embedding; the head has as many."""
    return config["vocab_size"] * config["hidden_size"]


def write_rows(path: Path, count: int) -> None:
    """Writes rows as long as Alpaca's: most are short, some are truncated at 512 tokens."""
    chance = random.Random(0)
    kitchen = json.loads((ROOT / "data/kitchen/instructions.json").read_text(encoding="utf-8"))
    words = [word for row in kitchen for word in row["output"].split()]
    rows = []
    for row in chance.choices(kitchen, k=count):
        length = int(min(max(chance.lognormvariate(3.2, 1.0), 2), 400))
        rows.append({**row, "output": " ".join(chance.choices(words, k=length))})
    path.write_text(json.dumps(rows), encoding="utf-8")


def weights_bytes(config: dict) -> int:
    """Bytes of all weights in bf16."""
    tables = 1 if config["tie_word_embeddings"] else 2
    return 2 * (config["num_hidden_layers"] * layer_weights(config) + tables * vocabulary_weights(config))


def write_long_rows(path: Path, count: int, tokens: int) -> None:
    """Writes rows with at least so many tokens, to be truncated: a word has one token or more."""
    chance = random.Random(0)
    kitchen = json.loads((ROOT / "data/kitchen/instructions.json").read_text(encoding="utf-8"))
    words = [word for row in kitchen for word in row["output"].split()]
    rows = [{**chance.choice(kitchen), "output": " ".join(chance.choices(words, k=tokens))} for _ in range(count)]
    path.write_text(json.dumps(rows), encoding="utf-8")
