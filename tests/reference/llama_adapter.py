"""LLaMA-Adapter as published, on the tiny models: prompts in the attention of the upper layers, and a gate for each head.

For the rotated queries q of a head and the prompts P of a layer, which have neither norm nor positions, attention becomes

    softmax(q k^T / sqrt(d)) v + tanh(gate) * softmax(q (P Wk^T)^T / sqrt(d)) (P Wv^T)

(Zhang et al. 2023, section 3.2). The module below wraps transformers' attention. Its folder is one of simmer's own, with the same tensors
as a checkpoint of the original's training code, adapter.pth. `check_llama_adapter.py` compares it with that code.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from peft import AdaptionPromptConfig
from safetensors.torch import save_file
from torch import nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import adapters
import models
import rows
import training

Activation = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Original:
    """One adapter: `length` prompts in each of the upper `layers` layers."""

    model: str
    name: str
    seed: int
    length: int
    layers: int
    steps: training.Settings


ADAPTERS = [
    Original("tied-gqa", "llama-adapter", 35, 3, 2, training.Settings(1e-2, schedule="cosine")),
    Original("untied-mha", "llama-adapter", 36, 5, 1, training.Settings(1e-2)),
]


class PromptedAttention(nn.Module):
    """The attention of a layer with prompts, whose own weights stay as they are."""

    def __init__(self, attention: nn.Module, length: int, activation: Activation = torch.tanh):
        super().__init__()
        self.attention, self.activation = attention, activation
        config = attention.config
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.adaption_prompt = nn.Parameter(torch.randn(1, length, config.hidden_size))
        self.adaption_gate = nn.Parameter(torch.zeros(self.heads))

    def split(self, projected: torch.Tensor, heads: int) -> torch.Tensor:
        """[batch, tokens, heads * d] -> [batch, heads, tokens, d]"""
        return projected.unflatten(-1, (heads, -1)).transpose(1, 2)

    def for_each_query(self, of_keys: torch.Tensor) -> torch.Tensor:
        return of_keys.repeat_interleave(self.heads // self.key_heads, dim=1)

    def mixed(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask=None) -> torch.Tensor:
        scores = queries @ self.for_each_query(keys).transpose(2, 3) / queries.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(-1) @ self.for_each_query(values)

    def forward(self, hidden_states, position_embeddings, attention_mask=None, past_key_values=None, **_):
        attention, hidden = self.attention, hidden_states
        queries = self.split(attention.q_proj(hidden), self.heads)
        keys, values = (self.split(of(hidden), self.key_heads) for of in (attention.k_proj, attention.v_proj))
        queries, keys = apply_rotary_pos_emb(queries, keys, *position_embeddings)
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, attention.layer_idx)
        length, seen = queries.shape[2], keys.shape[2]
        causal = torch.ones(length, seen, dtype=torch.bool).tril(seen - length)
        prompts = [self.split(of(self.adaption_prompt), self.key_heads) for of in (attention.k_proj, attention.v_proj)]
        gates = self.activation(self.adaption_gate)[:, None, None]
        mixed = self.mixed(queries, keys, values, causal) + gates * self.mixed(queries, *prompts)
        return attention.o_proj(mixed.transpose(1, 2).flatten(2)), None


def attach(base: nn.Module, length: int, layers: int, activation: Activation = torch.tanh) -> nn.Module:
    """Freezes the base model, and gives its upper layers prompts."""
    base.requires_grad_(False)
    for layer in base.model.layers[-layers:]:
        layer.self_attn = PromptedAttention(layer.self_attn, length, activation)
    return base


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The trained tensors, under the keys of simmer's file."""
    trained = {f"base_model.model.{name}": value for name, value in model.named_parameters() if value.requires_grad}
    assert all(key.split(".")[-1].startswith("adaption_") for key in trained)
    return trained


def checkpoint(model: nn.Module) -> dict[str, torch.Tensor]:
    """The trained tensors as the original's training code names them: gates of all layers, and the prompts as one matrix."""
    attentions = [layer.self_attn for layer in model.model.layers]
    heads = model.config.num_attention_heads
    gates = [of.adaption_gate if isinstance(of, PromptedAttention) else torch.zeros(heads) for of in attentions]
    prompts = [of.adaption_prompt[0] for of in attentions if isinstance(of, PromptedAttention)]
    state = {f"layers.{layer}.attention.gate": gate.detach().view(1, -1, 1, 1) for layer, gate in enumerate(gates)}
    return state | {"adapter_query.weight": torch.cat(prompts).detach()}


def make_adapter(spec: Original, folder: Path, golden_rows: list[dict], prompts: list[list[int]]) -> tuple[dict, dict]:
    """Saves the adapter, and returns its golden tensors and scalars: see adapters.py."""
    torch.manual_seed(spec.seed)
    model = attach(models.load(spec.model), spec.length, spec.layers)
    with torch.no_grad():
        for parameter in tensors(model).values():
            parameter += 0.5 * torch.randn_like(parameter)
    folder.mkdir(parents=True)
    save_file({key: value.detach() for key, value in tensors(model).items()}, folder / "adapter_model.safetensors", {"format": "pt"})
    torch.save(checkpoint(model), folder / "adapter.pth")
    config = AdaptionPromptConfig(
        base_model_name_or_path=spec.model, adapter_len=spec.length, adapter_layers=spec.layers,
        target_modules="self_attn", task_type="CAUSAL_LM", inference_mode=True,
    ).to_dict()
    config |= {"gate_activation": "tanh", "peft_type": "LLAMA_ADAPTER", "peft_version": version("peft")}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))

    golden = {}
    with torch.no_grad():
        for index, row in enumerate(golden_rows):
            golden[f"logits.{index}"] = rows.logits(model, row["input_ids"]).clone()
    scalars = {"loss": rows.backward(model, golden_rows), "trained_tokens": rows.trained_tokens(golden_rows)}
    golden |= {f"grad.{key}": value.grad.clone() for key, value in tensors(model).items()}
    model.zero_grad()
    scalars["greedy"] = adapters.clearest_answer(model, prompts)
    scalars["training"] = training.run(model, golden_rows, spec.steps)
    scalars["training"]["final_loss"] = rows.backward(model, golden_rows)
    golden |= {f"trained.{key}": value.detach().clone() for key, value in tensors(model).items()}
    return golden, scalars
