"""Weights & Biases as a mirror. Its absence or outage costs one warning and never the run.

Not Lightning's own logger, because that one joins a run that is already open (two jobs of a sweep would share one),
lets a server that is away end the training, and hands over hyper-parameters as they are.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from core.log.jsonl import FolderLogger, by_split
from core.logger_options import WandbSettings
from core.runfolder import RunFolder, read_jsonl

_EXIT_CODES = {"finished": 0, "stopped": 143}
# W&B stores a whole table again at each validation; past this the oldest but the first are left out.
_MOST_ROWS = 600


class WandbLogger(FolderLogger):
    """One W&B run for one run folder; a resumed folder continues its run (the id is kept in run.json)."""

    def __init__(self, folder: RunFolder, settings: WandbSettings, config: Mapping[str, Any]) -> None:
        super().__init__(folder)
        self._settings = settings
        self._run: Any = None
        self._wandb = importlib.import_module("wandb")
        self._broken = _what_an_outage_raises(self._wandb)
        self._dead = False
        self._try("start", lambda: self._start(folder.redact(config)))

    @property
    def experiment(self) -> Any:
        """The W&B run; None after an outage."""
        return self._run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Train metrics under their own names, those of validation under `validation/...`; the x-axis is `step`."""
        values = {
            name if split == "train" else f"{split}/{name}": value
            for split, found in by_split(metrics).items()
            for name, value in found.items()
        }
        if values:
            extra = {
                "step": int(metrics.get("step", 0) if step is None else step),
                "epoch": float(metrics.get("epoch", 0.0)),
            }
            self._try("log metrics", lambda: self._run.log({**extra, **values}))

    @rank_zero_only
    def log_samples(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """The table `samples`: a row for each prompt and validation so far, read from the run folder."""
        history = samples_history(self.folder.path, step, samples)
        names = sorted({name for _, sample in history for name in sample.get("scores", {})})
        columns = ["id", "step", "prompt", "response", "finished", "tokens", *names]
        rows = [
            [sample.get("id"), at, *(sample.get(key) for key in columns[2:6]), *(sample["scores"].get(n) for n in names)]
            for at, sample in history
        ]
        rows = self.folder.redact(rows)
        self._try("log samples", lambda: self._run.log({"step": step, "samples": self._wandb.Table(columns, rows)}))

    @rank_zero_only
    def close(self, status: str) -> None:
        """Uploads the rest, within the time limit, and ends the W&B run."""
        if self._run is not None:
            run, code = self._run, _EXIT_CODES.get(status, 1)
            self._try("finish", lambda: run.finish(exit_code=code))
            self._run = None

    def _start(self, config: Mapping[str, Any]) -> None:
        settings, earlier = self._settings, self.folder.facts.get("wandb") or {}
        online = settings.mode == "online"
        arguments = {
            "entity": settings.entity,
            "project": settings.project,
            "group": settings.group,
            "job_type": settings.job_type,
            "tags": list(settings.tags) or None,
            "name": settings.name or self.folder.path.name,
            "id": earlier.get("id"),
            "resume": "allow" if online and earlier.get("id") else None,  # offline it only warns that it cannot
        }
        self._run = self._wandb.init(
            **arguments,
            mode=settings.mode,
            dir=str(self.folder.path),
            config={**config, "versions": self.folder.facts.get("versions")},
            reinit="create_new",
            # No console capture, no command line, no remote URL: each has carried a key before.
            settings=self._wandb.Settings(
                init_timeout=settings.timeout,
                login_timeout=settings.timeout,
                finish_timeout=settings.timeout,
                console="off",
                silent=True,
                disable_git=True,
                save_code=False,
                x_disable_meta=True,
            ),
        )
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        if settings.mode != "disabled":
            facts = {"id": self._run.id, "project": settings.project, "mode": settings.mode, "url": self._run.url}
            self.folder.record(wandb={key: value for key, value in facts.items() if value})

    def _try(self, what: str, call: Callable[[], Any]) -> None:
        """Runs a call to W&B; the first failure is told and ends the mirroring."""
        if self._dead or getattr(rank_zero_only, "rank", 0) != 0:
            return
        try:
            call()
        except self._broken as error:
            self._dead, self._run = True, None
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            text = f"W&B could not {what} ({reason}). The run goes on without it; metrics.jsonl has everything."
            hint = " logger.wandb.mode=offline keeps a copy to upload later." if self._settings.mode == "online" else ""
            self.folder.note(0, "warning", "wandb", text + hint)


def samples_history(path: Path, step: int, newest: Sequence[Mapping[str, Any]]) -> list[tuple[int, Mapping[str, Any]]]:
    """(step, sample) of every validation up to `step`, sorted by prompt id, then step."""
    by_step: dict[int, list[Mapping[str, Any]]] = {}
    for file in sorted(path.glob("samples/step_*.jsonl")):
        at = int(file.stem.removeprefix("step_"))
        if at < step:
            by_step[at] = list(read_jsonl(file))
    by_step[step] = list(newest)
    steps = sorted(by_step)
    while len(steps) > 2 and sum(len(by_step[at]) for at in steps) > _MOST_ROWS:
        del steps[1]
    rows = [(at, {**sample, "scores": sample.get("scores") or {}}) for at in steps for sample in by_step[at]]
    return sorted(rows, key=lambda row: (str(row[1].get("id")), row[0]))


def _what_an_outage_raises(wandb: Any) -> tuple[type[Exception], ...]:
    """W&B's own errors, those of the connection to its service process, and that process's closed mailbox."""
    found: list[type[Exception]] = [wandb.Error, OSError]
    try:
        mailbox = importlib.import_module("wandb.sdk.mailbox")
    except ImportError:  # private, and may move; the two above cover the rest
        return tuple(found)
    for name in ("MailboxClosedError", "HandleAbandonedError"):
        kind = getattr(mailbox, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            found.append(kind)
    return tuple(found)
