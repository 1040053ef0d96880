"""Writes a folder in Meta's layout, of a published size in bf16, in which all layers share the same tensors.

    python bench/shared_model.py SIMMER SIZE OUT [--layers N]

Tensors in torch's files may share memory. 65B therefore takes 4 GB on disk, but a program that loads it holds every layer
separately: loading, steps and memory cost as much as for a real model of this size. Weights are random; norms are 1.
`--layers` writes fewer layers than the size has.
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
    """The tensors of a layer, with Meta's names."""
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
    parser.add_argument("size", metavar="SIZE", help="llama-65b, or a model folder to take the shape from")
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("--layers", type=int, help="number of layers, default: as many as the size has")
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
