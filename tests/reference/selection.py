"""The modules that PEFT adapts for a configuration, with rank and scaling, and the other parameters that it trains."""

import warnings

from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM

MODEL = {
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "attention_bias": True,
    "mlp_bias": False,
    "tie_word_embeddings": False,
}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = ATTENTION + ["gate_proj", "up_proj", "down_proj"]

CONFIGS = [
    # target_modules: PEFT's default for the model type, lists, one regular expression, all modules
    {},
    {"target_modules": ATTENTION},
    {"target_modules": ["self_attn.o_proj", "mlp.down_proj"]},
    {"target_modules": ["model.layers.1.self_attn.q_proj", "v_proj"]},
    {"target_modules": ["q_proj", "lm_head"]},
    {"target_modules": ["proj"]},
    {"target_modules": ["q_proj", "no_such_module"]},
    {"target_modules": []},
    {"target_modules": r".*\.(q|v)_proj"},
    {"target_modules": r"q_proj"},
    {"target_modules": r".*layers\.(?!0\.)\d+\.mlp\.(gate|up)_proj"},
    {"target_modules": r"lm_head|model\.layers\.2\..*_proj"},
    {"target_modules": "all-linear"},
    {"target_modules": "All-Linear"},
    {"target_modules": ["all-linear"]},
    {"target_modules": ["self_attn"]},
    # exclude_modules
    {"target_modules": "all-linear", "exclude_modules": ["k_proj", "layers.0.mlp.up_proj"]},
    {"target_modules": "all-linear", "exclude_modules": r".*\.mlp\..*"},
    {"target_modules": ATTENTION, "exclude_modules": ["model.layers.2.self_attn.o_proj"]},
    {"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]},
    {"target_modules": r".*\.q_proj", "exclude_modules": ["layers.1.self_attn.q_proj"]},
    # layers_to_transform and layers_pattern
    {"target_modules": ATTENTION, "layers_to_transform": [0, 2]},
    {"target_modules": ATTENTION, "layers_to_transform": 1},
    {"target_modules": ATTENTION, "layers_to_transform": []},
    {"target_modules": ["v_proj", "lm_head"], "layers_to_transform": [1]},
    {"target_modules": ["model.layers.0.self_attn.q_proj", "v_proj"], "layers_to_transform": [2]},
    {"target_modules": ["q_proj"], "layers_to_transform": [1, 2], "layers_pattern": "layers"},
    {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["h", "layers"]},
    {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "h"},
    {"target_modules": ["q_proj"], "layers_to_transform": [7]},
    {"target_modules": ["q_proj"], "layers_pattern": "layers"},
    {"target_modules": r".*\.q_proj", "layers_to_transform": [1]},
    {"target_modules": "all-linear", "layers_to_transform": [1]},
    # rank_pattern, alpha_pattern, use_rslora
    {"target_modules": ALL, "r": 8, "lora_alpha": 16, "rank_pattern": {"q_proj": 2, "mlp.down_proj": 4}},
    {"target_modules": ALL, "r": 8, "lora_alpha": 16, "alpha_pattern": {r"layers.1.*": 3, "v_proj": 64}},
    {
        "target_modules": ALL,
        "r": 8,
        "lora_alpha": 16,
        "rank_pattern": {r"^model.layers.0.self_attn.q_proj": 3, r"^layers.0.self_attn.k_proj": 5},
        "alpha_pattern": {r"model.layers.[02].mlp.(up|gate)_proj": 1},
    },
    {"target_modules": ALL, "r": 8, "rank_pattern": {r".*_proj": 2, "q_proj": 4}},
    {"target_modules": ALL, "r": 8, "rank_pattern": {"q_proj": 4, r".*_proj": 2}},
    {"target_modules": ALL, "r": 8, "rank_pattern": {"_proj": 4, "o_pro": 2, "self_attn": 1}},
    {"target_modules": ATTENTION, "r": 8, "lora_alpha": 16, "use_rslora": True},
    {
        "target_modules": ATTENTION,
        "r": 8,
        "lora_alpha": 16,
        "use_rslora": True,
        "rank_pattern": {"q_proj": 3},
        "alpha_pattern": {"q_proj": 5, "k_proj": 7},
    },
    # modules_to_save and bias
    {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    {"target_modules": "all-linear", "modules_to_save": ["lm_head", "embed_tokens"]},
    {"target_modules": ALL, "modules_to_save": ["mlp"]},
    {"target_modules": ["q_proj"], "modules_to_save": ["norm"]},
    {"target_modules": ["q_proj"], "modules_to_save": ["no_such_module"]},
    {"target_modules": ["q_proj", "v_proj"], "bias": "all"},
    {"target_modules": ["q_proj", "down_proj"], "bias": "lora_only"},
    {"target_modules": ["q_proj"], "modules_to_save": ["k_proj"], "bias": "all"},
]


def cases() -> dict:
    return {"model": MODEL, "cases": [case(config) for config in CONFIGS]}


def case(config: dict) -> dict:
    """`modules`: adapted module -> [rank, scaling]; `also_trained`: the other keys of the adapter file, without their
    prefix `base_model.model.`; `warnings`: PEFT's warnings; `error`: PEFT's message if it rejects the configuration."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`")  # PEFT's own use of transformers
        try:
            model = get_peft_model(LlamaForCausalLM(LlamaConfig(**MODEL)), LoraConfig(task_type="CAUSAL_LM", **config))
        except (ValueError, TypeError) as error:
            return {"config": config, "error": str(error).split("\n")[0]}
    layers = {
        name.removeprefix("base_model.model."): [layer.r["default"], layer.scaling["default"]]
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }
    saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {
        "config": config,
        "modules": layers,
        "also_trained": sorted(key.removeprefix("base_model.model.") for key in saved if ".lora_" not in key),
        "warnings": [str(warning.message).split("\n")[0] for warning in caught],
    }
