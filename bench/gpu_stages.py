"""The stages of `gpu`."""

import json
import re
import shutil
import sys
from pathlib import Path
from statistics import median

from programs import ROOT, note, print_table, run

from gpu_bench import (
    ALL_LINEAR,
    BENCH,
    LEAST_SECONDS,
    PROFILED_STEPS,
    RANK,
    TINY,
    Bench,
    Skip,
    layer_weights,
    vocabulary_weights,
    weights_bytes,
    write_long_rows,
    write_rows,
)

STAGES = ["correctness", "goldens", "kernels", "peak", "7b", "13b", "65b", "8b-4096", "small", "decode", "fp8", "nf4", "ranks"]
# What is not measured unless it is asked for, because it takes long.
NOT_BY_DEFAULT = ["8b-4096", "small", "decode", "fp8", "nf4", "ranks"]
# The modules of tests/main.rs that are goldens.
GOLDENS = ("model::", "adapters::")
# Rows per batch of naive: padded to a long row, more do not fit into memory together with the weights of 13B.
NAIVE_ROWS = 8
RUN_TOKENS = 4096
# Memory of the GPU that stage 65b keeps free for activations and libtorch itself.
SPARE_MIB = 10 << 10
# Settings of simmer for 8b-4096: rows of 4096 tokens, two at a time, four times a step.
LONG_STEPS, LONG_GROUPS, LONG_ROWS = 6, 4, 2
# Layers of the 8B shape that `kernels` measures a kernel on.
KERNEL_LAYERS = 4
# The operation of a training's profile, if there is one, and the tests of each kernel that can be switched.
OPTIONAL = {
    "cudnn_attention": ("attention", "attention::"),
    "rope": ("rope", "rope::"),
    "gated": ("gated", "gated::"),
    "rms_norm": ("rms_norm", "rms_norm::"),
    "sum_rows": ("attention", "attention::"),
    "cross_entropy": ("linear_cross_entropy", "linear_cross_entropy::"),
    "decoding_graph": (None, "decoding::"),
    "decode_attention": (None, "decoding::"),
    "quantise_rows": ("linear", "frozen::fp8::"),
    "fp8_fast_sums": ("linear", "frozen::fp8::"),
}
# Settings of the run that a kernel is used in, beside those of the others.
OF_KERNEL = {"quantise_rows": {"compute": "fp8"}, "fp8_fast_sums": {"compute": "fp8"}}
# Far apart: processes start and load in times that differ.
NEW_TOKENS = (16, 528)
PROMPT = "Once upon a time, in a kitchen by the sea,"


class Stages(Bench):
    def tests(self, program: Path, prefixes: tuple[str, ...] = (), **more) -> dict:
        """Runs the tests of a program whose names begin so; all of them without prefixes."""
        if not program.exists():
            raise Skip(f"{program} does not exist")
        if self.left() <= LEAST_SECONDS:
            raise Skip(f"the {self.args.minutes:g} minutes are over")
        device = "libtorch" if self.gpu is None else self.args.device
        variables = {
            **self.simmer_environment(),
            "SIMMER_TEST_DEVICE": device,
            # cargo sets this for tests, which find their files by it
            "CARGO_MANIFEST_DIR": str(ROOT),
            **more,
        }
        # a filter of Rust's tests finds names that contain it, such as hostile::model:: for model::
        listed = run(program, "--list", limit=self.left(), environment=variables).output.splitlines()
        names = [line.removesuffix(": test") for line in listed if line.endswith(": test")]
        chosen = [name for name in names if name.startswith(prefixes)] if prefixes else []
        if prefixes and not chosen:
            sys.exit(f"{program}: no test has a name that begins with {' or '.join(prefixes)}")
        filters = ("--exact", *chosen) if prefixes else ()
        # tests that are stopped count as failed, because nothing shows that they pass
        output = run(program, *filters, limit=self.left(), environment=variables).output
        passed = sum(line.startswith("test ") and line.endswith("ok") for line in output.splitlines())
        if passed == 0:
            sys.exit(f"{program}: no test ran")
        print(f"{passed} tests passed on {device}", flush=True)
        return {"passed": passed, "device": device}

    def version(self) -> dict:
        """The commit and features of simmer."""
        return {"version": self.run_simmer("--version").output.splitlines()}

    def correctness(self) -> dict:
        return self.tests(self.args.kernels)

    def goldens(self) -> dict:
        return self.tests(self.args.goldens, GOLDENS)

    def optional_kernels(self) -> list[str]:
        """The kernels of this simmer that can be switched: an unknown name is refused with their list."""
        command = ("generate", "--base", TINY, "--prompt", "x", "--max-new-tokens", 1, "--device", self.args.device)
        try:
            self.run_simmer(*command, SIMMER_KERNELS="?")
        except SystemExit as error:
            listed = re.search(r"expected all, or a list of ([\w, ]+)", str(error))
            if listed is None:
                raise
            return [name.strip() for name in listed[1].split(",")]
        raise Skip("this simmer has no SIMMER_KERNELS")

    def kernels(self) -> dict:
        """Each kernel that can be switched: its tests, and its time in steps beside the form without it."""
        found, rows = {}, []
        with self.place() as folder:
            model, data = folder / "model", folder / "rows.json"
            name, config = self.shape("llama-3-8b")
            config["num_hidden_layers"] = layers = min(KERNEL_LAYERS, config["num_hidden_layers"])
            shared = (self.args.python, BENCH / "shared_model.py", self.args.simmer, name, model, "--layers", layers)
            self.run(*shared, environment=self.simmer_environment())
            tokens = self.long_tokens()
            write_long_rows(data, LONG_ROWS * PROFILED_STEPS, tokens)
            settings = self.long_settings(tokens) | {"batch_rows": LONG_ROWS}
            for kernel in self.optional_kernels():
                operation, prefix = OPTIONAL[kernel]
                tests = lambda: self.tests(self.args.kernels, (prefix,), SIMMER_KERNELS=kernel)
                times = {"without": {}, "with": {}}
                for way in times if operation else ():
                    variables = {"SIMMER_KERNELS": kernel if way == "with" else f"-{kernel}"}
                    out = folder / f"{kernel}-{way}"
                    chosen = settings | OF_KERNEL.get(kernel, {})
                    looked = lambda: self.profile(model, data, out, variables, **chosen)
                    times[way] = of_operation(self.attempt(f"{kernel} {way}", looked), operation)
                found[kernel] = {"tests": self.attempt(f"{kernel}: tests", tests), **times}
                rows.append(self.kernel_row(kernel, found[kernel]))
        print_table(["kernel", "equals its reference", "ms without", "ms with", "x", "of peak without", "with"], rows)
        return {"kernels": found, "parts": {name: part["tests"] for name, part in found.items()}}

    def kernel_row(self, kernel: str, found: dict) -> list[str]:
        passed = found["tests"].get("passed")
        without, with_it = (found[way] for way in ("without", "with"))
        ms = [str(times.get("ms", "failed" if "failed" in times else "")) for times in (without, with_it)]
        ratio = f"{without['ms'] / with_it['ms']:.2f}" if "ms" in without and "ms" in with_it else ""
        shares = [times.get("of_peak", "") for times in (without, with_it)]
        return [kernel, "yes" if passed else "skipped" if "skipped" in found["tests"] else "NO", *ms, ratio, *shares]

    # speed

    def peak(self) -> dict:
        self.facts.update(self.run(self.args.python, BENCH / "gpu_facts.py", "--device", self.torch_device).json())
        print_table(["fact", ""], [[name, str(value)] for name, value in self.facts.items()])
        return dict(self.facts)

    def beside_peers(self, size: str) -> dict:
        with self.place() as folder:
            model, data = folder / "model", folder / "rows.json"
            config = self.write_model(size, model)
            write_rows(data, self.args.rows)
            rows, packed = self.args.rows, ("--run-tokens", RUN_TOKENS if self.gpu is not None else 512)
            simmer = {"batch_rows": self.args.batch_rows, "micro_batch": 2 * RUN_TOKENS}
            peer = lambda *words: self.peer(
                *(BENCH / "peers.py", words[0], model, data, *words[1:]),
                *("--dtype", self.dtype, "--rank", RANK, "--rows", rows),
            )
            found = self.measure(
                config,
                {
                    "simmer": lambda: self.train(model, data, folder / "run", **simmer),
                    "simmer, recomputing": lambda: self.train(model, data, folder / "again", recompute="layer", **simmer),
                    "PEFT, naive": lambda: peer("naive", "--batch-rows", NAIVE_ROWS),
                    "PyTorch, expert": lambda: peer("expert", *packed),
                    "PyTorch, compiled": lambda: peer("expert", "--compile", *packed),
                },
            )
            if "tokens_per_second" not in found["simmer"]:
                merged = {"skipped": "merge: there is no adapter"}
            else:
                merged = self.attempt("merge", lambda: self.merge(model, folder / "run", folder / "merged"))
            profile = self.shown_profile(model, data, folder / "profile", **simmer)
        return {"shape": size, "programs": found, "merge": merged, "profile": profile}

    def shown_profile(self, *words, **settings) -> dict:
        profile = self.attempt("profile", lambda: self.profile(*words, **settings))
        print("\n".join(profile.get("table", [])), flush=True)
        return profile

    def merge(self, model: Path, run_folder: Path, merged: Path) -> dict:
        size = sum(file.stat().st_size for file in model.iterdir())
        if shutil.disk_usage(self.folder).free < size:
            raise Skip(f"merge: the disk of {self.folder} has less than {size / 1e9:.0f} GB free")
        adapter = run_folder / "adapter"
        finished = self.run_simmer("merge", "--base", model, "--adapter", adapter, "--out", merged)
        note(f"  merge: {finished.seconds:.1f} s")
        return {"seconds": round(finished.seconds, 1), "peak_mib": round(finished.peak_rss_mib)}

    def alone(self, size: str) -> dict:
        name, config = self.shape(size)
        layers = all_layers = config["num_hidden_layers"]
        memory = self.facts.get("memory_mib")
        if self.gpu is not None and not memory:
            raise Skip("the memory of the GPU is unknown; run the stage `peak` too")
        if self.gpu is not None:
            room = (memory - SPARE_MIB) * 2**20 - 4 * vocabulary_weights(config)
            layers = max(min(layers, int(room / (2 * layer_weights(config)))), 1)
        if layers < all_layers:
            note(f"  {layers} of {all_layers} layers: more do not fit into {memory} MiB")
        config["num_hidden_layers"] = layers
        with self.place() as folder:
            model, data = folder / "model", folder / "rows.json"
            self.run(
                *(self.args.python, BENCH / "shared_model.py", self.args.simmer, name, model, "--layers", layers),
                environment=self.simmer_environment(),
            )
            write_rows(data, min(self.args.rows, 64))
            measured = self.attempt(
                "simmer",
                lambda: self.train(model, data, folder / "run", recompute="layer", batch_rows=8, micro_batch=1024),
            )
        found = {"simmer, recomputing": measured}
        self.show(config, found)
        return {"shape": size, "layers": layers, "of_layers": all_layers, "programs": found}

    def long_tokens(self) -> int:
        return 224 if self.is_tiny else 4096

    @property
    def groups(self) -> int:
        return 1 if self.is_tiny else LONG_GROUPS

    @property
    def steps(self) -> int:
        return 3 if self.is_tiny else LONG_STEPS

    def long_settings(self, tokens: int) -> dict:
        return {
            "targets": ALL_LINEAR,
            "max_tokens": tokens,
            "batch_rows": LONG_ROWS * self.groups,
            "micro_batch": LONG_ROWS * tokens,
        }

    def long_peer(self, model: Path, mode: str, rows: int, tokens: int, groups: int, steps: int) -> dict:
        shape = ("--rows", rows, "--tokens", tokens, "--groups", groups, "--steps", steps, "--rank", RANK)
        return self.peer(BENCH / "long_peers.py", mode, model, *shape)

    def long_rows(self) -> dict:
        """The 8B shape, all linear modules, rows of 4096 tokens."""
        tokens = self.long_tokens()
        with self.place() as folder:
            model, data = folder / "model", folder / "rows.json"
            config = self.write_model("llama-3-8b", model)
            write_long_rows(data, LONG_ROWS * self.groups * self.steps, tokens)
            settings = self.long_settings(tokens)
            ours = lambda recompute: self.train(model, data, folder / recompute, **settings, recompute=recompute)
            peer = lambda mode: self.long_peer(model, mode, LONG_ROWS, tokens, self.groups, self.steps)
            found = self.measure(
                config,
                {
                    "simmer": lambda: ours("none"),
                    "simmer, recomputing mlp": lambda: ours("mlp"),
                    "simmer, recomputing": lambda: ours("layer"),
                    "PEFT": lambda: peer("plain"),
                    "PEFT, compiled": lambda: peer("compile"),
                    "PEFT + Liger": lambda: peer("liger"),
                    "PEFT + Liger, recomputing": lambda: peer("liger-checkpoint"),
                },
            )
            profile = self.shown_profile(model, data, folder / "profile", **settings)
        return {"shape": "llama-3-8b", "row_tokens": tokens, "programs": found, "profile": profile}

    def small(self) -> dict:
        """Small models, whose steps are bound by the host: many rows of a few tokens."""
        found = {}
        for size, rows, many in (("smollm2-135m", 32, 256), ("tinyllama-1.1b", 64, None)):
            found[size] = self.attempt(size, lambda: self.small_model(size, rows, many))
        programs = {f"{size}: {name}": part for size in found for name, part in found[size].get("programs", {}).items()}
        return {"models": found, "programs": programs, "parts": found}

    def small_model(self, size: str, rows: int, many: int | None) -> dict:
        tokens, steps = (24, 3) if self.is_tiny else (125, 14)
        rows, many = (4, 8 if many else None) if self.is_tiny else (rows, many)
        with self.place() as folder:
            model, data = folder / "model", folder / "rows.json"
            config = self.write_model(size, model)
            write_rows(data, steps * (many or rows))
            settings = {"targets": ALL_LINEAR, "micro_batch": 32768}
            ours = lambda count: self.train(model, data, folder / f"{count}", batch_rows=count, **settings)
            # as many tokens a step as simmer's rows have on average
            peer = lambda mode: self.long_peer(model, mode, max(rows * 3 // 4, 1), tokens, 1, steps)
            programs = {"simmer": lambda: ours(rows)}
            if many:
                programs[f"simmer, {many} rows a step"] = lambda: ours(many)
            programs |= {"PEFT": lambda: peer("plain"), "PEFT, compiled": lambda: peer("compile")}
            found = self.measure(config, programs)
            profile = self.shown_profile(model, data, folder / "profile", batch_rows=rows, **settings)
        return {"programs": found, "profile": profile}

    def decode(self) -> dict:
        """Greedy decoding of one answer in simmer and transformers, beside the rate of the memory."""
        found, rows = {}, []
        for size in ("smollm2-135m", "llama-3-8b"):
            with self.place() as folder:
                model = folder / "model"
                config = self.write_model(size, model)
                ways = {
                    "simmer": lambda: self.decode_simmer(model),
                    "transformers": lambda: self.decode_transformers(model, folder / "prompts.json"),
                }
                for name, measure in ways.items():
                    measured = self.attempt(f"{size}: {name}", measure)
                    found[f"{size}: {name}"] = measured
                    rate = measured.get("new_tokens_per_second")
                    if rate is not None:
                        measured["share_of_memory_rate"] = self.memory_share(config, rate)
                    share = measured.get("share_of_memory_rate")
                    cells = ["failed" if "failed" in measured else "skipped"] if rate is None else [f"{rate:.1f}"]
                    load = str(measured.get("first_tokens_seconds", ""))
                    rows.append([size, name, *cells, f"{share:.1%}" if share else "", load])
        print_table(["", "", "new tokens/s", "of memory's rate", f"s to {NEW_TOKENS[0]} tokens"], rows)
        return {"programs": found}

    def decode_simmer(self, model: Path) -> dict:
        seconds, lengths = [], []
        for count in NEW_TOKENS:
            words = ("--prompt", PROMPT, "--greedy", "--max-new-tokens", count, "--device", self.args.device, "--json")
            # what transformers computes in, and what the memory's rate is of
            words += ("--compute", "f32" if self.gpu is None else "bf16")
            finished = self.run_simmer("generate", "--base", model, *words)
            seconds.append(finished.seconds)
            lengths.append(len(finished.json()["ids"]))
        if lengths[1] <= lengths[0]:
            raise Skip(f"the answers ended after {lengths[0]} and {lengths[1]} tokens")
        rate = (lengths[1] - lengths[0]) / (seconds[1] - seconds[0])
        # starting and loading vary by more than a tiny model needs for its tokens
        if rate <= 0:
            raise Skip("the longer answer took less time: the model is too small to be timed as a process")
        return {"new_tokens_per_second": round(rate, 1), "first_tokens_seconds": round(seconds[0], 2)}

    def decode_transformers(self, model: Path, prompts: Path) -> dict:
        ids = list(range(5, 17))
        prompts.write_text(json.dumps({str(count): [ids, count] for count in NEW_TOKENS}))
        words = ("transformers", model, prompts, "--dtype", self.dtype, "--device", self.torch_device)
        told = self.run(self.args.python, BENCH / "decode_peers.py", *words).json()
        few, many = (told[str(count)] for count in NEW_TOKENS)
        count, seconds = len(many["ids"]) - len(few["ids"]), many["seconds"] - few["seconds"]
        if count <= 0 or seconds <= 0:
            raise Skip(f"the answers have {len(few['ids'])} and {len(many['ids'])} tokens")
        return {"new_tokens_per_second": round(count / seconds, 1)}

    def fp8(self) -> dict:
        """The 8B shape with base.compute = "fp8" beside bf16, if this simmer has it."""
        tokens = self.long_tokens()
        with self.place() as folder:
            data = folder / "rows.json"
            write_long_rows(data, LONG_ROWS * self.groups * self.steps, tokens)
            settings = self.long_settings(tokens)
            recipe = self.recipe(TINY, data, folder / "try", **settings, compute="fp8")
            try:
                self.run_simmer("estimate", recipe)
            except SystemExit as error:
                lines = [line for line in str(error).splitlines() if "fp8" in line and "failed:" not in line]
                raise Skip(f"this simmer refuses base.compute = \"fp8\": {lines[0] if lines else error}") from None
            model = folder / "model"
            config = self.write_model("llama-3-8b", model)
            ours = lambda name, compute, kernels: self.train(
                *(model, data, folder / name, {"SIMMER_KERNELS": kernels}), **settings, compute=compute
            )
            found = self.measure(
                config,
                {
                    "simmer": lambda: ours("fp8", "fp8", "quantise_rows"),
                    "simmer, quantised by ATen": lambda: ours("aten", "fp8", "-quantise_rows"),
                    "simmer, bf16": lambda: ours("bf16", "bf16", ""),
                },
            )
            profile = self.shown_profile(
                *(model, data, folder / "profile", {"SIMMER_KERNELS": "quantise_rows"}), **settings, compute="fp8"
            )
        return {"shape": "llama-3-8b", "row_tokens": tokens, "programs": found, "profile": profile}

    def nf4(self) -> dict:
        """The 8B shape with a base in nf4: simmer beside PEFT on bitsandbytes."""
        tokens = 224 if self.is_tiny else 512
        rows, steps = 2 if self.is_tiny else 16, self.steps
        with self.place() as folder:
            model, data = folder / "model", folder / "rows.json"
            config = self.write_model("llama-3-8b", model)
            write_long_rows(data, rows * steps, tokens)
            settings = {"targets": ALL_LINEAR, "max_tokens": tokens, "batch_rows": rows, "micro_batch": rows * tokens}
            ours = lambda precision: self.train(model, data, folder / precision, **settings, precision=precision)
            found = self.measure(
                config,
                {
                    "simmer": lambda: ours("nf4"),
                    "simmer, bf16": lambda: ours("bf16"),
                    "PEFT + bitsandbytes": lambda: self.long_peer(model, "nf4", rows, tokens, 1, steps),
                },
            )
        return {"shape": "llama-3-8b", "row_tokens": tokens, "programs": found}


def of_operation(profile: dict, operation: str) -> dict:
    """Milliseconds and share of the peak of an operation in the table of a profile."""
    for line in profile.get("table", []):
        cells = line.split()
        if cells[:1] == [operation]:
            return {"ms": float(cells[2]), "of_peak": cells[5]}
    return {key: profile[key] for key in ("skipped", "failed") if key in profile} or {"failed": "not in the profile"}
