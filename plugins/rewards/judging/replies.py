"""Replies that were paid for once: on disk, shared by runs and by processes, or in memory where no folder is wanted.

SQLite does what a file of lines would have to be taught: writers of several processes wait for each other, a killed one
leaves nothing half written, and a look-up does not read everything. The first reply to a question stays, so that all
who asked it at the same time go on with the same one.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

from core.api import ConfigError

log = logging.getLogger("accordant")

FILE = "replies-1.sqlite"
_LONGEST_WAIT = 30.0  # seconds for another process's write
_AT_ONCE = 500  # keys in one look-up; SQLite's limit on parameters was 999 for long


class Replies(Protocol):
    """What the endpoint needs of a store."""

    def find(self, keys: Iterable[str]) -> dict[str, str]:
        """key -> reply, of those that are known."""

    def keep(self, key: str, reply: str) -> str:
        """Stores a reply; returns the one that is stored, an earlier one where there was one."""


class MemoryReplies:
    """As long as the process lives."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def find(self, keys: Iterable[str]) -> dict[str, str]:
        return {key: self._known[key] for key in keys if key in self._known}

    def keep(self, key: str, reply: str) -> str:
        return self._known.setdefault(key, reply)


class DiskReplies:
    """An open file of replies; made by `on_disk`."""

    def __init__(self, connection: sqlite3.Connection, file: Path) -> None:
        self._connection, self._file, self._broken = connection, file, False

    def find(self, keys: Iterable[str]) -> dict[str, str]:
        wanted = list(keys)
        found: dict[str, str] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            marks = ",".join("?" * len(part))
            found.update(self._connection.execute(f"SELECT key, reply FROM replies WHERE key IN ({marks})", part).fetchall())
        return found

    def keep(self, key: str, reply: str) -> str:
        """As promised; where the disk refuses, the reply still counts and the log says so once."""
        if self._broken:
            return reply
        try:
            with self._connection:
                self._connection.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", (key, reply, time.time()))
            (stored,) = self._connection.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._broken = True
            log.warning("judge: %s cannot be written (%s); its replies are not kept this time.", self._file, error)
            return reply
        return str(stored)


@contextmanager
def on_disk(folder: Path) -> Iterator[DiskReplies]:
    """The replies kept in a folder, which is made where it is missing.

    Raises:
        ConfigError: the folder cannot be made, or its file is no store of replies.
    """
    file = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One thread at a time uses it, but not always the one that opened it (a notebook's loop runs in another).
        connection = sqlite3.connect(file, timeout=_LONGEST_WAIT, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"reward.cache: {folder} cannot be used ({error}).", "Give another folder, or null.") from error
    with closing(connection):
        try:
            connection.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT, time REAL)")
        except sqlite3.Error as error:
            raise ConfigError(
                f"reward.cache: {file} cannot be read ({error}).", "Remove the file, or give another folder."
            ) from error
        yield DiskReplies(connection, file)
