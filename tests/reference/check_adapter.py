"""Loads an adapter folder into PEFT, without warnings, missing keys or unexpected keys, and scores texts with it.

    python tests/reference/check_adapter.py MODEL ADAPTER TEXT...                  prints the scores as JSON
    python tests/reference/check_adapter.py MODEL ADAPTER --compare SCORES.json    compares with the scores of simmer
    python tests/reference/check_adapter.py --all LIST                             compares many: of each line of the file
                                                                                   LIST, MODEL, ADAPTER and SCORES.json,
                                                                                   between tabs, and a title

SCORES.json is the output of `simmer score --base MODEL --adapter ADAPTER --json`: one JSON value, or one per line, each
with "ids" and "logprobs" (of every token after the first). The exit code is 1 if a log-probability differs by more than
--tolerance.
"""

import argparse
import json
import logging
import os
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoTokenizer

import adapters
import models
import rows


class RaiseOnWarning(logging.Handler):
    """Turns warnings that libraries log into errors, like the warnings that they raise."""

    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError(f"logged by {record.name}: {record.getMessage()}")


def load_strictly(model_folder: str, adapter_folder: str) -> PeftModel:
    base = models.load_for(adapter_folder, model_folder)
    # only while the adapter is loaded: transformers has advice on the configurations of some base models
    handler = RaiseOnWarning(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("", "transformers", "peft")]
    for logger in loggers:
        logger.addHandler(handler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # PEFT 0.21 reads this deprecated attribute of transformers 5.23 for every adapter.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        model = PeftModel.from_pretrained(base, adapter_folder)
    for logger in loggers:
        logger.removeHandler(handler)
    saved = load_file(Path(adapter_folder, "adapter_model.safetensors"))
    loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
    ends = [f"{end}.{of}" for end in ("embed_tokens", "lm_head") for of in adapters.FROZEN]
    # the rows of a tied head, which PEFT saves beside those of the embedding
    ends.append("lm_head.token_adapter.trainable_tokens_delta")
    state = {key.removesuffix(".default"): value for key, value in model.state_dict().items()}
    frozen = {key: value for key, value in state.items() if key.endswith(tuple(ends)) and key in saved}
    loaded |= {key: value for key, value in frozen.items() if key not in loaded}
    wrong = sorted(saved.keys() ^ loaded.keys())
    wrong += [key for key in saved.keys() & loaded.keys() if not torch.equal(saved[key], loaded[key].to(saved[key].dtype))]
    if wrong:
        raise SystemExit(f"{adapter_folder}: PEFT did not load these as saved: {wrong}")
    return model.eval()


def read_scores(path: str) -> list[dict]:
    text = Path(path).read_text()
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = [json.loads(line) for line in text.splitlines() if line.strip()]
    return value if isinstance(value, list) else [value]


def compare(model: PeftModel, path: str, tolerance: float) -> None:
    """Stops where a log-probability of the file is further than `tolerance` from the model's own."""
    theirs = read_scores(path)
    gaps = []
    for score in theirs:
        ours, others = rows.log_probs(model, score["ids"]), score["logprobs"]
        if len(ours) != len(others):
            raise SystemExit(f"{path}: {len(others)} log-probabilities for {len(score['ids'])} ids")
        gaps += [abs(a - b) for a, b in zip(ours, others)]
    if not gaps:
        raise SystemExit(f"{path}: no score to compare")
    print(f"{len(theirs)} texts, {len(gaps)} log-probabilities, largest difference {max(gaps):.2e}")
    if max(gaps) > tolerance:
        raise SystemExit(f"more than {tolerance}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("adapter", nargs="?")
    parser.add_argument("texts", nargs="*", metavar="TEXT")
    parser.add_argument("--compare", metavar="SCORES.json")
    parser.add_argument("--all", metavar="LIST")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()

    if args.all:
        for line in Path(args.all).read_text().splitlines():
            model, adapter, scores, title = line.split("\t")
            print(title, flush=True)
            compare(load_strictly(model, adapter), scores, args.tolerance)
        return
    if args.adapter is None:
        parser.error("MODEL and ADAPTER are needed, or --all")
    model = load_strictly(args.model, args.adapter)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    scored = [(text, tokenizer(text)["input_ids"]) for text in args.texts]
    result = [{"text": text, "ids": ids, "logprobs": rows.log_probs(model, ids)} for text, ids in scored]
    if result:
        json.dump(result, sys.stdout, indent=2)
        print()
    if args.compare:
        compare(model, args.compare, args.tolerance)


if __name__ == "__main__":
    main()
