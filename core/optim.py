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
    """AdamW over the trained parameters, matrices with weight decay and vectors without, and its schedule."""
    matrices = [p for _, p in models.trained_parameters() if p.ndim >= 2]
    vectors = [p for _, p in models.trained_parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": optim.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    assert optim.lr is not None
    optimizer = torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=optim.lr, betas=(optim.betas[0], optim.betas[1]), eps=optim.eps, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, total_steps, optim))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
