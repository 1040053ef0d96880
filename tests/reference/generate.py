"""Generates the goldens of models and adapters with transformers and PEFT: see README.md in this folder.

    python tests/reference/generate.py                   everything, about four minutes
    python tests/reference/generate.py --only tied-gqa   one model, and no other file
"""

import argparse
import json
import os
import sys
from copy import deepcopy

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
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import adapters
import families
import llama_adapter
import methods
import models
import optimizers
import rows
import selection
from files import write_json

GOLDENS = Path(__file__).resolve().parent.parent / "goldens"
MODELS = models.MODELS + families.FAMILIES
ADAPTERS = adapters.ADAPTERS + methods.ADAPTERS + families.ADAPTERS
# AutoTokenizer replaces the pre-tokenizer of tokenizer.json where config.json says qwen2: PreTrainedTokenizerFast does not
TEXTS = ["the rain in the mountains", "Q: 2 + 2?\nA: {4}"]
VERSIONS = {module.__name__: module.__version__ for module in (torch, transformers, peft, safetensors, tokenizers)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[spec.name for spec in MODELS], metavar="NAME")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.disable_progress_bar()
    GOLDENS.mkdir(exist_ok=True)
    os.chdir(GOLDENS)  # so that adapters name their base model by the folder's name only
    for spec in MODELS:
        if only is None or spec.name in only:
            make_model(spec)
    if only is not None:
        return
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
    logits = [rows.logits(model, row["input_ids"]).detach() for row in golden_rows]
    check_configs(spec, model, golden_rows, logits)
    stored = range(len(logits)) if spec.logit_rows is None else spec.logit_rows
    save_file({f"logits.{i}": logits[i] for i in stored}, folder / "golden.safetensors")
    generations = greedy_cases(model, spec)
    golden = {
        "about": spec.about,
        "rows": golden_rows,
        "loss": rows.backward(model, golden_rows),
        "trained_tokens": rows.trained_tokens(golden_rows),
        "greedy": generations,
        "score": [score(model, folder, text) for text in TEXTS + spec.texts],
        "chat": chat(folder),
    }
    write_json(folder / "golden.json", golden)
    for adapter in ADAPTERS:
        if adapter.model == spec.name:
            path = folder / "adapters" / adapter.name
            prompts = [case["prompt"] for case in generations]
            made = adapters.make_adapter(adapter, path, golden_rows, prompts, spec.logit_rows)
            adapters.write_golden(path, *made)
    for original in llama_adapter.ADAPTERS:
        if original.model == spec.name:
            path = folder / "adapters" / original.name
            prompts = [case["prompt"] for case in generations]
            adapters.write_golden(path, *llama_adapter.make_adapter(original, path, golden_rows, prompts))


def check_configs(spec: models.TinyModel, model, golden_rows: list[dict], logits: list[torch.Tensor]) -> None:
    """The other spellings of the configuration give the same logits (weights elsewhere in memory: other roundings), and each change that matters gives others."""
    for name in spec.other_configs:
        again = logits_with(model, json.loads(Path(spec.name, name).read_text()), golden_rows)
        gap = largest_gap(logits, again)
        assert gap < 1e-5, f"{spec.name}/{name}: logits differ by {gap}"
    for change in spec.matters:
        again = logits_with(model, spec.config | change, golden_rows)
        gap = largest_gap(logits, again)
        print(f"{spec.name}: {change} changes logits by {gap:.2}")
        assert gap > 1e-3, f"{spec.name}: {change} does not matter"


def largest_gap(ours: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(ours, others))


def logits_with(model, config: dict, golden_rows: list[dict]) -> list[torch.Tensor]:
    """The logits of the model's weights under another configuration."""
    settings = AutoConfig.for_model(**deepcopy(config))
    other = AutoModelForCausalLM.from_config(settings, dtype=torch.float32, attn_implementation="eager").eval()
    other.load_state_dict(model.state_dict())
    return [rows.logits(other, row["input_ids"]).detach() for row in golden_rows]


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
    ids = PreTrainedTokenizerFast.from_pretrained(folder)(text)["input_ids"]
    return {"text": text, "ids": ids, "log_probs": rows.log_probs(model, ids)}


def chat(folder: Path) -> dict:
    """A conversation rendered by the chat template with the generation prompt, as text and as ids."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
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
