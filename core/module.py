"""AlignmentModule: one training step = the objective's loss over the micro-batches of one optimizer step.

Thin on purpose: what an objective does is in its plugin, what a batch is in core.loop, where things go in callbacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor

from core.errors import CheckpointError, PluginError, TrainingError
from core.log import VALIDATION
from core.loop import Schedule, StepBatch
from core.models import Models
from core.objective import LossOutput, Objective
from core.optim import Optim, build_optimizer
from core.seeding import seed_step


class AlignmentModule(L.LightningModule):
    """The LightningModule of every objective."""

    strict_loading = False  # frozen roles are not in checkpoints; on_load_checkpoint checks the rest by name

    def __init__(self, objective: Objective, models: Models, optim: Optim, schedule: Schedule) -> None:
        super().__init__()
        self.objective, self.models, self.optim = objective, models, optim
        self.total_steps, self.steps_per_epoch, self.seed = schedule.total_steps, schedule.steps_per_epoch, schedule.seed
        self.plan = schedule.decides_order()
        self.steps_done = 0
        self.skipped_in_a_row: list[tuple[str, ...]] = []
        self.lr_of_step = 0.0
        self.step_metrics: dict[str, float] = {}
        self.loader: Callable[[], Any] = list

    def train_dataloader(self) -> Any:
        return self.loader()

    def on_train_batch_start(self, batch: StepBatch, batch_idx: int) -> None:
        seed_step(self.seed, batch.index, self.global_rank)
        self.models.train_mode()

    def training_step(self, batch: StepBatch, batch_idx: int) -> Tensor:
        """Backward through all micro-batches but the last here, through the last one in Lightning."""
        optimizer: Any = self.optimizers()
        optimizer.zero_grad(set_to_none=True)
        self.lr_of_step = float(optimizer.param_groups[0]["lr"])
        weights = self.trainer.world_size / batch.count  # gradients are averaged over processes: a mean of sums
        outputs: list[LossOutput] = []
        for i, micro in enumerate(batch.micro):
            output = checked(self.objective.loss(self.models, micro), micro.count(self.objective.mean_over), self.objective)
            outputs.append(LossOutput(output.loss.detach(), output.count, output.metrics))
            loss = output.loss * (output.count * weights)
            if i + 1 < len(batch.micro):
                with torch.autocast(self.device.type, enabled=False):
                    self.trainer.strategy.backward(loss, None)
        self.step_metrics = over_processes(mean_metrics(outputs), sum(o.count for o in outputs), self.device)
        self._batch = batch
        return loss

    def optimizer_zero_grad(self, *_: Any) -> None:
        """Nothing: Lightning calls this between our last forward and backward; training_step has cleared them."""

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by norm, and guard: a non-finite loss or gradient never touches the weights."""
        parameters = [p for _, p in self.models.trained_parameters()]
        limit = float("inf") if not gradient_clip_val else float(gradient_clip_val)
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        self.step_metrics["grad_norm"] = float(norm)
        finite = bool(torch.isfinite(norm)) and torch.isfinite(torch.tensor(self.step_metrics["loss"])).item()
        if finite:
            self.skipped_in_a_row.clear()
            return
        optimizer.zero_grad(set_to_none=True)  # no gradient: the optimizer passes every parameter over
        self.skipped_in_a_row.append(self._batch.ids)
        if len(self.skipped_in_a_row) >= self.optim.max_skipped:
            raise TrainingError(
                f"{len(self.skipped_in_a_row)} steps in a row had a non-finite loss or gradient; the last at step "
                f"{self._batch.index + 1} with rows {', '.join(self._batch.ids[:8])}. The weights are those before them.",
                "Lower optim.lr, look at those rows (data.preview=3), or use trainer.precision=32-true.",
            )

    def close_step(self, batch: StepBatch) -> None:
        """The step is done. Called by the first callback, so that every other one sees it done."""
        self.steps_done = batch.index + 1
        self.step_metrics["skipped_steps"] = float(len(self.skipped_in_a_row))
        self.step_metrics["lr"] = self.lr_of_step

    def where(self) -> dict[str, float]:
        """The position of a record: Lightning takes "step" for its x-axis."""
        return {"step": float(self.steps_done), "epoch": self.steps_done / self.steps_per_epoch}

    @torch.no_grad()
    def validation_step(self, batch: StepBatch, batch_idx: int) -> None:
        outputs = [self.objective.loss(self.models, micro) for micro in batch.micro]
        for name, value in mean_metrics(outputs).items() if outputs else ():
            self.log(f"{VALIDATION}{name}", value, batch_size=batch.count, on_epoch=True)

    def configure_optimizers(self) -> Any:
        return build_optimizer(self.models, self.optim, self.total_steps)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Trained parameters and their roles' buffers only."""
        full = super().state_dict(*args, **kwargs)
        return {name: value for name, value in full.items() if name in self._saved_names()}

    def _saved_names(self) -> set[str]:
        return {f"models.roles.{name}" for name, _ in self.models.trained_parameters()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["accordant"] = {
            "steps_done": self.steps_done,
            "total_steps": self.total_steps,
            "plan": dict(self.plan),
            "skipped_in_a_row": [list(ids) for ids in self.skipped_in_a_row],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        position = checkpoint.get("accordant", {"plan": {}})
        ours = {f"models.roles.{name}": tuple(p.shape) for name, p in self.models.trained_parameters()} | self.plan
        theirs = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()} | position["plan"]
        differ = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        if differ:
            named = ", ".join(f"{n.removeprefix('models.roles.')}: {theirs.get(n)} -> {ours.get(n)}" for n in differ[:3])
            raise CheckpointError(
                f"the checkpoint is of another model, objective, seed or size of data ({len(differ)} differ: {named}).",
                "Resume with the config that began the run (config.yaml in its folder).",
            )
        self.steps_done = int(position["steps_done"])
        self.skipped_in_a_row = [tuple(ids) for ids in position["skipped_in_a_row"]]


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
