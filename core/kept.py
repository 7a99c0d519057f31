"""Models that are made on the spot, once, and kept in the user's cache: whole or not there, one process makes them."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import ModelError
from core.lock import FolderLock, LockHeld

_WAIT = 1800.0


def to_stderr(line: str) -> None:
    """Where a model's making is told of, unless the caller says otherwise."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Kept:
    """A model that is kept.

    Attributes:
        title: what a person calls it, "pocket model".
        verb: what is done to have one, "warming one up".
        instead: what to do where it cannot be made.
        needed: the files without which its folder is not whole.
    """

    title: str
    verb: str
    instead: str
    needed: tuple[str, ...] = ("config.json", "model.safetensors", "tokenizer.json")

    def folder(self, target: Path, make: Callable[[Path, Path], None], say: Callable[[str], None] = to_stderr) -> Path:
        """`target`, made first where it is not there or not whole.

        Args:
            make: called with two empty folders: one to work in, which is removed, and one to write the model into.
            say: takes one line that tells what happens and why.

        Raises:
            ModelError: `make` left out a file, or another process keeps the folder locked for half an hour.
        """
        if self.whole(target):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(target.with_name(f"{target.name}.lock"), say):
            if not self.whole(target):
                why = "its folder is incomplete" if target.exists() else "there is none for this version and these settings"
                say(f"{self.title}: {self.verb}, because {why} (about a minute, once; kept in {target})")
                self._make(target, make)
        return target

    def whole(self, folder: Path) -> bool:
        """Is every needed file there?"""
        return not self._missing(folder)

    def _missing(self, folder: Path) -> list[str]:
        return [name for name in self.needed if not (folder / name).is_file()]

    def _make(self, target: Path, make: Callable[[Path, Path], None]) -> None:
        """Beside the target first, then renamed: whoever looks finds all of it or nothing. The caller holds the lock."""
        for left_by_the_dead in target.parent.glob(f"{target.name}.*.tmp"):
            shutil.rmtree(left_by_the_dead, ignore_errors=True)
        work = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            for part in ("base", "out"):
                (work / part).mkdir(parents=True)
            make(work / "base", work / "out")
            missing = self._missing(work / "out")
            if missing:
                raise ModelError(f"The making of the {self.title} wrote no {', '.join(missing)}.", self.instead)
            shutil.rmtree(target, ignore_errors=True)
            (work / "out").rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    @contextmanager
    def _locked(self, path: Path, say: Callable[[str], None]) -> Iterator[None]:
        """Waits for whoever makes the same model; the hold of a dead process is taken over."""
        start, told = time.monotonic(), False
        while True:
            try:
                lock = FolderLock.take_over(path)
                break
            except LockHeld as error:
                if time.monotonic() - start > _WAIT:
                    raise ModelError(
                        f"The {self.title} is locked: {error}.", f"If that process is gone, remove {path}."
                    ) from error
                if not told:
                    say(f"{self.title}: {error} and is making it; waiting")
                    told = True
                time.sleep(0.2)
        try:
            yield
        finally:
            lock.release()
