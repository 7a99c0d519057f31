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
    if stray := sorted(output.counts.keys() - output.metrics.keys()):
        raise PluginError(
            f"{type(objective).__name__}.loss returned a count of {stray[0]!r}, which is none of its metrics.",
            f"Its metrics are: {', '.join(output.metrics) or 'none'}.",
        )
    return output


def metric_sums(outputs: list[LossOutput]) -> dict[str, tuple[float, int]]:
    """Of each metric of a step: the sum over all items of its micro-batches that have it, and how many these are."""
    everything: list[Mapping[str, Any]] = [{"loss": o.loss, **o.metrics} for o in outputs]
    sums = {}
    for name in everything[0]:
        counts = [o.counts.get(name, o.count) for o in outputs]
        values = (float(m[name]) * count for m, count in zip(everything, counts, strict=True) if count)
        sums[name] = (sum(values), sum(counts))
    return sums


def mean_metrics(sums: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    """Means, of what any item has."""
    return {name: total / count for name, (total, count) in sums.items() if count}


def summed(parts: Sequence[Mapping[str, tuple[float, int]]]) -> dict[str, tuple[float, int]]:
    """Name -> (sum, count) of several processes put together."""
    sums: dict[str, tuple[float, int]] = {}
    for part in parts:
        for name, (total, count) in part.items():
            before, number = sums.get(name, (0.0, 0))
            sums[name] = (before + total, number + count)
    return sums


def over_processes(sums: dict[str, tuple[float, int]], device: torch.device) -> dict[str, tuple[float, int]]:
    """Sums over all processes: what is logged is the step's, and all agree whether its loss is finite."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return sums
    everywhere = torch.tensor(list(sums.values()), dtype=torch.float64, device=device)
    torch.distributed.all_reduce(everywhere)
    return {name: (total, int(count)) for name, (total, count) in zip(sums, everywhere.tolist(), strict=True)}


def all_skipped(skipped: Sequence[Sequence[str]], step: int) -> TrainingError:
    """The error after too many steps in a row whose loss or gradient was not finite. `skipped`: the rows of each."""
    return TrainingError(
        f"{len(skipped)} steps in a row had a non-finite loss or gradient; the last at step {step} with rows "
        f"{', '.join(skipped[-1][:8])}. The weights are those before them.",
        "Lower optim.lr, look at those rows (data.preview=3), or use trainer.precision=32-true.",
    )
