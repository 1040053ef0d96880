"""The tiny models of the goldens: their configurations, random weights, tokenizer and files.

The folders are not written by `save_pretrained`, so that the keys of the configuration, the dtype, the shards and the extra
tensors can be those of each case. All other scripts load the folders with transformers, which shows that they are valid.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from files import write_json

UNK, BOS, EOS = 0, 1, 2
MERGES = ["t h", "th e", "i n", "e r", "a n"]
VOCAB = 3 + 1 + 95 + len(MERGES)  # specials, newline, printable ASCII, merges


@dataclass
class TinyModel:
    """One model folder of tests/goldens.

    `norm` is what the weights of norms are around, and `scales` multiplies it or the weights of the modules that it names. A
    `rounded` model has values of bf16 in its dtype. `logit_rows` are the rows whose logits are stored, all without it;
    `texts` are scored beside the usual ones. `matters` are changes of the configuration, each of which has to change logits.
    """

    name: str
    about: str
    config: dict
    dtype: torch.dtype
    row_lengths: list[int]
    seed: int
    shards: int = 1
    inv_freq: bool = False
    bos: bool = False
    chat_template_in_config: bool = False
    other_configs: dict[str, dict] = field(default_factory=dict)
    norm: float = 1.0
    scales: dict[str, float] = field(default_factory=dict)
    rounded: bool = False
    logit_rows: list[int] | None = None
    texts: list[str] = field(default_factory=list)
    matters: list[dict] = field(default_factory=list)


COMMON = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_act": "silu",
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LLAMA3_CONFIG = COMMON | {
    "eos_token_id": [EOS, 3],
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
}

MODELS = [
    TinyModel(
        name="tied-gqa",
        about="Tied head, 4 heads over 2 key-value heads, head_dim 12 beside hidden_size 32, f32, one file.",
        config=COMMON
        | {
            "hidden_size": 32,
            "intermediate_size": 56,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 12,
            "max_position_embeddings": 128,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "dtype": "float32",
        },
        dtype=torch.float32,
        row_lengths=[1, 5, 20, 12, 9, 16],
        seed=1,
    ),
    TinyModel(
        name="untied-mha",
        about="Own head, as many key-value heads as heads, biases everywhere, bf16 in two shards, with the inv_freq "
        "keys and the configuration spelling of the first LLaMA conversions.",
        config=COMMON
        | {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "initializer_range": 0.02,
            "pad_token_id": 0,
            "rms_norm_eps": 1e-6,
            "rope_theta": 5000.0,
            "rope_scaling": None,
            "tie_word_embeddings": False,
            "attention_bias": True,
            "mlp_bias": True,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.28.0",
            "use_cache": True,
        },
        dtype=torch.bfloat16,
        row_lengths=[7, 18, 1, 11, 14],
        seed=2,
        shards=2,
        inv_freq=True,
        bos=True,
        chat_template_in_config=True,
    ),
    TinyModel(
        name="llama3-rope",
        about="rope_type llama3 inside rope_parameters (config.old.json: the same in the old spelling), two "
        "end-of-sequence ids, one key-value head, f16.",
        config=LLAMA3_CONFIG | {"rope_parameters": LLAMA3_ROPE | {"rope_theta": 10000.0}, "dtype": "float16"},
        dtype=torch.float16,
        row_lengths=[64, 1, 9, 30],
        seed=3,
        bos=True,
        other_configs={
            "config.old.json": LLAMA3_CONFIG
            | {"rope_scaling": LLAMA3_ROPE, "rope_theta": 10000.0, "torch_dtype": "float16"}
        },
    ),
    TinyModel(
        name="linear-rope",
        about="Linear rope scaling in the old spelling, untied head, one layer.",
        config=COMMON
        | {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "rope_scaling": {"type": "linear", "factor": 4.0},
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
        },
        dtype=torch.float32,
        row_lengths=[40, 1, 6],
        seed=4,
    ),
]

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '[' + message['role'] + ']' + message['content'] + eos_token + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)


def write_model(spec: TinyModel, folder: Path) -> None:
    """Writes the configuration, weights and tokenizer of one model."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", spec.config)
    for name, config in spec.other_configs.items():
        write_json(folder / name, config)
    write_json(folder / "generation_config.json", {"bos_token_id": BOS, "eos_token_id": spec.config["eos_token_id"]})
    write_weights(spec, random_weights(spec, folder), folder)
    write_tokenizer(spec, folder)


def random_weights(spec: TinyModel, folder: Path) -> dict[str, torch.Tensor]:
    """Random weights, large enough for uneven attention and for logits that differ by several units."""
    generator = torch.Generator().manual_seed(spec.seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    weights = {}
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = spec.scales.get(name.split(".")[-2], 1.0)
        if name.endswith("norm.weight"):
            value = spec.norm * scale + 0.2 * noise
        elif name.endswith(".bias"):
            value = 0.3 * noise
        elif name == "model.embed_tokens.weight":
            value = 0.6 * scale * noise
        else:
            value = 1.4 * scale * noise / math.sqrt(parameter.shape[1])
        weights[name] = (value.bfloat16() if spec.rounded else value).to(spec.dtype)
    if spec.inv_freq:
        for layer in range(model.config.num_hidden_layers):
            key = f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"
            weights[key] = model.model.rotary_emb.inv_freq.clone().float()
    return weights


def write_weights(spec: TinyModel, weights: dict[str, torch.Tensor], folder: Path) -> None:
    if spec.shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(weights)
    size = math.ceil(len(names) / spec.shards)
    weight_map = {}
    for shard in range(spec.shards):
        file = f"model-{shard + 1:05}-of-{spec.shards:05}.safetensors"
        part = {name: weights[name] for name in names[shard * size : (shard + 1) * size]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / "model.safetensors.index.json", index)


def write_tokenizer(spec: TinyModel, folder: Path) -> None:
    """Writes a character tokenizer with a few merges; with `spec.bos` it puts <s> before every text."""
    pieces = ["<unk>", "<s>", "</s>", "\n", *map(chr, range(32, 127)), *(m.replace(" ", "") for m in MERGES)]
    merges = [tuple(merge.split()) for merge in MERGES]
    tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges, unk_token="<unk>"))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.decoder = decoders.Fuse()
    if spec.bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", BOS)]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 256,
    }
    if spec.chat_template_in_config:
        config["chat_template"] = CHAT_TEMPLATE
    else:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    write_json(folder / "tokenizer_config.json", config)


def load(folder: Path | str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model of a folder with eager attention, in evaluation mode."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def load_for(adapter: Path | str, folder: Path | str, dtype: torch.dtype | str = torch.float32) -> PreTrainedModel:
    """The base model of an adapter, resized to the embedding in the adapter's file if it has one, and to its trained rows."""
    model = load(folder, dtype)
    rows = json.loads(Path(adapter, "adapter_config.json").read_text()).get("trainable_token_indices") or []
    rows = [row for module in rows.values() for row in module] if isinstance(rows, dict) else rows
    if max(rows, default=0) >= model.config.vocab_size:
        model.resize_token_embeddings(max(rows) + 1, mean_resizing=False)
    with safe_open(Path(adapter, "adapter_model.safetensors"), "pt") as file:
        for end in (".weight", ".base_layer.weight", ".token_adapter.base_layer.weight"):
            key = f"base_model.model.model.embed_tokens{end}"
            if key in file.keys():
                model.resize_token_embeddings(file.get_slice(key).get_shape()[0], mean_resizing=False)
    return model
