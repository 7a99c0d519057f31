"""One optimizer with parameter groups, and its schedule. The same for every objective."""

from __future__ import annotations

import math
from typing import Any

import torch

from core.models import Models
from core.settings import Optim


def lr_factor(step: int, total: int, optim: Optim) -> float:
    """What lr is multiplied by at optimizer step `step` (from 0) of `total`."""
    warmup = math.ceil(optim.warmup_ratio * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if optim.schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, total - warmup)
    if optim.schedule == "linear":
        return max(0.0, 1.0 - progress)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def build_optimizer(models: Models, optim: Optim, total_steps: int) -> Any:
    """AdamW over the trained parameters, matrices with weight decay and vectors without, and its schedule.

    Roles with a learning rate of their own (`optim.role_lr`) have groups of their own.
    """
    assert optim.lr is not None
    eps = 1e-8 if optim.eps is None else optim.eps
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in models.trained_parameters():
        lr = (optim.role_lr or {}).get(name.partition(".")[0], optim.lr)
        groups.setdefault((lr, parameter.ndim >= 2), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": parameters, "lr": lr, "weight_decay": optim.weight_decay if matrix else 0.0}
            for (lr, matrix), parameters in groups.items()
        ],
        betas=(optim.betas[0], optim.betas[1]),
        eps=eps,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, total_steps, optim))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
