"""Generates everything under tests/goldens/meta: models in Meta's layout as PyTorch saves them, and their expected tensors.

    python tests/reference/meta.py

A model is created in Hugging Face's layout. Its query and key rows are put into the order of rotary pairs (the inverse of
`permute` in transformers' convert_llama_weights_to_hf.py), and its matrices are split like fairscale's parallel layers.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

GOLDENS = Path(__file__).parent.parent / "goldens" / "meta"

LAYER = {
    "attention.wq": ("self_attn.q_proj", 0),
    "attention.wk": ("self_attn.k_proj", 0),
    "attention.wv": ("self_attn.v_proj", 0),
    "attention.wo": ("self_attn.o_proj", 1),
    "feed_forward.w1": ("mlp.gate_proj", 0),
    "feed_forward.w2": ("mlp.down_proj", 1),
    "feed_forward.w3": ("mlp.up_proj", 0),
    "attention_norm": ("input_layernorm", None),
    "ffn_norm": ("post_attention_layernorm", None),
}


@dataclass
class MetaModel:
    """One model, saved once for each number of parts in `shards`."""

    name: str
    params: dict
    intermediate_size: int
    vocab_size: int
    dtype: torch.dtype
    embedding_split: int
    shards: list[int]
    rope_freqs: bool
    seed: int


MODELS = [
    MetaModel(
        name="llama1",
        params={"dim": 32, "multiple_of": 8, "n_heads": 8, "n_layers": 1, "norm_eps": 1e-06, "vocab_size": -1},
        intermediate_size=88,
        vocab_size=16,
        dtype=torch.float16,
        embedding_split=1,
        shards=[2, 8],
        rope_freqs=True,
        seed=1,
    ),
    MetaModel(
        name="llama3",
        params={
            "dim": 32,
            "ffn_dim_multiplier": 0.6,
            "multiple_of": 16,
            "n_heads": 8,
            "n_kv_heads": 4,
            "n_layers": 1,
            "norm_eps": 1e-05,
            "rope_theta": 500000.0,
            "use_scaled_rope": True,
            "vocab_size": 24,
        },
        intermediate_size=64,
        vocab_size=24,
        dtype=torch.bfloat16,
        embedding_split=0,
        shards=[1, 4],
        rope_freqs=False,
        seed=2,
    ),
]


def hugging_face(model: MetaModel) -> dict[str, torch.Tensor]:
    """Random weights, with Hugging Face's names."""
    generator = torch.Generator().manual_seed(model.seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(model.dtype)

    dim, inner = model.params["dim"], model.intermediate_size
    kv = dim // model.params["n_heads"] * model.params.get("n_kv_heads", model.params["n_heads"])
    tensors = {"model.embed_tokens.weight": random(model.vocab_size, dim)}
    for layer in range(model.params["n_layers"]):
        for name, shape in {
            "self_attn.q_proj": (dim, dim),
            "self_attn.k_proj": (kv, dim),
            "self_attn.v_proj": (kv, dim),
            "self_attn.o_proj": (dim, dim),
            "mlp.gate_proj": (inner, dim),
            "mlp.up_proj": (inner, dim),
            "mlp.down_proj": (dim, inner),
            "input_layernorm": (dim,),
            "post_attention_layernorm": (dim,),
        }.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = random(*shape)
    tensors["model.norm.weight"] = random(dim)
    tensors["lm_head.weight"] = random(model.vocab_size, dim)
    return tensors


def to_pairs(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorders the rows of each head from halves to pairs."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def to_halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorders the rows of each head from pairs to halves."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def names(n_layers: int, embedding_split: int) -> dict[str, tuple[str, int | None]]:
    """Meta's names, each with Hugging Face's name and the dimension that is split."""
    found = {"tok_embeddings": ("model.embed_tokens", embedding_split)}
    for layer in range(n_layers):
        for name, (other, split) in LAYER.items():
            found[f"layers.{layer}.{name}"] = (f"model.layers.{layer}.{other}", split)
    found["norm"] = ("model.norm", None)
    found["output"] = ("lm_head", 0)
    return {f"{name}.weight": (f"{other}.weight", split) for name, (other, split) in found.items()}


def heads_of(name: str, params: dict) -> int | None:
    """The number of heads of a projection whose rows are in pairs; None for other tensors."""
    if name.endswith(".wq.weight"):
        return params["n_heads"]
    if name.endswith(".wk.weight"):
        return params.get("n_kv_heads") or params["n_heads"]
    return None


def cut(model: MetaModel, tensors: dict[str, torch.Tensor], shards: int) -> list[dict[str, torch.Tensor]]:
    """The state dict of each part."""
    parts = [{} for _ in range(shards)]
    for name, (other, split) in names(model.params["n_layers"], model.embedding_split).items():
        weight = tensors[other]
        heads = heads_of(name, model.params)
        if heads:
            weight = to_pairs(weight, heads)
        cuts = [weight] * shards if split is None else weight.chunk(shards, dim=split)
        for part, tensor in zip(parts, cuts, strict=True):
            part[name] = tensor.clone(memory_format=torch.contiguous_format)
    if model.rope_freqs:
        head_dim = model.params["dim"] // model.params["n_heads"]
        for part in parts:
            part["rope.freqs"] = 1.0 / 10000 ** (torch.arange(0, head_dim, 2) / head_dim)
    return parts


def write_model(model: MetaModel) -> None:
    folder = GOLDENS / model.name
    folder.mkdir(parents=True)
    tensors = hugging_face(model)
    save_file(tensors, folder / "expected.safetensors")
    for shards in model.shards:
        parts = folder / f"{shards}"
        parts.mkdir()
        (parts / "params.json").write_text(json.dumps(model.params))
        for number, part in enumerate(cut(model, tensors, shards)):
            torch.save(part, parts / f"consolidated.{number:02}.pth")


def write_files() -> None:
    """Single files: tensors that share storages, and the format before PyTorch 1.6."""
    base = torch.arange(24, dtype=torch.float32)
    state = torch.nn.Linear(2, 2).state_dict()  # an OrderedDict with attributes
    state.clear()
    state["whole"] = base.view(4, 6)
    state["rows"] = base.view(4, 6)[1:3]
    state["again"] = base.view(2, 3, 4)
    state["one row"] = base.view(4, 6)[3:, :]
    state["empty"] = torch.empty(0, 5)
    state["scalar"] = torch.tensor(1.5, dtype=torch.float64)
    state["parameter"] = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.bfloat16))
    state["integers"] = torch.tensor([[1, -1]], dtype=torch.int64)
    state["bytes"] = torch.tensor([1, 2], dtype=torch.uint8)
    state["flags"] = torch.tensor([True, False])
    torch.save(state, GOLDENS / "views.pth")
    torch.save(state, GOLDENS / "views.protocol4.pth", pickle_protocol=4)
    torch.save(state, GOLDENS / "views.legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"columns": base.view(4, 6)[:, :3]}, GOLDENS / "columns.pth")
    torch.save({"state_dict": {"a": base[:2].clone()}, "epoch": 3}, GOLDENS / "checkpoint.pth")
    torch.save(torch.nn.Linear(1, 1), GOLDENS / "module.pth")


def main() -> None:
    shutil.rmtree(GOLDENS, ignore_errors=True)
    GOLDENS.mkdir(parents=True)
    torch.manual_seed(0)
    write_files()
    for model in MODELS:
        write_model(model)


if __name__ == "__main__":
    main()
