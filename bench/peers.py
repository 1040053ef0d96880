"""LoRA training steps in PyTorch and PEFT: the peers that `compare` and `gpu` run beside simmer.

    python bench/peers.py naive  MODEL_DIR DATA.json [--initial ADAPTER_DIR] [--save-initial ADAPTER_DIR]
    python bench/peers.py expert MODEL_DIR DATA.json [--compile]

naive:  batches of 4 rows, padded to the longest, logits of every position: what PEFT's examples do.
expert: rows packed into runs of 512 tokens under a block-diagonal causal mask, logits of the response tokens alone. On a
        GPU in bf16 torch's flash attention takes the rows of a run as they lie, and there is no mask. --compile gives
        each decoder layer to torch.compile.

Both read the first 96 Alpaca rows, train on the response, LoRA r=8 alpha=16 on q, k, v and o without dropout, AdamW at
3e-4 as torch has it, in f32 on the processor, one optimizer step a batch. Options change the numbers; alpha is twice the
rank. In bfloat16 the base lies in bf16, the adapter in f32, and steps run under torch.autocast, as transformers' Trainer
does with `bf16=True`. --save-initial saves the adapter before the first step; --initial starts from a saved one.

The last line of the output is JSON. `tokens_per_second` counts tokens of prompts and responses, no padding, from the
third step on: the first two make the allocator's pools. `median_tokens_per_second` is the median over these steps:
what the compiler takes for a new shape does not count in it. `losses` is that of every step, in nats a token. Of a GPU
there is the most memory that torch's tensors and its allocator held.
"""

import argparse
import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "reference"))

import alpaca
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

MAX_TOKENS = 512
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
    attention = "sdpa"

    def __init__(self, args):
        self.rows = args.batch_rows

    def batches(self, examples: list[Example]):
        """Tokens and tensors of each batch: [rows, width]."""
        for start in range(0, len(examples), self.rows):
            batch = examples[start : start + self.rows]
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


def flash_attention(module, query, key, value, mask, scaling, cu_seq_lens_q, max_length_q, **others):
    """Causal attention within the rows of a run: [1, heads, tokens, head size] each."""
    query, key, value = (x[0].transpose(0, 1).to(torch.bfloat16) for x in (query, key, value))
    starts, longest = cu_seq_lens_q, max_length_q
    rows = (query, key, value, starts, starts, longest, longest)
    dropout, is_causal, debug = 0.0, True, False
    attended = torch.ops.aten._flash_attention_forward(*rows, dropout, is_causal, debug, scale=scaling)[0]
    return attended[None], None


AttentionInterface.register("flash_of_torch", flash_attention)


class Expert:
    def __init__(self, args):
        self.run_tokens = args.run_tokens
        self.flash = args.device.startswith("cuda") and args.dtype == "bfloat16"
        self.attention = "flash_of_torch" if self.flash else "sdpa"

    def batches(self, examples: list[Example]):
        """Tokens and tensors of each run: [1, tokens]."""
        for run in first_fit(examples, self.run_tokens):
            ids = [token for example in run for token in example.ids]
            # the first token of a row is nobody's target
            labels = [label for example in run for label in [IGNORE, *example.labels[1:]]]
            positions = [position for example in run for position in range(len(example.ids))]
            yield (
                len(ids),
                {
                    "input_ids": torch.tensor([ids]),
                    "position_ids": torch.tensor([positions]),
                    "labels": torch.tensor(labels),
                    **self.rows_apart(run),
                },
            )

    def rows_apart(self, run: list[Example]) -> dict:
        """What keeps a run's rows from seeing each other: where they start, or a mask."""
        lengths = torch.tensor([len(example.ids) for example in run])
        if self.flash:
            starts = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
            # a bound serves as well as the longest row, and compiled layers take any other number for a new shape
            return {"cu_seq_lens_q": starts, "max_length_q": MAX_TOKENS}
        row = torch.arange(len(run)).repeat_interleave(lengths)
        causal = torch.ones(len(row), len(row), dtype=torch.bool).tril()
        return {"attention_mask": (causal & (row[:, None] == row[None, :]))[None, None]}

    def loss(self, model, batch: dict):
        llama = model.get_base_model()
        targets = batch.pop("labels")[1:]
        hidden = llama.model(**batch, use_cache=False).last_hidden_state[0, :-1]  # [tokens - 1, features]
        trained = targets != IGNORE
        return F.cross_entropy(llama.lm_head(hidden[trained]), targets[trained])


def first_fit(examples: list[Example], run_tokens: int) -> list[list[Example]]:
    """Runs of at most `run_tokens` tokens: longest rows first, each into the first run that has room."""
    runs: list[list[Example]] = []
    room: list[int] = []
    for example in sorted(examples, key=lambda example: -len(example.ids)):
        length = len(example.ids)
        found = next((run for run, free in enumerate(room) if length <= free), len(runs))
        if found == len(runs):
            runs.append([])
            room.append(run_tokens)
        runs[found].append(example)
        room[found] -= length
    return runs


def load(args, attention: str):
    """The model with an adapter: a new one, or the one in --initial."""
    dtype = getattr(torch, args.dtype)
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation=attention)
    base.to(args.device)
    if args.initial:
        return PeftModel.from_pretrained(base, args.initial, is_trainable=True).train()
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    rank = {"r": args.rank, "lora_alpha": 2 * args.rank}
    config = LoraConfig(**rank, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
    return get_peft_model(base, config).train()


def train(model, peer, examples: list[Example], args) -> tuple[list[float], list[int], list[float]]:
    """Loss, tokens and seconds of every step."""
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)

    def placed(value):
        return value.to(device) if isinstance(value, torch.Tensor) else value

    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    losses, counts, seconds = [], [], []
    begin = time.perf_counter()
    for tokens, batch in peer.batches(examples):
        batch = {name: placed(value) for name, value in batch.items()}
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = peer.loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())  # waits for the device
        counts.append(tokens)
        seconds.append(time.perf_counter() - begin)
        begin = time.perf_counter()
    if len(losses) <= WARM_STEPS:
        sys.exit(f"{len(losses)} steps are too few to measure")
    return losses, counts, seconds


def gpu_memory(device: str) -> dict:
    """The most that torch held of a GPU's memory."""
    if not device.startswith("cuda"):
        return {}
    return {
        "peak_allocated_mib": round(torch.cuda.max_memory_allocated(device) / 2**20),
        "peak_reserved_mib": round(torch.cuda.max_memory_reserved(device) / 2**20),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=["naive", "expert"])
    parser.add_argument("model", metavar="MODEL_DIR")
    parser.add_argument("data", metavar="DATA.json", type=Path)
    parser.add_argument("--initial", metavar="ADAPTER_DIR")
    parser.add_argument("--save-initial", metavar="ADAPTER_DIR")
    parser.add_argument("--rows", type=int, default=96, help="that are read, default %(default)s")
    parser.add_argument("--batch-rows", type=int, default=4, help="of naive, default %(default)s")
    parser.add_argument("--run-tokens", type=int, default=512, help="of expert, default %(default)s")
    parser.add_argument("--rank", type=int, default=8, help="default %(default)s")
    parser.add_argument("--device", default="cpu", help="as torch calls it, default %(default)s")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="default %(default)s")
    parser.add_argument("--compile", action="store_true", help="give the decoder layers to torch.compile")
    args = parser.parse_args()

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = json.loads(args.data.read_text(encoding="utf-8"))[: args.rows]
    examples = [encode(row, tokenizer) for row in rows]
    peer = Naive(args) if args.peer == "naive" else Expert(args)
    model = load(args, peer.attention)
    if args.save_initial:
        model.save_pretrained(args.save_initial)
    if args.compile:
        # one layer after the other: they share what is compiled
        for layer in model.get_base_model().model.layers:
            layer.compile(dynamic=True)
    losses, counts, seconds = train(model, peer, examples, args)
    rates = [tokens / taken for tokens, taken in zip(counts, seconds)][WARM_STEPS:]
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    print(
        json.dumps(
            {
                "peer": args.peer,
                "rows": len(examples),
                "tokens": sum(len(example.ids) for example in examples),
                "steps": len(losses),
                "threads": torch.get_num_threads(),
                "tokens_per_second": round(sum(counts[WARM_STEPS:]) / sum(seconds[WARM_STEPS:]), 1),
                "median_tokens_per_second": round(median(rates), 1),
                "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20),
                **gpu_memory(args.device),
                "losses": losses,
            }
        )
    )


if __name__ == "__main__":
    main()
