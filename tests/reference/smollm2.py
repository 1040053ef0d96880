"""Results of transformers and PEFT on a real model: SmolLM2-135M-Instruct in Hugging Face layout.

    python tests/reference/smollm2.py MODEL DATA.json OUT [--steps 20] [--threads 1]

Everything is computed in f32, with eager attention and one row at a time. Writes into the folder OUT:

    chat.json            the greedy answer to one question, with the model's chat template
    initial/, trained/   the adapter as PEFT initialised it, and after the steps
    steps.json           the steps: rows in file order, 4 per step, alpaca-lora's template, labels only on answers,
                         AdamW without weight decay, constant learning rate 3e-4, gradients clipped at 1,
                         LoRA r=8 alpha=16 on q, k, v, o
    scores.json          log-probability of every token after the first of a few texts, with the trained adapter
    scores.base.json     the same without it
    logits.safetensors   ids.N and logits.N of those texts, with the trained adapter
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoTokenizer

import alpaca
import models
import rows
import training
from files import write_json

QUESTION = "What is the capital of France?"
TEXTS = [
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "### Instruction:\nName three primary colors.\n\n### Response:\nRed, blue and yellow.",
    "def add(a, b):\n    return a + b\n",
]


def encode(row: dict, tokenizer, max_tokens: int = 512) -> dict:
    """Tokenises the whole text at once. A token gets a label if any of its characters belongs to the answer."""
    prompt = alpaca.prompt(row)
    whole = tokenizer(prompt + row["output"], add_special_tokens=False, return_offsets_mapping=True)
    ids = whole["input_ids"] + [tokenizer.eos_token_id]
    trained = [end > len(prompt) for _, end in whole["offset_mapping"]] + [True]
    apart = sum((tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt, row["output"])), [])
    labels = [token if train else rows.IGNORE for token, train in zip(ids, trained)]
    return {
        "input_ids": ids[:max_tokens],
        "labels": labels[:max_tokens],
        "cut": len(ids) > max_tokens,
        "differs_apart": apart != whole["input_ids"],
    }


def chat(model, tokenizer) -> dict:
    messages = [{"role": "user", "content": QUESTION}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = rows.greedy(model, prompt, 64, tokenizer.eos_token_id)
    answer = tokenizer.decode(ids, skip_special_tokens=True)
    margin = rows.margin(model, prompt, ids)
    return {"prompt": text, "prompt_ids": prompt, "ids": ids, "text": answer, "smallest_margin": margin}


def scores(model, tokenizer) -> list[dict]:
    encoded = [(text, tokenizer(text)["input_ids"]) for text in TEXTS]
    return [{"text": text, "ids": ids, "logprobs": rows.log_probs(model, ids)} for text, ids in encoded]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    write_references(parser.parse_args())


def write_references(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    transformers.logging.disable_progress_bar()
    args.out.mkdir(parents=True, exist_ok=True)

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = models.load(args.model)
    write_json(args.out / "chat.json", chat(model, tokenizer))
    write_json(args.out / "scores.base.json", scores(model, tokenizer))

    settings = training.Settings(
        3e-4, schedule="constant", warmup_steps=0, steps=args.steps, batch_size=4, weight_decay=0.0
    )
    data = json.loads(Path(args.data).read_text())[: settings.steps * settings.batch_size]
    encoded = [encode(row, tokenizer) for row in data]
    torch.manual_seed(0)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    model.save_pretrained(args.out / "initial")
    start = time.perf_counter()
    run = training.run(model, encoded, settings)
    seconds = time.perf_counter() - start
    tokens = sum(len(row["input_ids"]) for row in encoded)
    counts = {what: sum(row[what] for row in encoded) for what in ("cut", "differs_apart")}
    write_json(args.out / "steps.json", run | {"tokens": tokens, "seconds": seconds, "rows": counts})
    model.save_pretrained(args.out / "trained")

    write_json(args.out / "scores.json", scores(model, tokenizer))
    tensors = {}
    with torch.no_grad():
        for index, text in enumerate(TEXTS):
            ids = tokenizer(text)["input_ids"]
            tensors |= {f"ids.{index}": torch.tensor(ids), f"logits.{index}": rows.logits(model, ids).contiguous()}
    save_file(tensors, args.out / "logits.safetensors")
    for step, values in enumerate(run["steps"], 1):
        print(f"step {step:3}  loss {values['loss']:.6f}  tokens {values['trained_tokens']}")
    print(
        f"{tokens / seconds:.0f} tokens/s; {counts['cut']} rows truncated, {counts['differs_apart']} with other tokens "
        "if prompt and answer are tokenised separately"
    )


if __name__ == "__main__":
    main()
