#!/usr/bin/env python3
"""Converts a random model of each family to GGUF and back, and compares it with transformers, llama.cpp and its converter.

Usage: check_gguf_families.py SIMMER TOKENIZER_DIR [--llama-cpp CHECKOUT] [FAMILY ...]

Needs torch, transformers, peft, gguf and llama-cpp-python. TOKENIZER_DIR is a folder with a tokenizer that simmer writes as GGUF, as
data/tiny-base. CHECKOUT is a checkout of llama.cpp: then the keys and tensors of simmer's file are compared with those of
llama.cpp's converter, without the tokenizer.

For each family:
  logits   llama.cpp's of the converted file, and greedy tokens, against transformers'
  adapter  an adapter of all linear modules, made by PEFT: llama.cpp's logits and greedy tokens against PEFT's
  back     the folder that simmer makes of the file has the same tensors, and transformers computes the same logits
  keys     what the converter writes, simmer writes, with the same values; further keys of simmer are listed
  tensors  the same names, shapes and values
"""
import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
import torch
import transformers
from llama_cpp import Llama
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = {
    "vocab_size": 1536, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "bos_token_id": None, "eos_token_id": 2,
    "pad_token_id": None, "initializer_range": 0.2,
}
# what differs; a name after a colon tells variants of a family apart
FAMILIES = {
    "llama": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0,
                                  "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
    "mistral": {"head_dim": 32, "sliding_window": 64},
    "mistral:whole": {"sliding_window": None, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    "qwen2": {"use_sliding_window": False, "tie_word_embeddings": True},
    "qwen2:window": {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1},
    "qwen3": {"head_dim": 32, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    "smollm3": {"num_hidden_layers": 5, "tie_word_embeddings": True},
    "phi3": {"sliding_window": None, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 256},
    "phi3:window": {"sliding_window": 64, "original_max_position_embeddings": 256},
    "gemma": {"head_dim": 32, "tie_word_embeddings": True},
    "gemma2": {"head_dim": 32, "sliding_window": 8, "query_pre_attn_scalar": 32, "attn_logit_softcapping": 50.0,
               "final_logit_softcapping": 30.0, "tie_word_embeddings": True},
    "gemma3_text": {"head_dim": 32, "num_hidden_layers": 7, "sliding_window": 8, "query_pre_attn_scalar": 32,
                    "tie_word_embeddings": True},
    "gemma3_text:linear": {"head_dim": 32, "num_hidden_layers": 7, "sliding_window": 8, "query_pre_attn_scalar": 32,
                           "tie_word_embeddings": True, "rope_parameters": {
                               "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                               "sliding_attention": {"rope_type": "default", "rope_theta": 5e3}}},
    "gemma2:pattern": {"head_dim": 32, "sliding_window": 8, "query_pre_attn_scalar": 32, "tie_word_embeddings": True,
                       "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
    "qwen3:yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
                                       "original_max_position_embeddings": 32}},
    "llama:yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "attention_factor": 1.3,
                                       "original_max_position_embeddings": 32}},
    "phi3:longrope": {"original_max_position_embeddings": 32, "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32,
        "short_factor": [1.0 + 0.01 * i for i in range(8)], "long_factor": [1.0 + 0.5 * i for i in range(8)]}},
    "olmo2": {},
    "olmo2:tied": {"tie_word_embeddings": True},
    "granite": {"embedding_multiplier": 12.0, "attention_multiplier": 0.25, "residual_multiplier": 0.22,
                "logits_scaling": 8.0, "tie_word_embeddings": True},
}
TOKENS, NEW = 40, 12


def simmer(program, *args):
    done = subprocess.run([program, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stderr


def make(name, folder, tokenizer):
    """A random model, its biases and norms too."""
    family = name.split(":")[0]
    torch.manual_seed(sum(map(ord, name)))
    config = AutoConfig.for_model(family, **{**SIZES, **FAMILIES[name]})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.2)
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tokenizer) / file, folder)
    return model


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()


def greedy(model, ids):
    ids = list(ids)
    for _ in range(NEW):
        ids.append(int(logits_of(model, ids)[-1].argmax()))
    return ids[-NEW:]


def check_logits(model, file, lora=None):
    rows = np.random.default_rng(1).integers(3, SIZES["vocab_size"], TOKENS).tolist()
    ours = logits_of(model, rows)
    llama = Llama(str(file), n_ctx=256, n_batch=256, n_threads=2, verbose=False, logits_all=True, lora_path=lora,
                  type_k=0, type_v=0)  # keys and values in f32
    llama.eval(rows)
    theirs = np.array(llama.scores[: len(rows)])
    difference = float(np.abs(ours - theirs).max())
    found = []
    llama.reset()
    llama.eval(rows)
    for _ in range(NEW):
        found.append(int(llama.scores[llama.n_tokens - 1].argmax()))
        llama.eval([found[-1]])
    problems = []
    # ggml computes GELU with a table in f16
    most = 2e-3 if model.config.model_type.startswith("gemma") else 2e-5
    if difference > most * max(1.0, float(np.abs(ours).max())):
        problems.append(f"logits differ by up to {difference:.2e}")
    if found != greedy(model, rows):
        problems.append("greedy tokens differ")
    return problems, f"logits within {difference:.1e} of {np.abs(ours).max():.1f}, {NEW} greedy tokens"


def check_adapter(program, source, file, work):
    """An adapter of all linear modules, with another rank for one of them."""
    base = AutoModelForCausalLM.from_pretrained(source, attn_implementation="eager").float().eval()
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", rank_pattern={"o_proj": 2}, task_type="CAUSAL_LM")
    adapted = get_peft_model(base, lora)
    torch.manual_seed(1)
    for key, value in adapted.named_parameters():
        if ".lora_B." in key:
            torch.nn.init.normal_(value, std=0.1)
    adapted.save_pretrained(work / "adapter")
    simmer(program, "convert", work / "adapter", work / "adapter.gguf", "--base", source)
    problems, text = check_logits(adapted.eval(), file, str(work / "adapter.gguf"))
    return [f"adapter: {problem}" for problem in problems], f"adapter: {text}"


def tensors_of(folder):
    return {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}


def check_back(program, model, source, file, back):
    simmer(program, "convert", file, back)
    problems = []
    before, after = tensors_of(source), tensors_of(back)
    if before.keys() != after.keys():
        problems.append(f"back: other tensors: {sorted(before.keys() ^ after.keys())}")
    worst = max(float((before[key].float() - after[key].float()).abs().max()) for key in before.keys() & after.keys())
    # 1 + weight has fewer bits of the weight
    gemma = model.config.model_type.startswith("gemma")
    if worst > (2.5e-7 if gemma else 0):
        problems.append(f"back: tensors differ by up to {worst}")
    rows = list(range(3, 3 + TOKENS))
    # the default of some classes is a token beyond this small vocabulary
    config = AutoConfig.from_pretrained(back, pad_token_id=None)
    again = AutoModelForCausalLM.from_pretrained(back, config=config, attn_implementation="eager").float().eval()
    difference = float(np.abs(logits_of(model, rows) - logits_of(again, rows)).max())
    if difference > (1e-4 if gemma else 0):
        problems.append(f"back: logits differ by up to {difference}")
    type_after = again.config.model_type
    return problems, f"back as {type_after}, tensors within {worst:.0e}, logits within {difference:.0e}"


def read_gguf(path):
    from gguf import GGUFReader
    reader = GGUFReader(path)
    keys = {key: field.contents() for key, field in reader.fields.items() if not key.startswith(("GGUF.", "tokenizer."))}
    return keys, {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


def their_file(source, out):
    """The file of llama.cpp's converter, without a tokenizer."""
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    hparams = ModelBase.load_hparams(source, False)
    name = get_model_architecture(hparams, ModelType.TEXT)
    kind = get_model_class(name)

    kind.set_vocab = lambda self: None
    with torch.inference_mode():
        kind(source, gguf.LlamaFileType.ALL_F32, out, hparams=hparams).write()


def check_converter(source, file, out):
    their_file(source, out)
    problems = []
    (keys, tensors), (theirs, their_tensors) = read_gguf(file), read_gguf(out)
    ignored = {"general.name", "general.basename", "general.size_label", "general.finetune", "general.sampling.temp",
               "general.sampling.top_k", "general.sampling.top_p"}
    # llama.cpp's default is context_length, and without LongRoPE it is not used
    if "rope_factors_long.weight" not in tensors:
        ignored.add("phi3.rope.scaling.original_context_length")
    for key, value in theirs.items():
        if key in ignored:
            continue
        if key not in keys:
            problems.append(f"the converter writes {key} = {value}, simmer does not")
        elif keys[key] != value:
            problems.append(f"{key}: the converter writes {value}, simmer {keys[key]}")
    if keys["general.architecture"] == "olmo2" and "output.weight" not in their_tensors:
        # llama.cpp refuses the converter's file of a tied head: it requires this tensor
        their_tensors["output.weight"] = their_tensors["token_embd.weight"]
    if tensors.keys() != their_tensors.keys():
        problems.append(f"tensors: {sorted(tensors.keys() ^ their_tensors.keys())}")
    for name in tensors.keys() & their_tensors.keys():
        a, b = tensors[name], their_tensors[name]
        if keys["general.architecture"] == "gemma3" and name == "token_embd.weight":
            # the converter cuts the rows that the tokenizer has no token for
            a = a[: len(b)]
        if a.shape != b.shape:
            problems.append(f"{name}: simmer {a.shape}, the converter {b.shape}")
        elif not np.array_equal(a, b):
            problems.append(f"{name} differs by up to {np.abs(a - b).max():.2e}")
    more = sorted(keys.keys() - theirs.keys())
    return problems, f"converter: {len(theirs)} keys, {len(tensors)} tensors; simmer's alone: {' '.join(more) or 'none'}"


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("simmer")
    parser.add_argument("tokenizer")
    parser.add_argument("--llama-cpp")
    parser.add_argument("families", nargs="*")
    args = parser.parse_intermixed_args()
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if args.llama_cpp:
        sys.path[:0] = [args.llama_cpp, str(Path(args.llama_cpp) / "gguf-py")]
    failed = False
    for name in args.families or FAMILIES:
        with tempfile.TemporaryDirectory() as work:
            work = Path(work)
            source, file = work / "model", work / "model.gguf"
            model = make(name, source, args.tokenizer)
            try:
                said = simmer(args.simmer, "convert", source, file)
                checks = [
                    lambda: check_logits(model, file),
                    lambda: check_adapter(args.simmer, source, file, work),
                    lambda: check_back(args.simmer, model, source, file, work / "back"),
                ]
                if args.llama_cpp:
                    checks.append(lambda: check_converter(source, file, work / "theirs.gguf"))
                results = [check() for check in checks]
            except RuntimeError as error:
                results, said = [([str(error).strip()], "")], ""
        problems = [problem for found, _ in results for problem in found]
        failed |= bool(problems)
        print(f"{name}: " + "; ".join(text for _, text in results))
        for line in [*said.strip().splitlines(), *(f"FAILED {problem}" for problem in problems)]:
            print(f"    {line}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
