"""What a person sees of a run: a status line before it, a progress line during it, what changed after it.

On a terminal that can redraw it is one live line; elsewhere (a pipe, a log file, TERM=dumb) plain lines, few of them.
Only the metrics that matter are shown; all are in metrics.jsonl.
"""

from __future__ import annotations

import logging
import os
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import rich.console
import rich.progress
import rich.table
import rich.text

from core.report.changes import changes, show
from core.report.facts import duration
from core.runfolder import LOGGER, RunFolder
from core.text import encodable, one_line

_NOISE = (
    *("💡", "GPU available", "TPU available", "HPU available", "`Trainer.fit` stopped", "Seed set to", "Restor"),
    *("Loaded model weights", "`Trainer(", "Using default `ModelCheckpoint`"),
)
_WARNINGS = (
    r".*module\(s\) in eval mode at the start of training.*",
    r".*does not have many workers.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*Total length of `.*Loader` across ranks is zero.*",  # a run resumed at its last step
    r".*`is_gradient_checkpointing` is deprecated.*",  # peft asks transformers by the old name
    r".*Could not find a config file in .* will assume that the vocabulary was not modified.*",  # it never is
    r".*recommended to use `self.log.*sync_dist=True.*",  # every process validates all rows
)
_PLAIN_EVERY = 10.0  # seconds between plain lines of one collection


class Console:
    """One for a run. Makes the messages of the logger `accordant` visible and Lightning's own silent."""

    def __init__(self, folder: RunFolder | None = None, stream: TextIO | None = None) -> None:
        self.folder = folder
        stream = sys.stdout if stream is None else stream
        self.live = stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
        self._encoding = getattr(stream, "encoding", None)
        width = None if self.live else 100
        self.rich = rich.console.Console(
            file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True, width=width
        )
        self._progress: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        self._said_at = 0.0
        quiet_lightning()
        _show_messages(self)

    def say(self, text: str = "", style: str | None = None) -> None:
        """A line, as the stream can take it; a live line moves out of its way."""
        target = self._progress.console if self._progress else self.rich
        target.print(encodable(text, self._encoding), style=style)

    # -- before training ------------------------------------------------------------------------------------------

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Around something that may take long: a spinner, or a plain line where it took over a second."""
        started = time.monotonic()
        if self.live:
            with self.rich.status(encodable(text, self._encoding)):
                yield
        else:
            yield
        seconds = time.monotonic() - started
        if seconds > 1:
            self.say(f"{text}: {seconds:.1f} s", style="dim")

    def collecting(self, what: str, done: int, total: int) -> None:
        """How far a collection is ("sampling", 120, 512). Plain: a line each ten seconds, and none for a short one."""
        if self.live:
            self._live_collecting(what, done, total)
            return
        now = time.monotonic()
        if done <= 0 or not self._said_at:
            self._said_at = now
        elif now - self._said_at >= _PLAIN_EVERY and done < total:
            self._said_at = now
            self.say(f"{what}: {done}/{total}")
        if done >= total:
            self._said_at = 0.0

    def _live_collecting(self, what: str, done: int, total: int) -> None:
        progress = self.start_live()
        if self._task is None or done <= 0:
            self._drop_task()
            self._task = progress.add_task(encodable(what, self._encoding), total=total, metrics="")
        progress.update(self._task, completed=done, total=total, description=what)
        if done >= total:
            self._drop_task()
            if not progress.tasks:
                self.stop_live()

    def _drop_task(self) -> None:
        if self._task is not None and self._progress is not None:
            self._progress.remove_task(self._task)
        self._task = None

    # -- during training ------------------------------------------------------------------------------------------

    def callbacks(self) -> list[Any]:
        """Lightning callbacks that show progress; leave them out where the trainer has enable_progress_bar=False."""
        from core.progress import TrainingProgress

        return [TrainingProgress(self)]

    def start_live(self) -> rich.progress.Progress:
        """The live line; begun if need be."""
        if self._progress is None:
            columns = _columns(bar=24 if self.rich.width >= 120 else 10)
            self._progress = rich.progress.Progress(*columns, console=self.rich, transient=True, refresh_per_second=4)
            self._progress.start()
        return self._progress

    def stop_live(self) -> None:
        """Takes the live line away; what was printed stays."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None

    def samples(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """A validation's answers, two lines each."""
        width = max(40, self.rich.width - 4)
        if records:
            self.say(f"\nAnswers at step {step}", style="bold")
        for record in records:
            self.say(f"  {one_line(record.get('prompt', ''), width)}", style="dim")
            self.say(f"    {one_line(record.get('response', '') or '(empty)', width - 24)}  [{_scores(record)}]")

    # -- after training -------------------------------------------------------------------------------------------

    def table(self, lines: Sequence[str]) -> None:
        """Lines that are laid out already."""
        if lines:
            self.stop_live()
            self.say()
        for line in lines:
            self.say(f"  {line}".rstrip())

    def summary(self, before: Mapping[str, float], after: Mapping[str, float], made: Mapping[str, Path]) -> None:
        """What changed, and where the report and the models are; `made`: role -> folder."""
        self.stop_live()
        found = changes(before, after)
        if found:
            self.say("\nWhat changed", style="bold")
        label = max((len(change.label) for change in found), default=0)
        for change in found:
            was = show(change.before) if change.before is not None else ""
            arrow = "->" if was else "  "
            word = f"({change.arrow})" if change.arrow in ("up", "down") else ""
            word = "(about 0: an estimate from samples)" if change.about_zero else word
            line = f"  {change.label:{label}}  {was:>8} {arrow} {show(change.after):>8} {change.unit:6} {word}"
            self.say(line.rstrip(), style={"good": "green", "bad": "red"}.get(change.verdict))
        self.say()
        if self.folder is not None:
            self.say(f"  took    {duration(self.folder.elapsed())}")
            self.say(f"  report  {_near(self.folder.path / 'report.html')}")
        for folder in made.values():
            self.say(f"  model   {_near(folder)}")

    def remark(self, *sentences: str) -> None:
        """What must not be overlooked, in lines of a readable width."""
        for sentence in sentences:
            self.say()
            for line in textwrap.wrap(sentence, 98):
                self.say(f"  {line}", style="yellow")


def quiet_lightning() -> None:
    """Drops Lightning's start-up lines, its advertisement, and warnings that do not apply here. Safe to call often."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logger = logging.getLogger(name)
        if not any(isinstance(f, _NoNoise) for f in logger.filters):
            logger.addFilter(_NoNoise())
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for pattern in _WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)


def _columns(bar: int) -> tuple[rich.progress.ProgressColumn, ...]:
    """Of the live line: what it is at, the bar, counts, metrics, the time left. In a narrow terminal metrics give way."""
    whole = rich.table.Column(no_wrap=True)
    return (
        rich.progress.TextColumn("{task.description}", table_column=whole.copy()),
        rich.progress.BarColumn(None, table_column=rich.table.Column(max_width=bar)),
        rich.progress.MofNCompleteColumn(table_column=whole.copy()),
        _Metrics(),
        rich.progress.TimeRemainingColumn(compact=True, table_column=whole.copy()),
    )


class _Metrics(rich.progress.ProgressColumn):
    """On one line, cut where there is no room: its column may shrink, as those of a TextColumn may not."""

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        return rich.text.Text(task.fields["metrics"], no_wrap=True, overflow="ellipsis")


class _NoNoise(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING or not record.getMessage().startswith(_NOISE)


class _Messages(logging.Handler):
    """Prints the project's own messages through the console, so that they do not tear its live line."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        warning = record.levelno >= logging.WARNING
        self.console.say(f"{'! ' if warning else ''}{record.getMessage()}", style="yellow" if warning else None)


def _show_messages(console: Console) -> None:
    # Those of an earlier run in this process, and the plain one that spoke before there was a console.
    for handler in [h for h in LOGGER.handlers if isinstance(h, _Messages) or type(h) is logging.StreamHandler]:
        LOGGER.removeHandler(handler)
    LOGGER.addHandler(_Messages(console))
    LOGGER.setLevel(min(LOGGER.level or logging.INFO, logging.INFO))


def _scores(record: Mapping[str, Any]) -> str:
    scores = [f"{name} {show(value)}" for name, value in sorted((record.get("scores") or {}).items())]
    cut = [] if record.get("finished", True) else ["cut"]
    return ", ".join([*scores, f"{record.get('tokens', '?')} tokens", *cut])


def _near(path: Path) -> str:
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
