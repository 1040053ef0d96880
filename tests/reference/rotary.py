"""Writes tests/goldens/rotary.json: frequencies, attention factors, and cosines and sines of transformers' rotary embeddings.

A case has the keys of config.json as models have them (`keys`), the number of rotary features of a head (`dim`), and for each
length of a row the frequencies, and the cosines and sines of some of its positions. Each length has a new module, since those of
transformers remember earlier lengths.
"""

import copy
import json
import pathlib

import torch
from transformers import LlamaConfig, Phi3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

SHORT = [1.0, 1.05, 1.1, 1.3, 1.8, 2.5, 3.0, 4.0]
LONG = [1.1, 1.5, 2.25, 4.0, 9.5, 20.0, 33.5, 64.0]
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}

# name, family, keys of config.json, head_dim, part of it that rotates, lengths
CASES = [
    ("default", "llama", {"rope_theta": 10000.0, "max_position_embeddings": 64}, 16, 1.0, [3, 100]),
    (
        "linear, old spelling",
        "llama",
        {"rope_theta": 500000.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
        16,
        1.0,
        [70],
    ),
    (
        "llama3",
        "llama",
        {
            "rope_theta": 500000.0,
            "max_position_embeddings": 131072,
            "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 8192},
        },
        128,
        1.0,
        [9],
    ),
    (
        "llama3, context at the top level",
        "llama",
        {
            "max_position_embeddings": 512,
            "original_max_position_embeddings": 64,
            "rope_parameters": LLAMA3 | {"rope_theta": 10000.0, "original_max_position_embeddings": 128},
        },
        16,
        1.0,
        [9],
    ),
    (
        "dynamic, old spelling",
        "llama",
        {"rope_theta": 10000.0, "max_position_embeddings": 32, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        16,
        1.0,
        [5, 32, 33, 100],
    ),
    (
        "dynamic",
        "llama",
        {
            "max_position_embeddings": 48,
            "rope_parameters": {"rope_type": "dynamic", "factor": 3.3, "rope_theta": 500000.0},
        },
        12,
        1.0,
        [48, 49, 1000],
    ),
    (
        "dynamic, four features",
        "llama",
        {"rope_theta": 1000.0, "max_position_embeddings": 8, "rope_scaling": {"rope_type": "dynamic", "factor": 4}},
        4,
        1.0,
        [8, 9, 64],
    ),
    (
        "yarn, as for Qwen 2.5",
        "llama",
        {
            "rope_theta": 1000000.0,
            "max_position_embeddings": 32768,
            "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        },
        128,
        1.0,
        [7],
    ),
    (
        "yarn, as in DeepSeek",
        "llama",
        {
            "rope_theta": 10000,
            "max_position_embeddings": 163840,
            "rope_scaling": {
                "type": "yarn",
                "factor": 40,
                "original_max_position_embeddings": 4096,
                "beta_fast": 32,
                "beta_slow": 1,
                "mscale": 0.707,
                "mscale_all_dim": 1.0,
            },
        },
        64,
        1.0,
        [7],
    ),
    (
        "yarn, everything said",
        "llama",
        {
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 32.0,
                "original_max_position_embeddings": 128,
                "beta_fast": 24.0,
                "beta_slow": 1.5,
                "attention_factor": 1.25,
                "mscale": 2.0,
                "mscale_all_dim": 1.0,
                "truncate": False,
            },
        },
        32,
        1.0,
        [300],
    ),
    (
        "yarn, context inferred, zeros",
        "llama",
        {
            "rope_theta": 10000.0,
            "max_position_embeddings": 2048,
            "rope_scaling": {"rope_type": "yarn", "factor": 2.5, "beta_fast": 0, "beta_slow": None, "mscale": 0},
        },
        16,
        1.0,
        [20],
    ),
    (
        "yarn, factor inferred",
        "llama",
        {
            "rope_theta": 10000.0,
            "max_position_embeddings": 2048,
            "rope_scaling": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 600},
        },
        16,
        1.0,
        [20],
    ),
    (
        "yarn, a ramp without length",
        "llama",
        {
            "rope_theta": 10000.0,
            "max_position_embeddings": 64,
            "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 4},
        },
        16,
        1.0,
        [20],
    ),
    (
        "longrope, su",
        "phi3",
        {
            "rope_theta": 10000.0,
            "max_position_embeddings": 131,
            "original_max_position_embeddings": 32,
            "rope_scaling": {"type": "su", "short_factor": SHORT, "long_factor": LONG},
        },
        16,
        1.0,
        [5, 32, 33, 131],
    ),
    (
        "longrope, called yarn",
        "phi3",
        {
            "rope_theta": 10000.0,
            "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096,
            "rope_scaling": {"type": "yarn", "short_factor": SHORT, "long_factor": LONG},
        },
        16,
        1.0,
        [40],
    ),
    (
        "longrope, a part of the head",
        "phi3",
        {
            "rope_theta": 10000.0,
            "max_position_embeddings": 64,
            "original_max_position_embeddings": 16,
            "partial_rotary_factor": 0.75,
            "rope_scaling": {"type": "longrope", "short_factor": SHORT[:6], "long_factor": LONG[:6]},
        },
        16,
        0.75,
        [16, 17],
    ),
    (
        "longrope, everything said",
        "llama",
        {
            "max_position_embeddings": 64,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 50000.0,
                "short_factor": SHORT,
                "long_factor": LONG,
                "original_max_position_embeddings": 24,
                "factor": 8.0,
                "attention_factor": 1.5,
            },
        },
        16,
        1.0,
        [24, 25],
    ),
    (
        "longrope, factor said",
        "llama",
        {
            "max_position_embeddings": 64,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 50000.0,
                "short_factor": SHORT,
                "long_factor": LONG,
                "original_max_position_embeddings": 64,
                "factor": 8.0,
            },
        },
        16,
        1.0,
        [64, 65],
    ),
]


def numbers(tensor):
    """The numbers of an f32 tensor, with the digits that determine them."""
    return [float(f"{x:.9g}") for x in tensor.flatten().tolist()]


def row(module, length, dim):
    """A row of `length` tokens: what the module computes in it."""
    cos, sin = module(torch.zeros(1, length, 8), torch.arange(length)[None])
    positions = sorted({0, 1, length // 2, length - 1})
    half = dim // 2
    return {
        "length": length,
        "frequencies": numbers(module.inv_freq),
        "positions": positions,
        "cos": numbers(cos[0, positions, :half]),
        "sin": numbers(sin[0, positions, :half]),
    }


def case(name, family, keys, head_dim, part, lengths):
    config_class, module_class = {
        "llama": (LlamaConfig, LlamaRotaryEmbedding),
        "phi3": (Phi3Config, Phi3RotaryEmbedding),
    }[family]
    dim = int(head_dim * part)

    # Phi3Config renames "su" only after it looked for the context before scaling
    read = copy.deepcopy(keys)
    if read.get("rope_scaling", {}).get("type") == "su":
        read["rope_scaling"]["type"] = "longrope"

    def module():
        sizes = {"hidden_size": 2 * head_dim, "num_attention_heads": 2, "num_key_value_heads": 2}
        if family == "llama":
            sizes["head_dim"] = head_dim
        return module_class(config_class(**sizes, **copy.deepcopy(read), pad_token_id=0))

    return {
        "name": name,
        "keys": keys,
        "dim": dim,
        "attention_factor": float(module().attention_scaling),
        "rows": [row(module(), length, dim) for length in lengths],
    }


def main():
    torch.set_num_threads(1)
    path = pathlib.Path(__file__).parent.parent / "goldens/rotary.json"
    lines = ",\n".join(json.dumps(case(*given)) for given in CASES)
    path.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
