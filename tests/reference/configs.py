"""What transformers makes of the configurations of published models: tests/goldens/configs.json.

Each configuration has the keys of the file on the hub that decide something, in its spelling (transformers 4 or 5), nulls and
omissions included. The values are those of the classes of transformers, on the meta device.
"""

import json
import pathlib

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

FULL, SLIDES = "full_attention", "sliding_attention"


def sizes(vocab, hidden, inner, layers, heads, key_heads=None):
    keys = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    return keys if key_heads is None else keys | {"num_key_value_heads": key_heads}


CONFIGS = {
    "mistralai/Mistral-7B-v0.1": {
        "model_type": "mistral", "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False,
    } | sizes(32000, 4096, 14336, 32, 32, 8),
    "mistralai/Mistral-7B-Instruct-v0.3": {
        "model_type": "mistral", "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0, "sliding_window": None, "tie_word_embeddings": False,
    } | sizes(32768, 4096, 14336, 32, 32, 8),
    "mistralai/Mistral-Nemo-Base-2407": {
        "model_type": "mistral", "head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": None, "tie_word_embeddings": False,
    } | sizes(131072, 5120, 14336, 40, 32, 8),
    "Qwen/Qwen2.5-0.5B": {
        "model_type": "qwen2", "hidden_act": "silu", "max_position_embeddings": 32768, "max_window_layers": 24,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True,
        "use_mrope": False, "use_sliding_window": False,
    } | sizes(151936, 896, 4864, 24, 14, 2),
    "Qwen/Qwen2.5-32B-Instruct": {
        "model_type": "qwen2", "hidden_act": "silu", "max_position_embeddings": 32768, "max_window_layers": 70,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": False,
        "use_sliding_window": False,
    } | sizes(152064, 5120, 27648, 64, 40, 8),
    # with the windows switched on, as Qwen describes it
    "Qwen/Qwen2-7B-Instruct, windows on": {
        "model_type": "qwen2", "hidden_act": "silu", "max_position_embeddings": 32768, "max_window_layers": 21,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 16384, "tie_word_embeddings": False,
        "use_sliding_window": True,
    } | sizes(152064, 3584, 18944, 28, 28, 4),
    "Qwen/Qwen3-0.6B": {
        "model_type": "qwen3", "attention_bias": False, "head_dim": 128, "hidden_act": "silu",
        "max_position_embeddings": 40960, "max_window_layers": 28, "rms_norm_eps": 1e-06, "rope_scaling": None,
        "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True, "use_sliding_window": False,
        "layer_types": [FULL] * 28,
    } | sizes(151936, 1024, 3072, 28, 16, 8),
    "HuggingFaceTB/SmolLM3-3B": {
        "model_type": "smollm3", "attention_bias": False, "hidden_act": "silu", "layer_types": [FULL] * 36,
        "max_position_embeddings": 65536, "max_window_layers": 28, "mlp_bias": False, "no_rope_layer_interval": 4,
        "no_rope_layers": [1, 1, 1, 0] * 9, "pretraining_tp": 2, "rms_norm_eps": 1e-06, "rope_scaling": None,
        "rope_theta": 5000000.0, "sliding_window": None, "use_sliding_window": False,
    } | sizes(128256, 2048, 11008, 36, 16, 4),
    "microsoft/Phi-3-mini-4k-instruct": {
        "model_type": "phi3", "attention_bias": False, "embd_pdrop": 0.0, "hidden_act": "silu",
        "max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 2047,
        "tie_word_embeddings": False,
    } | sizes(32064, 3072, 8192, 32, 32, 32),
    "microsoft/phi-4": {
        "model_type": "phi3", "attention_bias": False, "hidden_act": "silu", "max_position_embeddings": 16384,
        "original_max_position_embeddings": 16384, "rms_norm_eps": 1e-05, "rope_scaling": None,
        "rope_theta": 250000.0, "sliding_window": None, "tie_word_embeddings": False,
    } | sizes(100352, 5120, 17920, 40, 40, 10),
    # without the factors of its rotary frequencies
    "microsoft/Phi-4-mini-instruct, unscaled": {
        "model_type": "phi3", "attention_bias": False, "full_attn_mod": 1, "hidden_act": "silu",
        "max_position_embeddings": 131072, "mlp_bias": False, "original_max_position_embeddings": 4096,
        "partial_rotary_factor": 0.75, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 262144,
        "tie_word_embeddings": True,
    } | sizes(200064, 3072, 8192, 32, 24, 8),
    "google/gemma-2b": {
        "model_type": "gemma", "attention_bias": False, "head_dim": 256, "hidden_act": "gelu",
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 10000.0,
    } | sizes(256000, 2048, 16384, 18, 8, 1),
    "google/gemma-2-2b-it": {
        "model_type": "gemma2", "attention_bias": False, "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid",
        "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 8192, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096,
    } | sizes(256000, 2304, 9216, 26, 8, 4),
    "google/gemma-2-27b": {
        "model_type": "gemma2", "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "head_dim": 128,
        "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 8192,
        "query_pre_attn_scalar": 144, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096,
    } | sizes(256000, 4608, 36864, 46, 32, 16),
    "google/gemma-3-1b-it": {
        "model_type": "gemma3_text", "attention_bias": False, "attn_logit_softcapping": None,
        "cache_implementation": "hybrid", "final_logit_softcapping": None, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 32768, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000,
        "sliding_window": 512, "sliding_window_pattern": 6,
    } | sizes(262144, 1152, 6912, 26, 4, 1),
    "google/gemma-3-270m": {
        "model_type": "gemma3_text", "_sliding_window_pattern": 6, "attn_logit_softcapping": None,
        "final_logit_softcapping": None, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": ([SLIDES] * 5 + [FULL]) * 3, "max_position_embeddings": 32768, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000.0, "rope_scaling": None, "rope_theta": 1000000.0,
        "sliding_window": 512, "use_bidirectional_attention": False,
    } | sizes(262144, 640, 2048, 18, 4, 1),
    # as transformers 5 saves it
    "google/gemma-3-1b-it, transformers 5": {
        "model_type": "gemma3_text", "_sliding_window_pattern": 6, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "layer_types": (([SLIDES] * 5 + [FULL]) * 5)[:26],
        "max_position_embeddings": 32768, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "sliding_window": 512,
        "rope_parameters": {
            FULL: {"rope_theta": 1000000.0, "rope_type": "default"},
            SLIDES: {"rope_theta": 10000.0, "rope_type": "default"},
        },
        "tie_word_embeddings": True, "use_bidirectional_attention": False,
    } | sizes(262144, 1152, 6912, 26, 4, 1),
    "allenai/OLMo-2-0425-1B": {
        "model_type": "olmo2", "attention_bias": False, "hidden_act": "silu", "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 500000, "tie_word_embeddings": False,
    } | sizes(100352, 2048, 8192, 16, 16, 16),
    "ibm-granite/granite-3.3-2b-instruct": {
        "model_type": "granite", "attention_bias": False, "attention_multiplier": 0.015625,
        "embedding_multiplier": 12.0, "hidden_act": "silu", "logits_scaling": 8.0, "max_position_embeddings": 131072,
        "mlp_bias": False, "residual_multiplier": 0.22, "rms_norm_eps": 1e-05, "rope_scaling": None,
        "rope_theta": 10000000.0, "tie_word_embeddings": True,
    } | sizes(49159, 2048, 8192, 40, 32, 8),
}
# only the sizes: the defaults of each class
CONFIGS |= {
    f"{name}, defaults": {"model_type": name} | sizes(130000, 1536, 512, 8, 32)
    for name in ["llama", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "gemma", "gemma2", "gemma3_text", "olmo2", "granite"]
}


def windows(config, attention):
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None) if config.model_type != "llama" else None
    if config.model_type in ("mistral", "phi3"):
        return [window] * config.num_hidden_layers
    if kinds is None:
        return [None] * config.num_hidden_layers
    listed = [window if kind == SLIDES else None for kind in kinds]
    assert listed == [getattr(module, "sliding_window", None) for module in attention]
    return listed


def thetas(config):
    """The rotary base of each layer; none of a layer without rotary positions."""
    table = config.rope_parameters
    layers = range(config.num_hidden_layers)
    if SLIDES in table:
        return [table[config.layer_types[layer]]["rope_theta"] for layer in layers]
    rotates = getattr(config, "no_rope_layers", None) or [1] * len(layers)
    return [table["rope_theta"] if rotates[layer] else None for layer in layers]


def resolved(keys):
    keys = dict(keys)
    config = CONFIG_MAPPING[keys.pop("model_type")](**keys)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    attention = [layer.self_attn for layer in model.model.layers]
    head_dim = attention[0].head_dim
    caps = [getattr(config, f"{of}_logit_softcapping", None) for of in ("attn", "final")]
    return {
        "parameters": model.num_parameters(),
        "head_dim": head_dim,
        "num_key_value_heads": config.num_key_value_heads,
        "windows": windows(config, attention),
        "thetas": thetas(config),
        "scales": sorted({module.scaling for module in attention}),
        "rotary_dim": int(head_dim * config.rope_parameters.get("partial_rotary_factor", 1.0)),
        "caps": caps,
        "rms_norm_eps": config.rms_norm_eps,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
        "multipliers": [
            getattr(config, key, 1.0)
            for key in ("embedding_multiplier", "residual_multiplier", "logits_scaling")
        ],
    }


if __name__ == "__main__":
    out = pathlib.Path(__file__).parents[1] / "goldens" / "configs.json"
    cases = [{"name": name, "config": keys, "resolved": resolved(keys)} for name, keys in CONFIGS.items()]
    lines = ",\n".join(json.dumps(case) for case in cases)
    out.write_text(f"[\n{lines}\n]\n")
