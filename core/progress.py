"""The progress of training on the run's console: steps, the metrics that matter, speed and the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import rich.progress
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from core.console import Console
from core.report.changes import show
from core.report.facts import duration

# (metric names, the first that is there counts; label). Names of validation are looked up too.
_SHOWN = (
    (("loss",), "loss"),
    (("reward", "objective/scores"), "reward"),
    (("rewards/margins", "margin"), "margin"),
    (("rewards/accuracies", "accuracy"), "accuracy"),
    (("objective/kl",), "kl"),
    (("completions/mean_length",), "length"),
    (("speed/tokens_per_second", "tokens_per_second"), "tokens/s"),
)


_SMALLEST = 5e-5


class TrainingProgress(ProgressBar):
    """Steps, the metrics that matter, speed and the time left."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console, self._enabled = console, True
        self._task: rich.progress.TaskID | None = None
        self._first = 0
        self._started = 0.0

    def disable(self) -> None:
        """Lightning calls it on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """`self.print` of a LightningModule."""
        self._console.say(" ".join(str(argument) for argument in args))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first, self._started = trainer.global_step, time.monotonic()
        if self._enabled and self._console.live:
            total = trainer.max_steps if trainer.max_steps > 0 else None
            self._task = self._console.start_live().add_task("training", total=total, completed=self._first, metrics="")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._enabled:
            return
        step, every = trainer.global_step, max(1, int(getattr(trainer, "log_every_n_steps", 1)))
        if self._console.live:
            if self._task is not None:
                progress = self._console.start_live()
                progress.update(self._task, completed=step, metrics=progress_text(_metrics(trainer, pl_module)))
        elif step % every == 0:
            self._console.say(self._plain_line(trainer, step, progress_text(_metrics(trainer, pl_module))))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._end()

    def _end(self) -> None:
        self._task = None
        self._console.stop_live()

    def _plain_line(self, trainer: Trainer, step: int, metrics: str) -> str:
        total = trainer.max_steps
        if total <= 0:
            return f"step {step}  {metrics}"
        left = (time.monotonic() - self._started) / max(1, step - self._first) * (total - step)
        return f"step {step}/{total}  {metrics}  {duration(left)} left"


def progress_text(metrics: Mapping[str, Any]) -> str:
    """ "loss 0.612  reward 21.4  kl 0.8": the metrics that matter, newest of training, else of validation."""
    parts: list[str] = []
    for names, label in _SHOWN:
        for name in (*names, *(f"validation/{n}" for n in names)):
            if name in metrics:
                value = float(metrics[name])
                # What is left of sums that cancel is 0 to a reader: -3.8e-06 nats, before the first step.
                parts.append(f"{label} {show(value if abs(value) >= _SMALLEST else 0.0)}")
                break
    return "  ".join(parts)


def _metrics(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    found: dict[str, Any] = dict(trainer.logged_metrics)
    for logger in trainer.loggers:
        found.update(getattr(logger, "latest", {}))
    return {**found, **getattr(module, "step_metrics", {})}
