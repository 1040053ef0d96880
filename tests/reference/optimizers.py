"""Learning-rate schedules of transformers, and AdamW of torch on one tensor."""

import torch

import training

SCHEDULES = [
    ("constant", 0, 10),
    ("constant", 4, 10),
    ("linear", 0, 10),
    ("linear", 2, 10),
    ("linear", 10, 10),
    ("linear", 3, 7),
    ("cosine", 0, 10),
    ("cosine", 2, 10),
    ("cosine", 5, 40),
    ("cosine", 1, 1),
]


def schedules() -> list[dict]:
    """The learning-rate factor of each step's update, for one step more than `steps`."""
    cases = []
    for name, warmup_steps, steps in SCHEDULES:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        schedule = training.scheduler(optimizer, name, warmup_steps, steps)
        factors = []
        for _ in range(steps + 1):
            factors.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        cases.append({"schedule": name, "warmup_steps": warmup_steps, "steps": steps, "factors": factors})
    return cases


ADAMW = [
    dict(lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
    dict(lr=3e-4, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.0),
    dict(lr=0.1, betas=(0.8, 0.99), eps=1e-8, weight_decay=0.5),
]


def adamw() -> list[dict]:
    """Five steps on six f32 values; the third value's gradient is always zero."""
    cases = []
    for settings in ADAMW:
        generator = torch.Generator().manual_seed(7)
        value = torch.randn(6, generator=generator).requires_grad_()
        initial, steps = value.detach().tolist(), []
        optimizer = torch.optim.AdamW([value], foreach=False, **settings)
        for step in range(5):
            value.grad = torch.randn(6, generator=generator) * 10.0 ** (step - 2)
            value.grad[2] = 0.0
            gradient = value.grad.tolist()
            optimizer.step()
            steps.append({"gradient": gradient, "value": value.detach().tolist()})
        cases.append({"settings": settings, "initial": initial, "steps": steps})
    return cases
