"""LoRA training steps in PyTorch and PEFT: the programs that `compare` and `gpu` compare simmer with.

    python bench/peers.py naive  MODEL_DIR DATA.json [--initial ADAPTER_DIR] [--save-initial ADAPTER_DIR]
    python bench/peers.py expert MODEL_DIR DATA.json [--compile]

naive:  batches of 4 rows, padded to the longest, with logits for every position, as in PEFT's examples.
expert: rows packed into sequences of 512 tokens with a block-diagonal causal mask, and logits only for response tokens.
        On a GPU in bf16, torch's flash attention takes the row boundaries, and no mask is needed. --compile compiles each
        decoder layer with torch.compile.

Both read the first 96 Alpaca rows and train on the responses: LoRA with r=8 and alpha=16 on q, k, v and o without dropout,
AdamW with torch's defaults and a learning rate of 3e-4, f32 on the processor, one optimizer step per batch. Options change
these numbers; alpha is always twice the rank. --adapter takes DoRA with the same numbers, or (IA)³ on PEFT's own modules of
Llama, in place of LoRA. In bfloat16 the base model is in bf16, the adapter in f32, and steps run under
torch.autocast, as in transformers' Trainer with `bf16=True`. --save-initial saves the adapter before the first step;
--initial starts from a saved adapter.

The last line of the output is JSON. `tokens_per_second` counts tokens of prompts and responses without padding, from the
third step on, because the first two steps fill the allocator's pools. `median_tokens_per_second` is the median over these
steps, so the time to compile new shapes does not affect it. `losses` has the loss of each step, in nats per token. On a GPU,
the output also has the peak memory of torch's tensors and of its allocator.
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
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

MAX_TOKENS = 512
WARM_STEPS = 2
ADAPTERS = ["lora", "dora", "ia3"]
IGNORE = -100


@dataclass
class Example:
    """The tokens of a row. As in transformers, a label is the token itself or IGNORE."""

    ids: list[int]
    labels: list[int]


def encode(row: dict, tokenizer) -> Example:
    """Tokenises prompt and response separately."""
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
        """Number of tokens and tensors of each batch: [rows, width]."""
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
    """Causal attention within the rows of a packed sequence: [1, heads, tokens, head size] each."""
    query, key, value = (x[0].transpose(0, 1).to(torch.bfloat16) for x in (query, key, value))
    starts, longest = cu_seq_lens_q, max_length_q
    rows = (query, key, value, starts, starts, longest, longest)
    dropout, is_causal, debug = 0.0, True, False
    attended = torch.ops.aten._flash_attention_forward(*rows, dropout, is_causal, debug, scale=scaling)[0]
    return attended[None], None


# transformers looks for names with "flash" among the kernels of the hub
AttentionInterface.register("packed_of_torch", flash_attention)


class Expert:
    def __init__(self, args):
        self.run_tokens = args.run_tokens
        self.flash = args.device.startswith("cuda") and args.dtype == "bfloat16"
        self.attention = "packed_of_torch" if self.flash else "sdpa"

    def batches(self, examples: list[Example]):
        """Number of tokens and tensors of each packed sequence: [1, tokens]."""
        for run in first_fit(examples, self.run_tokens):
            ids = [token for example in run for token in example.ids]
            # no token predicts the first token of a row
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
        """Keeps the rows of a packed sequence from seeing each other: their offsets, or a mask."""
        lengths = torch.tensor([len(example.ids) for example in run])
        if self.flash:
            starts = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
            # an upper bound is enough, and a constant: compiled layers are recompiled for each new number
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
    """Packs rows into sequences of at most `run_tokens` tokens: longest rows first, each into the first one with room."""
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
    """The model with a new adapter, or with the one that --initial names."""
    dtype = getattr(torch, args.dtype)
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation=attention)
    base.to(args.device)
    if args.initial:
        return PeftModel.from_pretrained(base, args.initial, is_trainable=True).train()
    return get_peft_model(base, adapter_config(args)).train()


def adapter_config(args):
    """PEFT's configuration of a new adapter."""
    if args.adapter == "ia3":
        return IA3Config(task_type="CAUSAL_LM")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    rank = {"r": args.rank, "lora_alpha": 2 * args.rank, "use_dora": args.adapter == "dora"}
    return LoraConfig(**rank, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")


def train(model, peer, examples: list[Example], args) -> tuple[list[float], list[int], list[float]]:
    """Loss, number of tokens and seconds of every step."""
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
        sys.exit(f"too few steps to measure: {len(losses)}, expected more than {WARM_STEPS}")
    return losses, counts, seconds


def gpu_memory(device: str) -> dict:
    """Peak memory of torch on a GPU."""
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
    parser.add_argument("--adapter", choices=ADAPTERS, default="lora", help="kind of a new adapter, default %(default)s")
    parser.add_argument("--initial", metavar="ADAPTER_DIR")
    parser.add_argument("--save-initial", metavar="ADAPTER_DIR")
    parser.add_argument("--rows", type=int, default=96, help="number of rows to read, default %(default)s")
    parser.add_argument("--batch-rows", type=int, default=4, help="rows per batch of naive, default %(default)s")
    parser.add_argument("--run-tokens", type=int, default=512, help="tokens per packed sequence of expert, default %(default)s")
    parser.add_argument("--rank", type=int, default=8, help="rank of LoRA, default %(default)s")
    parser.add_argument("--device", default="cpu", help="device name in torch, default %(default)s")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="dtype of the base model, default %(default)s")
    parser.add_argument("--compile", action="store_true", help="compile the decoder layers with torch.compile")
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
        # each layer on its own, so that all layers share the compiled code
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
