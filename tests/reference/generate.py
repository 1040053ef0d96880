"""Generates the goldens of models and adapters with transformers and PEFT: see README.md in this folder.

    python tests/reference/generate.py            all models, about a minute and a half
    python tests/reference/generate.py tied-gqa   one model
"""

import os
import sys

if os.environ.get("PYTHONHASHSEED") != "0":  # PEFT writes sets of names in hash order
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})
os.environ["HF_HUB_OFFLINE"] = "1"

import shutil
from pathlib import Path

import peft
import safetensors
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoTokenizer

import adapters
import models
import optimizers
import rows
import selection
from files import write_json

GOLDENS = Path(__file__).resolve().parent.parent / "goldens"
TEXTS = ["the rain in the mountains", "Q: 2 + 2?\nA: {4}"]
VERSIONS = {module.__name__: module.__version__ for module in (torch, transformers, peft, safetensors, tokenizers)}


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.disable_progress_bar()
    GOLDENS.mkdir(exist_ok=True)
    os.chdir(GOLDENS)  # so that adapters name their base model by the folder's name only
    chosen = sys.argv[1:] or [spec.name for spec in models.MODELS]
    for spec in models.MODELS:
        if spec.name in chosen:
            make_model(spec)
    write_json(Path("schedules.json"), optimizers.schedules())
    write_json(Path("adamw.json"), optimizers.adamw())
    write_json(Path("selection.json"), selection.cases())
    write_json(Path("versions.json"), VERSIONS)
    print(f"{sum(f.stat().st_size for f in GOLDENS.rglob('*') if f.is_file()) / 1024:.0f} KiB under {GOLDENS}")


def make_model(spec: models.TinyModel) -> None:
    """Writes the folder of a model, with its golden files and its adapters."""
    folder = Path(spec.name)
    shutil.rmtree(folder, ignore_errors=True)
    models.write_model(spec, folder)
    model = models.load(folder)
    golden_rows = rows.random_rows(spec.row_lengths, models.VOCAB, spec.seed)
    tensors = {f"logits.{i}": rows.logits(model, row["input_ids"]).detach() for i, row in enumerate(golden_rows)}
    save_file(tensors, folder / "golden.safetensors")
    generations = greedy_cases(model, spec)
    golden = {
        "about": spec.about,
        "rows": golden_rows,
        "loss": rows.backward(model, golden_rows),
        "trained_tokens": rows.trained_tokens(golden_rows),
        "greedy": generations,
        "score": [score(model, folder, text) for text in TEXTS],
        "chat": chat(folder),
    }
    write_json(folder / "golden.json", golden)
    for adapter in adapters.ADAPTERS:
        if adapter.model == spec.name:
            path = folder / "adapters" / adapter.name
            made = adapters.make_adapter(adapter, path, golden_rows, [case["prompt"] for case in generations])
            adapters.write_golden(path, *made)


def greedy_cases(model, spec: models.TinyModel) -> list[dict]:
    """32 new tokens without a stop, and the same up to the EOS token. The prompts are random, but selected: their answers
    have no near ties and many different tokens; half of them contain an EOS token and half do not."""
    eos = spec.config["eos_token_id"]
    stops = eos if isinstance(eos, list) else [eos]
    generator = torch.Generator().manual_seed(spec.seed)
    found = {True: [], False: []}
    for _ in range(2000):
        length = int(torch.randint(1, 12, (), generator=generator))
        prompt = torch.randint(3, models.VOCAB, (length,), generator=generator).tolist()
        answer = rows.greedy(model, prompt, 32, None)
        stopped = next((i + 1 for i, token in enumerate(answer) if token in stops), None)
        varied = len(set(answer)) >= 10 and rows.margin(model, prompt, answer) > 0.01
        if varied and (stopped is None or 4 <= stopped <= 28) and len(found[stopped is not None]) < 2:
            until_eos = rows.greedy(model, prompt, 32, eos)
            assert until_eos == answer[:stopped]
            found[stopped is not None].append({"prompt": prompt, "ids": answer, "until_eos": until_eos})
        if all(len(cases) == 2 for cases in found.values()):
            return found[True] + found[False]
    raise SystemExit(f"{spec.name}: no prompt found for a greedy golden; change the seed")


def score(model, folder: Path, text: str) -> dict:
    ids = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    return {"text": text, "ids": ids, "log_probs": rows.log_probs(model, ids)}


def chat(folder: Path) -> dict:
    """A conversation rendered by the chat template with the generation prompt, as text and as ids."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "then + 1?"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    return {"messages": messages, "prompt": text, "ids": ids}


if __name__ == "__main__":
    main()
