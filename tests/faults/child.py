"""Runs that die: what a child process of tests/faults does. The fork server imports this once, so a child starts at once."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch

from core.build import Run
from core.errors import UserError
from core.train import fit
from tests.trials import built, watched


@dataclass(frozen=True)
class Fault:
    """What happens to a run, and when.

    Attributes:
        failpoint: kill -9 at a point of core.failpoints, "name:count".
        signals: sent one after another during step `at` (from 1), or in the collection of epoch `collecting`.
        largest_file: bytes; a write beyond it fails as on a full disk.
        temporary: folder that TMPDIR names.
    """

    failpoint: str = ""
    signals: tuple[int, ...] = ()
    at: int = 0
    collecting: int | None = None
    largest_file: int = 0
    temporary: str = ""
    changes: dict[str, Any] = field(default_factory=dict)


class SendSignals(L.Callback):
    """Sends this process signals while a step is computed."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch.index + 1 == self.fault.at:
            for signum in self.fault.signals:
                os.kill(os.getpid(), signum)


def main(path: Path, kind: str, resume: bool, fault: Fault) -> None:
    """One run. Ends as `core.run` would: a user's error is one message (here: the file `error`) and status 2."""
    with open(path.parent / "output", "a") as output:  # the terminal of this child
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    torch.set_num_threads(1)
    if fault.failpoint:
        os.environ["ACCORDANT_FAILPOINT"] = fault.failpoint
    if fault.temporary:
        os.environ["TMPDIR"] = tempfile.tempdir = fault.temporary
    run = built(path, kind, resume=resume, **fault.changes)
    if fault.largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.largest_file, fault.largest_file))
    if fault.collecting is not None:
        _signal_in_collection(run, fault)
    try:
        with watched(SendSignals(fault)):
            fit(run)
    except UserError as error:
        (path.parent / "error").write_text(str(error))
        sys.exit(2)


def four_at_a_time(run: Run) -> Run:
    """Sampled in chunks of four, so that a collection has borders inside."""
    run.context.generation = replace(run.context.generation, batch_rows=4)
    return run


def _signal_in_collection(run: Run, fault: Fault) -> None:
    """The first chunk of samples of that epoch brings the signals; the chunks before and after are noted."""
    context = four_at_a_time(run).context
    tell = context._progress
    sent = []

    def progress(what: str, done: int, total: int) -> None:
        with open(run.folder.path.parent / "chunks", "a") as file:
            file.write(f"{context.epoch} {what} {done}/{total}\n")
        if context.epoch == fault.collecting and not sent:
            sent.append(done)
            for signum in fault.signals:
                os.kill(os.getpid(), signum)
        if tell is not None:
            tell(what, done, total)

    context._progress = progress


SIGTERM, SIGINT = int(signal.SIGTERM), int(signal.SIGINT)
