"""AlignmentModule: one training step = the objective's loss over the micro-batches of one optimizer step.

What an objective does is in its plugin, what a batch is in core.loop, what happens around a step in core.callbacks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from torch import Tensor

from core.checkpoint import refuse_foreign
from core.failpoints import failpoint
from core.log import VALIDATION
from core.loop import Schedule, StepBatch
from core.models import Models
from core.objective import LossOutput, Objective
from core.optim import build_optimizer
from core.seeding import seed_step
from core.settings import Optim
from core.step import all_skipped, checked, mean_metrics, metric_sums, over_processes


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
        self.left_epoch = -1  # the collection that the objective has learnt enough from
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
        lr = float(optimizer.param_groups[0]["lr"])
        self._batch = batch
        if batch.epoch == self.left_epoch:
            self.step_metrics = {"lr": lr}
            return self._nothing(batch)
        weights = self.trainer.world_size / batch.count  # gradients are averaged over processes: a mean of sums
        outputs: list[LossOutput] = []
        for i, micro in enumerate(batch.micro):
            output = checked(self.objective.loss(self.models, micro), micro.count(self.objective.mean_over), self.objective)
            outputs.append(replace(output, loss=output.loss.detach()))
            loss = output.loss * (output.count * weights)
            if i + 1 < len(batch.micro):
                with torch.autocast(self.device.type, enabled=False):
                    self.trainer.strategy.backward(loss, None)
        self.step_metrics = mean_metrics(over_processes(metric_sums(outputs), self.device)) | {"lr": lr}
        if self.objective.enough(self.step_metrics):
            self.left_epoch = batch.epoch
        return loss

    def _nothing(self, batch: StepBatch) -> Tensor:
        """A loss that changes nothing. Other processes wait for gradients, so there it is that of a micro-batch, times 0."""
        if self.trainer.world_size == 1:
            return torch.zeros((), requires_grad=True)
        return self.objective.loss(self.models, batch.micro[-1]).loss * 0.0

    def optimizer_zero_grad(self, *_: Any) -> None:
        """Nothing: Lightning calls this between our last forward and backward; training_step has cleared them."""

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by norm, and guard: a non-finite loss or gradient never touches the weights."""
        failpoint("step.update")
        if self._batch.epoch == self.left_epoch:
            optimizer.zero_grad(set_to_none=True)  # no gradient: the optimizer passes every parameter over
            return
        parameters = [p for _, p in self.models.trained_parameters()]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val or math.inf))
        self.step_metrics["grad_norm"] = norm
        if math.isfinite(norm) and math.isfinite(self.step_metrics["loss"]):
            self.skipped_in_a_row.clear()
            return
        optimizer.zero_grad(set_to_none=True)
        self.skipped_in_a_row.append(self._batch.ids)
        if len(self.skipped_in_a_row) >= self.optim.max_skipped:
            raise all_skipped(self.skipped_in_a_row, self._batch.index + 1)

    def close_step(self, batch: StepBatch) -> None:
        """Called by the first callback, so that every other one sees the step done."""
        self.steps_done = batch.index + 1
        self.step_metrics["skipped_steps"] = float(len(self.skipped_in_a_row))
        self.step_metrics["left_out"] = float(batch.epoch == self.left_epoch)

    def where(self) -> dict[str, float]:
        """The position of a record: Lightning takes "step" for its x-axis."""
        return {"step": float(self.steps_done), "epoch": self.steps_done / self.steps_per_epoch}

    @torch.no_grad()
    def validation_step(self, batch: StepBatch, batch_idx: int) -> None:
        outputs = [self.objective.loss(self.models, micro) for micro in batch.micro]
        for name, (total, count) in metric_sums(outputs).items() if outputs else ():
            if count:
                self.log(f"{VALIDATION}{name}", total / count, batch_size=count, on_epoch=True)

    def configure_optimizers(self) -> Any:
        return build_optimizer(self.models, self.optim, self.total_steps)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Trained parameters only."""
        saved = {f"models.roles.{name}" for name, _ in self.models.trained_parameters()}
        return {name: value for name, value in super().state_dict(*args, **kwargs).items() if name in saved}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["accordant"] = {
            "steps_done": self.steps_done,
            "plan": dict(self.plan),
            "skipped_in_a_row": [list(ids) for ids in self.skipped_in_a_row],
            "left_epoch": self.left_epoch,
            "objective": self.objective.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        position = checkpoint.get("accordant", {"plan": {}})  # of a foreign file: none
        ours = {f"models.roles.{name}": tuple(p.shape) for name, p in self.models.trained_parameters()} | self.plan
        theirs = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()} | position["plan"]
        refuse_foreign(theirs, ours)
        self.steps_done = int(position["steps_done"])
        self.skipped_in_a_row = [tuple(ids) for ids in position["skipped_in_a_row"]]
        self.left_epoch = int(position.get("left_epoch", -1))
        if position.get("objective"):
            self.objective.load_state_dict(position["objective"])
