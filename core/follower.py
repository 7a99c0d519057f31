"""Runs on several devices: one process leads and owns the run folder, the others follow and write nothing.

Lightning starts the followers with the leader's command line and environment; torchrun starts all alike.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.redact import Redactor
from core.runfolder import Level, RunFolder, Status

LEADER = "ACCORDANT_RUN_FOLDER"
"""Environment variable in which the leader tells its followers the run folder."""


def rank() -> int:
    """This process's number among those that train together; 0 = the leader, or the only one."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def started_together() -> bool:
    """True where a launcher such as torchrun started all processes, so that none can tell the others a fresh name."""
    return LEADER not in os.environ and int(os.environ.get("WORLD_SIZE") or 1) > 1


def lead(folder: RunFolder) -> None:
    """Tell followers, which inherit the environment, where the run is."""
    os.environ[LEADER] = str(folder.path)


def check_name(config: Mapping[str, Any]) -> None:
    """All processes of a launcher must work out the same folder."""
    if started_together() and config["run"]["name"] is None and config["resume"] in (None, "none", "auto"):
        raise ConfigError(
            "Several processes were started together, and each would make a run folder with a name of its own.",
            "Give run.name=NAME, or let Lightning start them: python -m core.run trainer.devices=2 trainer.strategy=ddp.",
        )


def follow(path: Path, config: Mapping[str, Any]) -> None:
    """Train along as one of several processes, not the first."""
    from core.train import train

    train(config, Follower(os.environ.get(LEADER) or path, config))


class Follower(RunFolder):
    """The leader's folder as a follower sees it: it can be read; what is written goes nowhere."""

    def __init__(self, path: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
        self.path, self.redact = Path(path).absolute(), Redactor.of(config)
        self._facts: dict[str, Any] = {}
        self._seconds_before = self._started = 0.0
        self._notes: set[tuple[str, str]] = set()

    def write_text(self, name: str, text: str) -> Path:
        return self.path / name

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Nothing: the leader writes."""

    def note(self, step: int, level: Level, topic: str, text: str) -> None:
        """Nothing: the leader says it."""

    def rewind(self, step: int) -> None:
        """Nothing: the leader does."""

    def record(self, **facts: Any) -> None:
        """Nothing: the leader writes."""

    def finish(self, status: Status, reason: str = "") -> None:
        """Nothing: the leader does."""

    def write_jsonl(self, name: str, records: Sequence[Mapping[str, Any]]) -> Path:
        return self.path / name
