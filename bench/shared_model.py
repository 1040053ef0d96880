"""A folder in Meta's layout, of a published size in bf16, whose layers all are one: torch's files may share numbers.

    python bench/shared_model.py SIMMER SIZE OUT [--layers N]

So 65B lies in 4 GB on the disk, while a program that loads it holds every layer by itself: what loading, steps and
memory take is that of the size. Weights are random, norms 1. `--layers` makes fewer layers than the size has.
"""

import argparse
import json
import subprocess
from pathlib import Path

import torch

DEVIATION = 0.02


def matrix(rows: int, columns: int) -> torch.Tensor:
    return torch.empty(rows, columns, dtype=torch.bfloat16).normal_(0, DEVIATION)


def norm(size: int) -> torch.Tensor:
    return torch.ones(size, dtype=torch.bfloat16)


def layer(config: dict) -> dict[str, torch.Tensor]:
    """Names within a layer, as Meta has them."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    query, key = (config[f"num_{kind}_heads"] * config["head_dim"] for kind in ("attention", "key_value"))
    return {
        "attention.wq.weight": matrix(query, hidden),
        "attention.wk.weight": matrix(key, hidden),
        "attention.wv.weight": matrix(key, hidden),
        "attention.wo.weight": matrix(hidden, query),
        "feed_forward.w1.weight": matrix(inner, hidden),
        "feed_forward.w2.weight": matrix(hidden, inner),
        "feed_forward.w3.weight": matrix(inner, hidden),
        "attention_norm.weight": norm(hidden),
        "ffn_norm.weight": norm(hidden),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simmer", metavar="SIMMER")
    parser.add_argument("size", metavar="SIZE", help="llama-65b, or a folder whose shape is taken")
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("--layers", type=int, help="all of the size's without it")
    args = parser.parse_args()
    config = json.loads(subprocess.check_output([args.simmer, "show", args.size, "--json"]))["config"]
    layers = args.layers or config["num_hidden_layers"]
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    torch.manual_seed(0)
    tensors = {
        "tok_embeddings.weight": matrix(vocab, hidden),
        "norm.weight": norm(hidden),
        "output.weight": matrix(vocab, hidden),
    }
    one = layer(config)
    for number in range(layers):
        tensors.update({f"layers.{number}.{name}": tensor for name, tensor in one.items()})
    args.out.mkdir(parents=True)
    torch.save(tensors, args.out / "consolidated.00.pth")
    params = {
        "dim": hidden,
        "n_layers": layers,
        "n_heads": config["num_attention_heads"],
        "n_kv_heads": config["num_key_value_heads"],
        "norm_eps": config["rms_norm_eps"],
        "vocab_size": vocab,
    }
    (args.out / "params.json").write_text(json.dumps(params))


if __name__ == "__main__":
    main()
