"""Tiny models of the families beside LLaMA, with one adapter each on all linear modules.

The models are as small as the case allows, and their golden files have the logits of two short rows only; longer rows are
compared by loss, gradients and log-probabilities. Weights have values of bf16, which git compresses to half.

`config.json` is what transformers 5 writes. `config.old.json` is the same model in the keys of transformers 4.
"""

from copy import deepcopy

import torch
from transformers import AutoConfig

import adapters
import models
import training
from models import BOS, EOS, VOCAB, TinyModel


def rope(theta: float, **more) -> dict:
    return {"rope_type": "default", "rope_theta": theta} | more


ATTENTION = adapters.ATTENTION
ALL_LINEAR = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
FUSED_LINEAR = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
LONG_TEXT = "then the man in the tin hat ran into the rain and the thin hen"
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "intermediate_size": 28,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
GEMMA = {"tie_word_embeddings": True, "head_dim": 8, "rms_norm_eps": 1e-6}
LONGROPE = {"short_factor": [1.0, 1.3, 1.9], "long_factor": [1.2, 3.1, 7.7]}
LOCAL = {"sliding_attention": rope(100.0)}
CAUSAL_LM = {
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "granite": "GraniteForCausalLM",
}


def written(family: str, settings: dict, dtype: str = "float32") -> dict:
    """The configuration as transformers 5 writes it."""
    config = AutoConfig.for_model(family, **deepcopy(settings))
    config.architectures, config.dtype = [CAUSAL_LM[family]], dtype
    return config.to_diff_dict()


def old(family: str, settings: dict, without: tuple[str, ...] = (), **more) -> dict:
    """The same configuration in the keys of transformers 4."""
    kept = {key: value for key, value in settings.items() if key not in ("rope_parameters", *without)}
    named = {"architectures": [CAUSAL_LM[family]], "model_type": family}
    return named | kept | more | {"torch_dtype": "float32", "transformers_version": "4.51.0", "use_cache": True}


def family(name: str, about: str, settings: dict, *, spelled: dict, without: tuple[str, ...] = (), **more) -> TinyModel:
    """A model folder with the name of its family. `spelled` and `without` make `config.old.json` from `settings`; a setting
    of None in `matters` leaves that feature out, which has to change the logits."""
    settings = SHAPE | settings
    more = {"row_lengths": [13, 38, 1, 7, 24], "logit_rows": [0, 2]} | more
    return TinyModel(
        name=name,
        about=about,
        config=written(name, settings),
        dtype=torch.float32,
        rounded=True,
        texts=[LONG_TEXT],
        other_configs={"config.old.json": old(name, settings, without, **spelled)},
        **more,
    )


FAMILIES = [
    family(
        "mistral",
        "Mistral: a sliding window shorter than the rows in every layer, head_dim 8 beside hidden_size 24 and 4 heads.",
        {"head_dim": 8, "sliding_window": 6, "rope_parameters": rope(5000.0)},
        spelled={"rope_theta": 5000.0, "hidden_act": "silu"},
        matters=[{"sliding_window": None}, {"sliding_window": 7}, {"rope_parameters": rope(10000.0)}],
        seed=101,
        bos=True,
    ),
    family(
        "qwen2",
        "Qwen2: biases on q, k and v, tied head, a sliding window from the second of three layers on.",
        {
            "num_hidden_layers": 3,
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
            "rope_parameters": rope(1000.0),
        },
        spelled={"rope_theta": 1000.0, "rope_scaling": None, "hidden_act": "silu"},
        matters=[{"use_sliding_window": False, "layer_types": None}, {"layer_types": ["sliding_attention"] * 3}],
        seed=102,
    ),
    family(
        "qwen3",
        "Qwen3: norms of q and k per head, one key-value head, head_dim 12 beside hidden_size 24 and 4 heads.",
        {"num_key_value_heads": 1, "head_dim": 12, "rope_parameters": rope(1000.0)},
        spelled={"rope_theta": 1000.0, "rope_scaling": None, "hidden_act": "silu", "attention_bias": False}
        | {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 2},
        matters=[{"rope_parameters": rope(10000.0)}],
        seed=103,
    ),
    family(
        "smollm3",
        "SmolLM3: no rotary positions in every second of four layers, tied head, one key-value head.",
        {
            "intermediate_size": 20,
            "num_hidden_layers": 4,
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
            "no_rope_layers": [1, 0, 1, 0],
            "no_rope_layer_interval": 2,
            "rope_parameters": rope(2000.0),
        },
        spelled={"rope_theta": 2000.0, "rope_scaling": None, "hidden_act": "silu", "attention_bias": False},
        without=("no_rope_layers",),
        matters=[{"no_rope_layers": [1, 1, 1, 0]}, {"no_rope_layers": [1, 1, 1, 1]}],
        seed=104,
    ),
    family(
        "phi3",
        "Phi-3: fused qkv_proj and gate_up_proj, longrope on 6 of 8 dimensions of a head with rows up to its original "
        "context of 16 and longer, a sliding window.",
        {
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "max_position_embeddings": 64,
            "original_max_position_embeddings": 16,
            "sliding_window": 7,
            "rope_parameters": LONGROPE | rope(1000.0, rope_type="longrope", partial_rotary_factor=0.75),
        },
        spelled={"rope_theta": 1000.0, "rope_scaling": LONGROPE | {"type": "longrope"}, "partial_rotary_factor": 0.75}
        | {"hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0},
        matters=[{"sliding_window": None}, {"original_max_position_embeddings": 64}],
        row_lengths=[17, 38, 1, 16, 24],
        seed=105,
    ),
    family(
        "gemma",
        "Gemma: norms that multiply by 1 + weight, scaled embeddings, GELU by tanh, tied head, one key-value head, head_dim "
        "8 beside hidden_size 24 and 4 heads.",
        GEMMA | {"num_key_value_heads": 1, "rope_parameters": rope(1000.0)},
        spelled={"rope_theta": 1000.0, "hidden_act": "gelu", "hidden_activation": None, "attention_bias": False},
        matters=[{"hidden_act": "silu"}, {"hidden_act": "gelu_python"}],
        norm=0.4,
        scales={"embed_tokens": 0.4, "o_proj": 2.0, "down_proj": 2.0},
        seed=106,
        bos=True,
    ),
    family(
        "gemma2",
        "Gemma 2: soft caps that bite on attention and logits, scores scaled by query_pre_attn_scalar, a sliding window in "
        "the first and third of three layers, norms before and after attention and MLP.",
        GEMMA
        | {
            "num_hidden_layers": 3,
            "sliding_window": 5,
            "query_pre_attn_scalar": 10,
            "attn_logit_softcapping": 6.0,
            "final_logit_softcapping": 5.0,
            "rope_parameters": rope(1000.0),
        },
        spelled={"rope_theta": 1000.0, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}
        | {"attention_bias": False, "cache_implementation": "hybrid"},
        matters=[
            {"attn_logit_softcapping": None},
            {"final_logit_softcapping": None},
            {"query_pre_attn_scalar": 8},
            {"layer_types": ["full_attention"] * 3},
            {"layer_types": ["sliding_attention"] * 3},
        ],
        norm=1.0,
        scales={"embed_tokens": 0.25, "q_proj": 1.3, "k_proj": 1.3},
        seed=207,
        bos=True,
    ),
    family(
        "gemma3_text",
        "Gemma 3: norms of q and k per head by 1 + weight, a sliding window with a rotary base of its own in all of four "
        "layers but the third, which scales its positions.",
        GEMMA
        | {
            "hidden_size": 20,
            "intermediate_size": 20,
            "num_hidden_layers": 4,
            "sliding_window": 6,
            "query_pre_attn_scalar": 6,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": LOCAL | {"full_attention": rope(1000.0, rope_type="linear", factor=4.0)},
        },
        spelled={"rope_theta": 1000.0, "rope_local_base_freq": 100.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}
        | {"sliding_window_pattern": 3, "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False}
        | {"attn_logit_softcapping": None, "final_logit_softcapping": None, "cache_implementation": "hybrid"},
        without=("layer_types",),
        matters=[
            {"layer_types": ["sliding_attention"] * 4},
            {"layer_types": ["full_attention"] * 4},
            {"query_pre_attn_scalar": 8},
            {"rope_parameters": LOCAL | {"full_attention": rope(1000.0)}},
            {"rope_parameters": LOCAL | {"full_attention": rope(100.0, rope_type="linear", factor=4.0)}},
        ],
        norm=1.5,
        scales={"embed_tokens": 0.4, "q_norm": 0.1, "k_norm": 0.1},
        seed=108,
        bos=True,
    ),
    family(
        "olmo2",
        "OLMo 2: norms after attention and MLP, norms of q and k over all heads.",
        {"rope_parameters": rope(1000.0)},
        spelled={"rope_theta": 1000.0, "rope_scaling": None, "hidden_act": "silu", "attention_bias": False},
        matters=[{"rope_parameters": rope(10000.0)}, {"rms_norm_eps": 1.0}],
        seed=109,
    ),
    family(
        "granite",
        "Granite: multipliers of embeddings, attention, residuals and logits; tied head.",
        {
            "tie_word_embeddings": True,
            "embedding_multiplier": 2.5,
            "attention_multiplier": 0.9,
            "residual_multiplier": 0.6,
            "logits_scaling": 0.7,
            "rope_parameters": rope(1000.0),
        },
        spelled={"rope_theta": 1000.0, "rope_scaling": None, "hidden_act": "silu", "attention_bias": False}
        | {"mlp_bias": False},
        matters=[
            {"embedding_multiplier": 1.0},
            {"attention_multiplier": 6**-0.5},
            {"residual_multiplier": 1.0},
            {"logits_scaling": 1.0},
        ],
        scales={"embed_tokens": 0.3, "o_proj": 1.5, "down_proj": 1.5},
        seed=110,
    ),
]

ADAPTERS = [
    adapters.TinyAdapter(
        model=spec.name,
        name="all-linear",
        lora=dict(r=4, lora_alpha=7, target_modules=FUSED_LINEAR if spec.name == "phi3" else ALL_LINEAR),
        seed=spec.seed + 100,
        steps=training.Settings(2e-3, schedule="cosine"),
        compact=True,
    )
    for spec in FAMILIES
]
