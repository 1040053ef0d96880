"""Times greedy generation in transformers or llama.cpp: the programs that `decode` compares simmer with.

    python bench/decode_peers.py transformers MODEL_DIR PROMPTS.json [--dtype float32] [--threads 2] [--device cpu]
    python bench/decode_peers.py llama-cpp FILE.gguf PROMPTS.json [--threads 2]
    python bench/decode_peers.py llama-cpp-batch FILE.gguf PROMPTS.json [--threads 2]

PROMPTS.json has named prompts: {"name": [token ids, number of new tokens]}. The last line of the output is JSON: for each
name the seconds and the ids of the answer. The first prompt is answered once before that, untimed, to warm up.

llama-cpp-batch reads {"prompt": [token ids], "new_tokens": 64, "counts": [1, 4, 16]}. It continues so many sequences at the same time, and prints the
new tokens/s of each number.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

Answer = Callable[[list[int], int], list[int]]


def transformers(model_dir: str, dtype: str, threads: int, device: str) -> Answer:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype)).to(device).eval()

    def answer(prompt: list[int], new_tokens: int) -> list[int]:
        ids = torch.tensor([prompt], device=device)
        count = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens if device != "cpu" else None}
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **count)
        return whole[0, len(prompt) :].tolist()

    return answer


def llama_cpp(gguf: str, threads: int) -> Answer:
    from llama_cpp import Llama

    llama = Llama(gguf, n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False)

    def answer(prompt: list[int], new_tokens: int) -> list[int]:
        llama.reset()  # otherwise it reuses the part of the prompt that is in its cache
        found: list[int] = []
        for token in llama.generate(prompt, temp=0.0):
            found.append(token)
            if len(found) == new_tokens or token == llama.token_eos():
                break
        return found

    return answer


def llama_cpp_batch(gguf: str, threads: int, prompt: list[int], new_tokens: int, counts: list[int]) -> dict[str, float]:
    """New tokens/s of so many sequences that are continued together; which tokens they get makes no difference."""
    import llama_cpp as library

    model = library.llama_model_load_from_file(gguf.encode(), library.llama_model_default_params())
    settings = library.llama_context_default_params()
    settings.n_ctx = max(counts) * (len(prompt) + new_tokens + 32)
    settings.n_seq_max = max(counts)
    settings.n_threads = settings.n_threads_batch = threads
    settings.kv_unified = True
    context = library.llama_init_from_model(model, settings)
    batch = library.llama_batch_init(max(counts), 0, 1)

    def step(tokens: list[int], place: int) -> float:
        for sequence, token in enumerate(tokens):
            batch.token[sequence], batch.pos[sequence], batch.logits[sequence] = token, place, True
            batch.n_seq_id[sequence], batch.seq_id[sequence][0] = 1, sequence
        batch.n_tokens = len(tokens)
        begin = time.perf_counter()
        if library.llama_decode(context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        library.llama_get_logits(context)  # waits for them
        return time.perf_counter() - begin

    rates = {}
    for count in counts:
        library.llama_memory_clear(library.llama_get_memory(context), True)
        for place, token in enumerate(prompt):
            step([token] * count, place)
        seconds = [step([prompt[at % len(prompt)]] * count, len(prompt) + at) for at in range(new_tokens)]
        rates[str(count)] = count * new_tokens / sum(seconds)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=["transformers", "llama-cpp", "llama-cpp-batch"])
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("prompts", metavar="PROMPTS.json", type=Path)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu", help="of transformers; on a GPU no answer ends before its last token")
    args = parser.parse_args()
    prompts = json.loads(args.prompts.read_text())
    if args.peer == "llama-cpp-batch":
        print(json.dumps(llama_cpp_batch(args.model, args.threads, **prompts)))
        return
    if args.peer == "transformers":
        answer = transformers(args.model, args.dtype, args.threads, args.device)
    else:
        answer = llama_cpp(args.model, args.threads)
    answer(*next(iter(prompts.values())))
    answers = {}
    for name, (prompt, new_tokens) in prompts.items():
        begin = time.perf_counter()
        ids = answer(prompt, new_tokens)
        answers[name] = {"seconds": time.perf_counter() - begin, "ids": ids}
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
