"""Ten optimizer steps, as in a PEFT user's script: batches of rows in order, AdamW, gradient clipping, a schedule."""

from dataclasses import asdict, dataclass

import torch
from peft.optimizers import create_loraplus_optimizer
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

import rows


@dataclass
class Settings:
    """Without `max_grad_norm` there is no clipping. `warmup_steps` and `steps` are optimizer steps. With `loraplus_lr_ratio` the
    optimizer is PEFT's LoRA+."""

    learning_rate: float
    schedule: str = "linear"
    warmup_steps: int = 2
    steps: int = 10
    batch_size: int = 2
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    max_grad_norm: float | None = 1.0
    loraplus_lr_ratio: float | None = None
    loraplus_lr_embedding: float | None = None


def scheduler(optimizer, name: str, warmup_steps: int, steps: int):
    if name == "constant":
        return get_constant_schedule_with_warmup(optimizer, warmup_steps)
    if name == "linear":
        return get_linear_schedule_with_warmup(optimizer, warmup_steps, steps)
    return get_cosine_schedule_with_warmup(optimizer, warmup_steps, steps)


def batches(golden_rows: list[dict], settings: Settings) -> list[list[int]]:
    """Row numbers of each step: the rows in order, repeated in every epoch."""
    count = -(-len(golden_rows) // settings.batch_size)
    epoch = [
        list(range(i * settings.batch_size, min((i + 1) * settings.batch_size, len(golden_rows)))) for i in range(count)
    ]
    return [epoch[step % count] for step in range(settings.steps)]


def run(model, golden_rows: list[dict], settings: Settings) -> dict:
    """Trains `model` and returns, for each step, its rows, learning rate, loss before the update, number of labels, and
    gradient norm before clipping.

    The learning rate is the one that the update used; at the start of a warmup it is therefore 0.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = adamw(model, parameters, settings)
    schedule = scheduler(optimizer, settings.schedule, settings.warmup_steps, settings.steps)
    steps = []
    for batch in batches(golden_rows, settings):
        batch_rows = [golden_rows[i] for i in batch]
        loss = rows.backward(model, batch_rows)
        limit = settings.max_grad_norm if settings.max_grad_norm is not None else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        step = {"rows": batch, "learning_rate": optimizer.param_groups[0]["lr"], "loss": loss}
        steps.append(step | {"trained_tokens": rows.trained_tokens(batch_rows), "grad_norm": norm.item()})
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    written = {key: value for key, value in asdict(settings).items() if value is not None or "loraplus" not in key}
    return {"settings": written, "steps": steps}


def adamw(model, parameters: list[torch.nn.Parameter], settings: Settings) -> torch.optim.AdamW:
    common = dict(betas=(settings.beta1, settings.beta2), eps=settings.epsilon, foreach=False)
    if settings.loraplus_lr_ratio is None:
        return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, **common)
    return create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=settings.learning_rate,
        loraplus_lr_ratio=settings.loraplus_lr_ratio,
        loraplus_lr_embedding=settings.loraplus_lr_embedding,
        loraplus_weight_decay=settings.weight_decay,
        **common,
    )
