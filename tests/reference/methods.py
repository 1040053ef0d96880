"""The adapters of PEFT's methods other than LoRA, on the tiny models: see adapters.py."""

from peft import AdaptionPromptConfig, IA3Config

import training
from adapters import ATTENTION, TinyAdapter

ADAPTERS = [
    TinyAdapter(
        model="tied-gqa",
        name="ia3",
        method=IA3Config,
        settings=dict(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
        seed=31,
        steps=training.Settings(1e-2),
    ),
    TinyAdapter(
        model="untied-mha",
        name="ia3",
        method=IA3Config,
        settings=dict(
            target_modules=[*ATTENTION, "gate_proj", "up_proj", "down_proj"],
            feedforward_modules=["o_proj", "up_proj", "down_proj"],
        ),
        seed=32,
        steps=training.Settings(5e-3, schedule="cosine"),
    ),
    TinyAdapter(
        model="untied-mha",
        name="adaption-prompt",
        method=AdaptionPromptConfig,
        settings=dict(adapter_len=5, adapter_layers=1),
        seed=33,
        steps=training.Settings(1e-2),
    ),
    TinyAdapter(
        model="llama3-rope",
        name="adaption-prompt",
        method=AdaptionPromptConfig,
        settings=dict(adapter_len=3, adapter_layers=2),
        seed=34,
        steps=training.Settings(1e-2, schedule="cosine"),
    ),
]
