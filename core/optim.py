"""One optimizer with parameter groups, and its schedule. The same for every objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from core.errors import ConfigError
from core.models import Models


@dataclass(frozen=True)
class Optim:
    """Optimizer settings; fields are the keys of conf/optim/*.yaml.

    Attributes:
        lr: learning rate; None = the objective's default times the model's lr_scale.
        betas, eps, weight_decay: of AdamW (Loshchilov & Hutter 2019). Decay spares biases and norms.
        schedule: after the warm-up, "linear" or "cosine" to zero at the last step, or "constant".
        warmup_ratio: share of the planned steps in which lr rises linearly from zero.
        max_skipped: stop after this many steps in a row with a non-finite loss or gradient.
    """

    name: str = "adamw"
    lr: float | None = None
    betas: Sequence[float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: float = 0.05
    max_skipped: int = 5

    def __post_init__(self) -> None:
        expected = {
            "name": (self.name == "adamw", "adamw"),
            "lr": (self.lr is None or 0 < self.lr < math.inf, "a positive number"),
            "betas": (len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "two numbers from 0 to below 1"),
            "eps": (0 < self.eps < math.inf, "a positive number"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "schedule": (self.schedule in ("linear", "cosine", "constant"), "linear, cosine or constant"),
            "warmup_ratio": (0 <= self.warmup_ratio < 1, "0 to below 1"),
            "max_skipped": (self.max_skipped >= 1, "at least 1"),
        }
        for key, (right, what) in expected.items():
            if not right:
                raise ConfigError(f"optim.{key} is {getattr(self, key)}; expected {what}.")


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
