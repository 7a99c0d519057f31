"""What one optimizer step makes of its micro-batches: checked losses, metrics over all of them and all processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from core.errors import PluginError, TrainingError
from core.objective import LossOutput, Objective


def checked(output: LossOutput, count: int, objective: Objective) -> LossOutput:
    """The count decides how micro-batches weigh; a wrong one would be a silent mean of means."""
    if output.count != count or output.loss.ndim != 0:
        raise PluginError(
            f"{type(objective).__name__}.loss returned a loss of shape {tuple(output.loss.shape)} over {output.count} "
            f"items; expected a scalar over {count} {objective.mean_over}.",
            f"Return the mean over batch.count({objective.mean_over!r}), or declare another mean_over.",
        )
    return output


def mean_metrics(outputs: list[LossOutput]) -> dict[str, float]:
    """Metrics of a step: means of its micro-batches, weighted by their counts."""
    total = sum(o.count for o in outputs)
    everything: list[Mapping[str, Any]] = [{"loss": o.loss, **o.metrics} for o in outputs]
    names = everything[0]
    return {name: sum(float(m[name]) * o.count for m, o in zip(everything, outputs, strict=True)) / total for name in names}


def over_processes(metrics: dict[str, float], count: int, device: torch.device) -> dict[str, float]:
    """Means over the items of all processes: what is logged is the step's, and all agree whether its loss is finite."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return metrics
    sums = torch.tensor([count, *(value * count for value in metrics.values())], dtype=torch.float64, device=device)
    torch.distributed.all_reduce(sums)
    return dict(zip(metrics, (sums[1:] / sums[0]).tolist(), strict=True))


def all_skipped(skipped: Sequence[Sequence[str]], step: int) -> TrainingError:
    """The error after too many steps in a row whose loss or gradient was not finite. `skipped`: the rows of each."""
    return TrainingError(
        f"{len(skipped)} steps in a row had a non-finite loss or gradient; the last at step {step} with rows "
        f"{', '.join(skipped[-1][:8])}. The weights are those before them.",
        "Lower optim.lr, look at those rows (data.preview=3), or use trainer.precision=32-true.",
    )
