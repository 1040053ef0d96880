"""LoRA training steps in PyTorch and PEFT: the peers that `compare` runs beside simmer.

    python bench/peers.py naive  MODEL_DIR DATA.json [--initial ADAPTER_DIR] [--save-initial ADAPTER_DIR]
    python bench/peers.py expert MODEL_DIR DATA.json

naive:  batches of 4 rows, padded to the longest, logits of every position: what PEFT's examples do.
expert: rows packed into runs of 512 tokens under a block-diagonal causal mask, logits of the response tokens alone.

Both read the first 96 Alpaca rows, train on the response, LoRA r=8 alpha=16 on q, k, v and o without dropout, AdamW at
3e-4 as torch has it, in f32 on the processor, one optimizer step a batch. --save-initial saves the adapter before the
first step; --initial starts from a saved one.

The last line of the output is JSON. `tokens_per_second` counts tokens of prompts and responses, no padding, from the
third step on: the first two make the allocator's pools. `losses` is that of every step, in nats a token.
"""

import argparse
import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "reference"))

import alpaca
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

ROWS = 96
MAX_TOKENS = 512
BATCH_ROWS = 4
RUN_TOKENS = 512
WARM_STEPS = 2
IGNORE = -100


@dataclass
class Example:
    """The tokens of a row; labels are the tokens themselves or IGNORE, as in transformers."""

    ids: list[int]
    labels: list[int]


def encode(row: dict, tokenizer) -> Example:
    """Prompt and response tokenised apart."""
    texts = (alpaca.prompt(row), row["output"])
    prompt, response = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    response = response + [tokenizer.eos_token_id]
    labels = [IGNORE] * len(prompt) + response
    return Example((prompt + response)[:MAX_TOKENS], labels[:MAX_TOKENS])


class Naive:
    def batches(self, examples: list[Example]):
        """Tokens and tensors of each batch: [rows, width]."""
        for start in range(0, len(examples), BATCH_ROWS):
            batch = examples[start : start + BATCH_ROWS]
            width = max(len(example.ids) for example in batch)

            def padded(lists, fill):
                return torch.tensor([values + [fill] * (width - len(values)) for values in lists])

            yield (
                sum(len(example.ids) for example in batch),
                {
                    "input_ids": padded([example.ids for example in batch], 0),
                    "labels": padded([example.labels for example in batch], IGNORE),
                    "attention_mask": padded([[1] * len(example.ids) for example in batch], 0),
                },
            )

    def loss(self, model, batch: dict):
        return model(**batch).loss


class Expert:
    def batches(self, examples: list[Example]):
        """Tokens and tensors of each run: [1, tokens]."""
        for run in first_fit(examples):
            ids = [token for example in run for token in example.ids]
            # the first token of a row is nobody's target
            labels = [label for example in run for label in [IGNORE, *example.labels[1:]]]
            positions = [position for example in run for position in range(len(example.ids))]
            row = torch.tensor([number for number, example in enumerate(run) for _ in example.ids])
            causal = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
            yield (
                len(ids),
                {
                    "input_ids": torch.tensor([ids]),
                    "position_ids": torch.tensor([positions]),
                    "attention_mask": (causal & (row[:, None] == row[None, :]))[None, None],
                    "labels": torch.tensor(labels),
                },
            )

    def loss(self, model, batch: dict):
        llama = model.get_base_model()
        targets = batch.pop("labels")[1:]
        hidden = llama.model(**batch, use_cache=False).last_hidden_state[0, :-1]  # [tokens - 1, features]
        trained = targets != IGNORE
        return F.cross_entropy(llama.lm_head(hidden[trained]), targets[trained])


def first_fit(examples: list[Example]) -> list[list[Example]]:
    """Runs of at most RUN_TOKENS tokens: longest rows first, each into the first run that has room."""
    runs: list[list[Example]] = []
    room: list[int] = []
    for example in sorted(examples, key=lambda example: -len(example.ids)):
        length = len(example.ids)
        found = next((run for run, free in enumerate(room) if length <= free), len(runs))
        if found == len(runs):
            runs.append([])
            room.append(RUN_TOKENS)
        runs[found].append(example)
        room[found] -= length
    return runs


def load(args):
    """The model with an adapter: a new one, or the one in --initial."""
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa")
    if args.initial:
        return PeftModel.from_pretrained(base, args.initial, is_trainable=True).train()
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
    return get_peft_model(base, config).train()


def train(model, peer, examples: list[Example]) -> tuple[list[float], float]:
    """The loss of every step, and tokens a second after the first ones."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    losses, counted, begin = [], 0, None
    for step, (tokens, batch) in enumerate(peer.batches(examples)):
        if step == WARM_STEPS:
            begin = time.perf_counter()
        loss = peer.loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step >= WARM_STEPS:
            counted += tokens
    if begin is None:
        sys.exit(f"{len(losses)} steps are too few to measure")
    return losses, counted / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=["naive", "expert"])
    parser.add_argument("model", metavar="MODEL_DIR")
    parser.add_argument("data", metavar="DATA.json", type=Path)
    parser.add_argument("--initial", metavar="ADAPTER_DIR")
    parser.add_argument("--save-initial", metavar="ADAPTER_DIR")
    args = parser.parse_args()

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = json.loads(args.data.read_text(encoding="utf-8"))[:ROWS]
    examples = [encode(row, tokenizer) for row in rows]
    model = load(args)
    if args.save_initial:
        model.save_pretrained(args.save_initial)
    losses, rate = train(model, Naive() if args.peer == "naive" else Expert(), examples)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    print(
        json.dumps(
            {
                "peer": args.peer,
                "rows": len(examples),
                "tokens": sum(len(example.ids) for example in examples),
                "steps": len(losses),
                "threads": torch.get_num_threads(),
                "tokens_per_second": round(rate, 1),
                "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20),
                "losses": losses,
            }
        )
    )


if __name__ == "__main__":
    main()
