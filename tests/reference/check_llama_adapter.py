"""Compares llama_adapter.py with the original's training code, which is run from a file of your own:

    curl -O https://raw.githubusercontent.com/OpenGVLab/LLaMA-Adapter/521a09d/alpaca_finetuning_v1/llama/model.py
    python tests/reference/check_llama_adapter.py model.py

Its sizes and its f16 are replaced before it is run. Loss, gradients of prompts and gates, and ten steps of SGD have to agree.
"""

import sys
import types
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import llama_adapter
import rows

HIDDEN, HEADS, LAYERS, PROMPTED, LENGTH, VOCAB = 32, 4, 3, 2, 5, 60
# Meta's names, and transformers'
NAMES = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
OUTSIDE = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}


def original(path: Path) -> torch.nn.Module:
    text = path.read_text().replace("4096", "self.params.dim").replace(".half()", "")
    module = types.ModuleType("original")
    sys.modules["original"] = module
    exec(compile(text, str(path), "exec"), module.__dict__)
    sizes = dict(dim=HIDDEN, n_layers=LAYERS, n_heads=HEADS, vocab_size=VOCAB, multiple_of=8, max_seq_len=64)
    return module.Transformer(module.ModelArgs(**sizes, adapter_len=LENGTH, adapter_layer=PROMPTED))


def halves(weight: torch.Tensor) -> torch.Tensor:
    """Rotary pairs, which Meta has one after the other, as transformers has them: first the one part, then the other."""
    return weight.view(HEADS, -1, 2, HIDDEN).transpose(1, 2).reshape(HIDDEN, HIDDEN)


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Meta's weights for transformers."""
    found = {f"{theirs}.weight": state[f"{name}.weight"] for name, theirs in OUTSIDE.items()}
    for layer in range(LAYERS):
        for name, theirs in NAMES.items():
            weight = state[f"layers.{layer}.{name}.weight"]
            rotated = name in ("attention.wq", "attention.wk")
            found[f"model.layers.{layer}.{theirs}.weight"] = halves(weight) if rotated else weight
    return found


def close(what: str, one: torch.Tensor, other: torch.Tensor) -> None:
    gap = ((one - other).norm() / other.norm()).item()
    print(f"{what}: {gap:.1e} apart")
    assert gap < 1e-5, what


def main() -> None:
    torch.manual_seed(1)
    theirs = original(Path(sys.argv[1]))
    inner = theirs.layers[0].feed_forward.w1.weight.shape[0]
    config = LlamaConfig(
        hidden_size=HIDDEN, num_attention_heads=HEADS, num_hidden_layers=LAYERS, vocab_size=VOCAB, intermediate_size=inner,
        rms_norm_eps=1e-5, tie_word_embeddings=False, attn_implementation="eager",
    )
    ours = LlamaForCausalLM(config).eval()
    ours.load_state_dict(renamed(theirs.state_dict()))
    ours = llama_adapter.attach(ours, LENGTH, PROMPTED)
    prompted = [layer.self_attn for layer in ours.model.layers[-PROMPTED:]]
    gates = [layer.attention.gate for layer in theirs.layers[-PROMPTED:]]
    with torch.no_grad():
        for at, (attention, gate) in enumerate(zip(prompted, gates)):
            gate.copy_(torch.randn_like(gate))
            attention.adaption_gate.copy_(gate.flatten())
            attention.adaption_prompt[0].copy_(theirs.adapter_query.weight[at * LENGTH : (at + 1) * LENGTH])
    ids = torch.randint(1, VOCAB, (1, 20))
    row = {"input_ids": ids[0].tolist(), "labels": ids[0].tolist()}
    for step in range(10):
        theirs.zero_grad(), ours.zero_grad()
        loss = theirs(ids, ids)
        loss.backward()
        found = rows.backward(ours, [row])
        close(f"step {step}, loss", torch.tensor(found), loss.detach())
        close("prompts", torch.cat([of.adaption_prompt.grad[0] for of in prompted]), theirs.adapter_query.weight.grad)
        for attention, gate in zip(prompted, gates):
            close("gates", attention.adaption_gate.grad, gate.grad.flatten())
        trained = [*(p for p in ours.parameters() if p.requires_grad), theirs.adapter_query.weight, *gates]
        with torch.no_grad():
            for parameter in trained:
                parameter -= 0.1 * parameter.grad
    state = llama_adapter.checkpoint(ours)
    assert state.keys() == {key for key in theirs.state_dict() if key.startswith("adapter") or key.endswith("gate")}
    for key, value in state.items():
        if value.any():
            close(key, value, theirs.state_dict()[key])


if __name__ == "__main__":
    main()
