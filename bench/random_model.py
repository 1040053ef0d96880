#!/usr/bin/env python3
"""Writes a Hugging Face folder with random weights of a published size, to measure simmer with large models.

Usage: random_model.py SIMMER SIZE OUT [f16|bf16]
       (random_model.py target/release/simmer llama-7b /big/disk/model)

The dtype is f16 by default. Matrices are normally distributed with a standard deviation of 0.02; norms are 1. The weights
are split into shards of at most 5 GB, as published models of that size are. Only numpy is needed. The tokenizer is the one
of data/tiny-base, because loading, converting and merging use only its size.
"""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

BLOCK_NUMBERS = 32 << 20
# names of the dtypes in config.json
NAMES = {"f16": "float16", "bf16": "bfloat16"}
LIMIT = 5_000_000_000


def tensors(c):
    """Names and shapes of the tensors, as in Hugging Face's layout."""
    hidden, inner, vocab = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    query, key = (c[f"num_{kind}_heads"] * c["head_dim"] for kind in ("attention", "key_value"))
    yield "model.embed_tokens.weight", [vocab, hidden]
    for layer in range(c["num_hidden_layers"]):
        for name, shape in {
            "self_attn.q_proj": [query, hidden], "self_attn.k_proj": [key, hidden], "self_attn.v_proj": [key, hidden],
            "self_attn.o_proj": [hidden, query], "mlp.gate_proj": [inner, hidden], "mlp.up_proj": [inner, hidden],
            "mlp.down_proj": [hidden, inner], "input_layernorm": [hidden], "post_attention_layernorm": [hidden],
        }.items():
            yield f"model.layers.{layer}.{name}.weight", shape
    yield "model.norm.weight", [hidden]
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", [vocab, hidden]


def stored(numbers, dtype):
    """The numbers as bytes in the dtype of the file."""
    if dtype == "f16":
        return numbers.astype(np.float16).view(np.uint8)
    # numpy has no bf16; it is the upper half of an f32
    return (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)


def write_shard(path, shard, dtype, block, ones):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shard:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": dtype.upper(), "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shard:
            numbers = ones if name.endswith("norm.weight") else block
            left = 2 * int(np.prod(shape))
            while left:
                piece = numbers[:left]
                out.write(piece)
                left -= len(piece)


def main(simmer, size, out, dtype="f16"):
    block = stored(np.random.default_rng(0).normal(0, 0.02, BLOCK_NUMBERS), dtype)
    ones = stored(np.ones(1 << 15), dtype)
    config = json.loads(subprocess.check_output([simmer, "show", size, "--json"]))["config"]
    out = Path(out)
    out.mkdir(parents=True)
    shards, filled = [[]], 0
    for name, shape in tensors(config):
        size = 2 * int(np.prod(shape))
        if filled + size > LIMIT and shards[-1]:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += size
    index = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        index.update({name: file for name, _ in shard})
        write_shard(out / file, shard, dtype, block, ones)
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    keys = {k: v for k, v in config.items() if k not in ("rope_scaling", "eos_token_id")}
    keys |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "eos_token_id": 2, "torch_dtype": NAMES[dtype]}
    (out / "config.json").write_text(json.dumps(keys, indent=2))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(__file__).parent.parent / "data/tiny-base" / name, out / name)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5) or not NAMES.keys() >= set(sys.argv[4:]):
        sys.exit(__doc__)
    main(*sys.argv[1:])
