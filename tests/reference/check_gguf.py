#!/usr/bin/env python3
"""Runs GGUF files that simmer writes in llama.cpp, and compares the tokens of texts and greedy answers with simmer's.

Usage: check_gguf.py SIMMER MODEL_DIR [ADAPTER_DIR]      (needs llama-cpp-python; see requirements.txt)

Checks the model in its own dtype and in f32; with an adapter, also the adapter as GGUF with the f32 file, and the merged
model. simmer's ids come from its command line, run on the folder and on the .gguf file.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from llama_cpp import Llama

PROMPTS = [
    "What is the capital of France?",
    "Below is an instruction.\n\n### Instruction:\nName three  colours.\n\n### Response:\n",
    "Zahlen: 1234567, Umlaute: äöüß, 中文, 🦀\n\tcode: for(i=0;i<10;++i){}",
]
NEW = 24


def simmer(program, *args):
    return subprocess.run([program, *args], check=True, capture_output=True, text=True).stdout


def ours(program, base, prompt, adapter=None):
    args = ["generate", "--base", base, "--raw", "--prompt", prompt, "--greedy", "--max-new-tokens", str(NEW), "--json"]
    answer = json.loads(simmer(program, *args, *(["--adapter", adapter] if adapter else [])))
    return answer["ids"]


def theirs(model, ids, count):
    """`count` greedy tokens of llama.cpp after the given ids, without a stop."""
    model.reset()
    model.eval(ids)
    found = []
    for _ in range(count):
        found.append(model.sample(temp=0.0))
        model.eval([found[-1]])
    return found


def prompt_ids(program, base, prompt):
    return json.loads(simmer(program, "score", "--base", base, "--text", prompt, "--json"))["ids"]


def check(program, what, path, base, adapter=None, lora=None, failed=[]):
    model = Llama(str(path), n_ctx=512, verbose=False, lora_path=lora and str(lora), n_threads=2)
    for prompt in PROMPTS:
        ids = prompt_ids(program, base, prompt)
        text = model.tokenize(prompt.encode(), add_bos=True, special=True)
        answer = ours(program, base, prompt, adapter)
        found = theirs(model, ids, len(answer))
        for name, a, b in (("tokens", ids, text), ("answer", answer, found)):
            if a != b:
                failed.append(f"{what}: {name} of {prompt!r}: simmer {a}, llama.cpp {b}")
    print(f"{what}: {len(PROMPTS)} prompts, {NEW} tokens each", flush=True)
    return failed


def main(program, model, adapter=None):
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        own, wide = work / "own.gguf", work / "f32.gguf"
        simmer(program, "convert", model, str(own))
        simmer(program, "convert", model, str(wide), "--dtype", "f32")
        failed = check(program, "own dtype", own, model)
        failed = check(program, "f32", wide, str(wide))
        if adapter:
            lora, merged = work / "adapter.gguf", work / "merged"
            simmer(program, "convert", adapter, str(lora), "--base", model)
            failed = check(program, "adapter", wide, model, adapter, lora)
            simmer(program, "merge", "--base", model, "--adapter", adapter, "--out", str(merged), "--dtype", "f32")
            simmer(program, "convert", str(merged), str(work / "merged.gguf"))
            failed = check(program, "merged", work / "merged.gguf", str(merged))
        print("\n".join(failed) or "all equal")
        sys.exit(bool(failed))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
