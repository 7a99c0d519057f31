"""What happens around the steps: where the run stands, evaluation, checkpoints, signals, advice.

Each callback does one thing; `core.train` puts them together in this order.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L

from core.checkpoint import checkpoint_path, keep_newest
from core.failpoints import failpoint
from core.log import VALIDATION
from core.loop import StepBatch
from core.module import AlignmentModule
from core.reward import RewardSource

log = logging.getLogger("accordant")


class Interrupted(SystemExit):
    """A signal asked the run to stop; the checkpoint is written. The exit status is 128 + the signal's number."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(128 + signum)


class Position(L.Callback):
    """Tells Lightning's loops where a resumed run stands.

    The loops' own state is not restored: it replays or loses data in several cases. One number is enough.
    """

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint.pop("loops", None)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, AlignmentModule)
        done, loop = pl_module.steps_done, trainer.fit_loop.epoch_loop
        loop._batches_that_stepped = done
        for counter in ("ready", "started", "processed", "completed"):
            setattr(loop.batch_progress.total, counter, done)
        steps = loop.automatic_optimization.optim_progress.optimizer.step.total
        steps.ready = steps.completed = done

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, AlignmentModule)
        pl_module.close_step(batch)


class Signals(L.Callback):
    """SIGTERM and SIGINT: finish the step, save, leave with 143 or 130. A second SIGINT leaves at once."""

    def __init__(self, save: Callable[[L.Trainer], None]) -> None:
        self._save = save
        self.received: int | None = None
        self._alone = True
        self._before: dict[int, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._alone = trainer.world_size == 1
        self._install()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._install()  # again: Lightning has put its own handlers in between

    def _install(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(signum)
            if handler != self._handle:
                self._before.setdefault(signum, handler)
                signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None and signum == signal.SIGINT:
            # Not KeyboardInterrupt: Lightning would take it, ignore further ones and exit with 1.
            raise SystemExit(128 + signum)
        self.received = signum

    def poll(self) -> None:
        """Raise if a signal has come; between chunks of a collection. Several processes leave together, at a border."""
        if self._alone:
            self.leave()

    def leave(self) -> None:
        """Raise if a signal has come; where no other process waits for this one."""
        if self.received is not None:
            raise Interrupted(self.received)

    def at_border(self, trainer: L.Trainer) -> None:
        """Raise if a signal has come to any process: one that went on alone would wait for the others for ever."""
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            raise Interrupted(self.received or signal.SIGTERM)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Interrupted):
            assert isinstance(pl_module, AlignmentModule)
            name, step = signal.Signals(exception.signum).name, pl_module.steps_done
            if trainer.state.fn != "fit":
                log.info("%s: stopped before the first step. resume=auto begins anew.", name)
                return
            self._save(trainer)
            log.info("%s: stopped after step %d, checkpoint written. resume=auto goes on from here.", name, step)

    def restore(self) -> None:
        """Give the handlers back (a run can be one of many in a process)."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before.clear()


class Checkpoints(L.Callback):
    """Saves at the borders of steps, every `every` steps and at the end; keeps the newest `keep`."""

    def __init__(self, folder: Path, every: int, keep: int) -> None:
        self.folder, self.every, self.keep = folder, every, keep
        self.saved_step = -1

    def save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint of the steps done, unless it is there."""
        module = trainer.lightning_module
        assert isinstance(module, AlignmentModule)
        step = module.steps_done
        if step == self.saved_step:
            return
        failpoint("checkpoint.before")
        trainer.save_checkpoint(checkpoint_path(self.folder, step), weights_only=False)  # with the optimizer
        failpoint("checkpoint.after")
        self.saved_step = step
        if trainer.is_global_zero:
            keep_newest(self.folder, self.keep, step)

    def at_border(self, trainer: L.Trainer) -> None:
        module = trainer.lightning_module
        assert isinstance(module, AlignmentModule)
        if module.steps_done % self.every == 0 or module.steps_done == module.total_steps:
            self.save(trainer)


class Borders(L.Callback):
    """The border after each step: evaluate if due, then save if due, then see whether a signal came.

    In this order, so that a checkpoint always stands after everything that belongs to its step.
    """

    def __init__(
        self,
        evaluate: Callable[[int], Mapping[str, float]],
        due: Callable[[int], bool],
        checkpoints: Checkpoints,
        signals: Signals,
    ) -> None:
        self._evaluate, self._due, self._checkpoints, self._signals = evaluate, due, checkpoints, signals

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        failpoint("step.end")
        # Where Lightning validates next, the border is after that.
        if not (self._due(batch.index + 1) and trainer.enable_validation):
            self._border(trainer)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, AlignmentModule)
        metrics = self._evaluate(pl_module.steps_done)
        pl_module.log_dict({f"{VALIDATION}{k}": v for k, v in metrics.items()} | pl_module.where())

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._border(trainer)

    def _border(self, trainer: L.Trainer) -> None:
        self._checkpoints.at_border(trainer)
        self._signals.at_border(trainer)


class RewardMemory(L.Callback):
    """Puts what a reward source has gathered from the collections into the checkpoints, and gives it back."""

    def __init__(self, source: RewardSource | None) -> None:
        self._source = source

    def state_dict(self) -> dict[str, Any]:
        return {} if self._source is None else self._source.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._source is not None:
            self._source.load_state_dict(state_dict)


class Advice(L.Callback):
    """Asks the objective what it makes of each step's metrics, and says it once."""

    def __init__(self, note: Callable[[int, str], None]) -> None:
        self._note = note
        self._said: set[str] = set()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, AlignmentModule)
        if "loss" not in pl_module.step_metrics:  # a step that was left out
            return
        text = pl_module.objective.diagnose(pl_module.step_metrics)
        if text and text not in self._said:
            self._said.add(text)
            self._note(pl_module.steps_done, text)


class Record(L.Callback):
    """Writes the metrics of a step, with its speed, at every `every`-th step, before the border of that step.

    Directly to the loggers: Lightning writes after all callbacks, and a run that is stopped at a border would lose them.
    """

    def __init__(self, every: int) -> None:
        self._every = max(1, every)
        self._tokens = self._rows = 0
        self._since = 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: StepBatch, batch_idx: int
    ) -> None:
        self._since = self._since or time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, AlignmentModule)
        self._tokens += sum(int(b.valid.sum()) for b in batch.micro)
        self._rows += len(batch.ids)
        pl_module.log_dict(pl_module.step_metrics, logger=False)  # for other people's callbacks
        step = pl_module.steps_done
        if step % self._every and step != pl_module.total_steps:
            return
        record = {**pl_module.step_metrics, **self._speed(), **pl_module.where()}
        for logger in trainer.loggers:
            logger.log_metrics(record, step)

    def _speed(self) -> dict[str, float]:
        """Response tokens and rows a second since the last record, collections included."""
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        speed = {"speed/tokens_per_second": self._tokens / seconds, "speed/rows_per_second": self._rows / seconds}
        self._tokens, self._rows, self._since = 0, 0, now
        return speed
