"""The adapters of the goldens, created and saved by PEFT on the tiny models, and PEFT's results with them.

In addition to the two files that PEFT writes, each adapter folder gets a golden.safetensors with

    logits.N     logits of row N with the adapter, with the base model widened to f32
    grad.KEY     gradient of the loss over all rows; KEY as in adapter_model.safetensors
    trained.KEY  the adapter after the training steps
    merged.KEY   every base tensor that PEFT's merge changes, in its stored dtype; KEY as in the base model's files

and a golden.json with the loss, the training steps and greedy answers.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import AdaptionPromptConfig, LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedModel

import models
import rows
import training
from files import write_json

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


@dataclass
class TinyAdapter:
    """One adapter folder. `lora` are the arguments of LoraConfig, `settings` those of another `method`; B is random unless
    `fresh` is set. `new_tokens` are first added to the tokenizer and the base model, whose rows are padded to a multiple of `pad`, and the
    tokenizer is saved with the adapter. A `compact` one stores only a part of its tensors: see `compacted`."""

    model: str
    name: str
    seed: int
    steps: training.Settings
    lora: dict | None = None
    method: type = LoraConfig
    settings: dict | None = None
    fresh: bool = False
    new_tokens: tuple[str, ...] = ()
    pad: int = 1
    compact: bool = False


# the ends of the keys of frozen matrices
FROZEN = ["weight", "base_layer.weight", "token_adapter.base_layer.weight"]

ADAPTERS = [
    TinyAdapter(
        model="tied-gqa",
        name="init",
        lora=dict(r=4, lora_alpha=8, target_modules=ATTENTION),
        seed=10,
        steps=training.Settings(1e-2),
        fresh=True,
    ),
    TinyAdapter(
        model="tied-gqa",
        name="qkvo",
        lora=dict(r=4, lora_alpha=8, target_modules=ATTENTION),
        seed=11,
        steps=training.Settings(1e-2),
    ),
    TinyAdapter(
        model="tied-gqa",
        name="rslora",
        lora=dict(
            r=4,
            lora_alpha=6,
            target_modules=[*ATTENTION, "down_proj"],
            use_rslora=True,
            rank_pattern={"layers.0.self_attn.q_proj": 2, "down_proj": 3},
            alpha_pattern={"^model.layers.1.*proj": 5, "k_proj": 16},
        ),
        seed=12,
        steps=training.Settings(5e-3, schedule="cosine", weight_decay=0.0),
    ),
    TinyAdapter(
        model="untied-mha",
        name="all-linear",
        lora=dict(r=2, lora_alpha=4, target_modules="all-linear"),
        seed=13,
        steps=training.Settings(5e-3),
    ),
    TinyAdapter(
        model="untied-mha",
        name="saved-head",
        lora=dict(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"], bias="all"),
        seed=14,
        steps=training.Settings(5e-3, max_grad_norm=None),
    ),
    TinyAdapter(
        model="untied-mha",
        name="lora-only-bias",
        lora=dict(r=2, lora_alpha=4, target_modules=["k_proj", "down_proj"], bias="lora_only"),
        seed=15,
        steps=training.Settings(5e-3, schedule="constant"),
    ),
    TinyAdapter(
        model="llama3-rope",
        name="qkvo",
        lora=dict(r=4, lora_alpha=8, target_modules=ATTENTION),
        seed=16,
        steps=training.Settings(1e-2),
    ),
    TinyAdapter(
        model="tied-gqa",
        name="new-tokens",
        lora=dict(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"]),
        seed=17,
        steps=training.Settings(1e-2),
        new_tokens=("<|im_start|>", "<|im_end|>"),
    ),
    TinyAdapter(
        model="untied-mha",
        name="new-tokens",
        lora=dict(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"]),
        seed=18,
        steps=training.Settings(1e-2),
        new_tokens=("<|im_start|>", "<|im_end|>"),
    ),
    TinyAdapter(
        model="tied-gqa",
        name="dora",
        lora=dict(r=4, lora_alpha=6, target_modules=[*ATTENTION, "down_proj"], use_dora=True, use_rslora=True),
        seed=19,
        steps=training.Settings(1e-2),
    ),
    TinyAdapter(
        model="untied-mha",
        name="dora",
        lora=dict(r=2, lora_alpha=4, target_modules="all-linear", use_dora=True, bias="lora_only"),
        seed=20,
        steps=training.Settings(5e-3, schedule="cosine"),
    ),
    TinyAdapter(
        model="untied-mha",
        name="loraplus",
        lora=dict(r=2, lora_alpha=4, target_modules=["v_proj", "down_proj"], bias="lora_only"),
        seed=21,
        steps=training.Settings(2e-3, loraplus_lr_ratio=8.0, loraplus_lr_embedding=1e-6),
    ),
    TinyAdapter(
        model="tied-gqa",
        name="token-rows",
        lora=dict(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], trainable_token_indices=[42, 11, 103]),
        seed=22,
        steps=training.Settings(1e-2),
    ),
    TinyAdapter(
        model="untied-mha",
        name="token-rows",
        lora=dict(
            r=2,
            lora_alpha=4,
            target_modules=["q_proj", "v_proj"],
            trainable_token_indices={"embed_tokens": [18, 4], "lm_head": [30, 4, 18]},
        ),
        seed=23,
        steps=training.Settings(1e-2),
    ),
    # in PEFT's own form: the factors at the start are not in the file, and PEFT computes them again when it loads it
    TinyAdapter(
        model="tied-gqa",
        name="pissa",
        lora=dict(r=4, lora_alpha=6, target_modules=[*ATTENTION, "down_proj"], init_lora_weights="pissa"),
        seed=21,
        steps=training.Settings(1e-2),
        fresh=True,
    ),
    TinyAdapter(
        model="untied-mha",
        name="olora",
        lora=dict(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights="olora", use_rslora=True),
        seed=22,
        steps=training.Settings(5e-3, schedule="cosine"),
    ),
    # PEFT saves the whole matrix beside the rows, and all of it once more for the tied head
    TinyAdapter(
        model="tied-gqa",
        name="new-token-rows",
        lora=dict(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], trainable_token_indices=[104, 105]),
        seed=24,
        steps=training.Settings(1e-2),
        new_tokens=("<|im_start|>", "<|im_end|>"),
        pad=16,
    ),
    # PEFT saves the weight of a head that it adapts, less the start
    TinyAdapter(
        model="untied-mha",
        name="olora-head",
        lora=dict(r=2, lora_alpha=4, target_modules=["v_proj", "lm_head"], init_lora_weights="olora"),
        seed=23,
        steps=training.Settings(5e-3),
    ),
]


def make_adapter(
    spec: TinyAdapter,
    folder: Path,
    golden_rows: list[dict],
    prompts: list[list[int]],
    logit_rows: list[int] | None = None,
) -> tuple[dict, dict]:
    """Saves the adapter with PEFT, and returns its golden tensors and scalars."""
    torch.manual_seed(spec.seed)
    base = models.load(spec.model)
    tensors, scalars = {}, {}
    if spec.new_tokens:
        add_tokens(base, AutoTokenizer.from_pretrained(spec.model), spec.new_tokens, folder, spec.pad)
        new = range(models.VOCAB, models.VOCAB + len(spec.new_tokens))
        ids = [token for pair in zip(golden_rows[1]["input_ids"], [*new] * 3) for token in pair]
        golden_rows = scalars["rows"] = [*golden_rows, {"input_ids": ids, "labels": ids}]
    settings = spec.settings if spec.lora is None else dict(lora_dropout=0.0, **spec.lora)
    model = get_peft_model(base, spec.method(task_type="CAUSAL_LM", **settings))
    if not spec.fresh:
        move_from_initial(model)
    if spec.compact:
        round_values(model)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()  # PEFT's model card, an empty form

    with torch.no_grad():
        for index, row in enumerate(golden_rows):
            tensors[f"logits.{index}"] = rows.logits(model, row["input_ids"]).clone()
    scalars |= {"loss": rows.backward(model, golden_rows), "trained_tokens": rows.trained_tokens(golden_rows)}
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    tensors |= {f"grad.{key}": value.clone() for key, value in saved_keys(model, gradients).items()}
    model.zero_grad()
    scalars["greedy"] = clearest_answer(model, prompts)
    scalars["training"] = training.run(model, golden_rows, spec.steps)
    scalars["training"]["final_loss"] = rows.backward(model, golden_rows)
    tensors |= {f"trained.{key}": value.clone() for key, value in trained(model).items()}
    if spec.method is not AdaptionPromptConfig:
        tensors |= {f"merged.{key}": value for key, value in merged(spec.model, folder).items()}
    check_saved(folder, tensors)
    return compacted(tensors, logit_rows) if spec.compact else tensors, scalars


@torch.no_grad()
def add_tokens(base: PreTrainedModel, tokenizer, tokens: tuple[str, ...], folder: Path | None = None, pad: int = 1) -> None:
    """As Alpaca's smart_tokenizer_and_embedding_resize: the new embedding rows are the mean of the old ones."""
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    if folder is not None:
        tokenizer.save_pretrained(folder)
    base.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=pad, mean_resizing=False)
    before = len(tokenizer) - len(tokens)
    for end in {base.get_input_embeddings().weight, base.get_output_embeddings().weight}:
        end[before : len(tokenizer)] = end[:before].mean(dim=0, keepdim=True)


@torch.no_grad()
def move_from_initial(model: PeftModel) -> None:
    """Gives B random values, and changes every other trained tensor but A from its first values."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "lora_A" not in name:
            scale = 0.3 if "lora_B" in name or "adaption_gate" in name else 0.1
            parameter += scale * torch.randn_like(parameter)


@torch.no_grad()
def round_values(model: PeftModel) -> None:
    """Leaves the adapter values of bf16, which git compresses to half."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.copy_(parameter.bfloat16())


def compacted(tensors: dict[str, torch.Tensor], logit_rows: list[int]) -> dict[str, torch.Tensor]:
    """The logits of some rows, every gradient, and of each kind of module the trained and merged tensors of one layer:
    layer 0 of the first kind, layer 1 of the second, and so on."""
    module = re.compile(r"layers\.(\d+)\.((?:self_attn|mlp)\.\w+)")
    places = [match for key in tensors if key.startswith("merged.") and (match := module.search(key))]
    layers = 1 + max(int(place[1]) for place in places)
    kinds = {kind: index % layers for index, kind in enumerate(dict.fromkeys(place[2] for place in places))}

    def stored(key: str) -> bool:
        what, name = key.split(".", 1)
        place = module.search(key)
        return what == "grad" or (int(name) in logit_rows if what == "logits" else kinds[place[2]] == int(place[1]))

    return {key: value for key, value in tensors.items() if stored(key)}


def saved_keys(model: PeftModel, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One value per trained tensor, with the keys of PEFT's adapter file."""
    renamed = get_peft_model_state_dict(model, state_dict=values, save_embedding_layers=False)
    assert len(renamed) == len(values), sorted(set(values) ^ set(renamed))
    return renamed


def trained(model: PeftModel) -> dict[str, torch.Tensor]:
    """The trained tensors, with the keys of PEFT's adapter file."""
    return get_peft_model_state_dict(model, save_embedding_layers=False)


def merged(model: str, folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of the base model that PEFT's merge changes, merged in their stored dtype."""
    base = models.load_for(folder, model, dtype="auto")
    before = {key: value.clone() for key, value in base.state_dict().items()}
    after = PeftModel.from_pretrained(base, folder).merge_and_unload().state_dict()
    assert before.keys() == after.keys()
    if base.config.tie_word_embeddings and torch.equal(after["lm_head.weight"], after["model.embed_tokens.weight"]):
        del after["lm_head.weight"]
    return {key: value.clone() for key, value in after.items() if not torch.equal(value, before[key])}


def clearest_answer(model: PeftModel, prompts: list[list[int]]) -> dict:
    """32 greedy tokens without a stop, for the prompt whose answer has the largest margin between tokens."""
    answers = [(prompt, rows.greedy(model, prompt, 32, None)) for prompt in prompts]
    margin, prompt, ids = max((rows.margin(model, *answer), *answer) for answer in answers)
    assert margin > 1e-3, f"every prompt has a near tie: {margin}"
    return {"prompt": prompt, "ids": ids}


def shared_key(key: str, saved: dict) -> str:
    """The key of the embedding's tensor, for a copy of it that a tied head has."""
    shared = key.replace("lm_head.token_adapter", "model.embed_tokens.token_adapter")
    return shared if shared in saved and torch.equal(saved[shared], saved[key]) else key


def check_saved(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Checks that every saved tensor has a gradient and no other has one. Only A's gradient may be zero, if B is zero."""
    saved = load_file(folder / "adapter_model.safetensors")
    gradients = {key.removeprefix("grad."): value for key, value in tensors.items() if key.startswith("grad.")}
    ends = [f"{end}.{of}" for end in ("model.embed_tokens", "lm_head") for of in FROZEN]
    frozen = saved.keys() & {f"base_model.model.{end}" for end in ends}
    frozen |= {key for key in saved if shared_key(key, saved) != key}
    assert saved.keys() - gradients.keys() <= frozen, sorted(saved.keys() ^ gradients.keys())
    assert gradients.keys() <= saved.keys(), sorted(saved.keys() ^ gradients.keys())
    fresh = all(not value.any() for key, value in saved.items() if "lora_B" in key)
    for key, gradient in gradients.items():
        assert gradient.any() or (fresh and "lora_A" in key), f"{folder}: no gradient for {key}"


def write_golden(folder: Path, tensors: dict[str, torch.Tensor], scalars: dict) -> None:
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "golden.safetensors")
    write_json(folder / "golden.json", scalars)
