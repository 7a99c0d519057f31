"""Records: one data row as it lies in a file, with the place it came from.

    read_records("pairs/*.jsonl.gz")  ->  Record("pairs/a.jsonl.gz:1", {...}), Record("pairs/a.jsonl.gz:2", {...}), ...

A reader yields a `Record` for a good row and a `RowError` for a bad one, so that the caller may count bad rows and go
on. What spoils a whole file (a gzip stream that ends early, a wrong encoding) is raised.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import DataError


@dataclass(frozen=True)
class Record:
    """One row. `where` is "file:line" (JSONL), "file:row" (Parquet) or "name[split]:row"; all count from 1."""

    where: str
    data: Mapping[str, Any]


class RowError(DataError):
    """One bad row: its place, the field (or ""), and what is wrong with it."""

    def __init__(self, where: str, field: str, problem: str, hint: str = "") -> None:
        self.where, self.field, self.problem = where, field, problem
        super().__init__(f"{where}:{field}: {problem}" if field else f"{where}: {problem}", hint)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies are made of what the constructor takes, not of the message, as exceptions have it by default."""
        return RowError, (self.where, self.field, self.problem, self.hint)


@dataclass(frozen=True)
class HubOptions:
    """Which part of a `datasets` data set. `revision`, `config_name`: of hub names only; `ask`: may the hub be asked?"""

    split: str = "train"
    config_name: str | None = None
    revision: str | None = None
    ask: bool = False


def read_records(paths: str | Sequence[str], hub: HubOptions | None = None) -> Iterator[Record | RowError]:
    """All rows of one or several files, in order.

    Args:
        paths: a file, a glob, a folder saved by `datasets`, or a list of them; with `hub.ask`, also a name on the hub.
        hub: the split to read of a saved folder or hub data set. What exists on the disk is local in any case.

    Raises:
        DataError: nothing there, or a file that cannot be read as a whole.
    """
    found = 0
    places = expand_paths(paths, allow_hub=hub is not None and hub.ask)
    for place in places:
        for record in _read_place(place, hub):
            found += 1
            yield record
    if not found:
        names = ", ".join(places)
        raise DataError(f"{names}: no records; expected one JSON object a line.", "Give a file that holds at least one row.")


def expand_paths(paths: str | Sequence[str], *, allow_hub: bool = False) -> list[str]:
    """Globs and "~" resolved, in sorted order; names that only the hub can know are kept where it is allowed."""
    out: list[str] = []
    for path in [paths] if isinstance(paths, str) else paths:
        expanded = os.path.expanduser(path)
        if os.path.exists(expanded):
            out.append(expanded)
        elif matches := sorted(glob.glob(expanded, recursive=True)):
            out += matches
        elif allow_hub and _may_be_hub_name(path):
            out.append(path)
        else:
            raise DataError(f"{path}: no such file.", "Check data.path; it may be a file, a list of files or a glob.")
    if not out:
        raise DataError("data.path is empty.", "Give a file, a list of files or a glob.")
    return out


def _may_be_hub_name(path: str) -> bool:
    looks_local = path.startswith((".", "/", "~")) or any(c in path for c in "*?[\\") or path.count("/") > 1
    return not looks_local and not path.endswith((".jsonl", ".json", ".gz", ".parquet"))


def _read_place(place: str, hub: HubOptions | None) -> Iterator[Record | RowError]:
    from core.data import jsonl, tables

    if os.path.isdir(place) or not os.path.exists(place):
        return tables.read_dataset(place, hub or HubOptions())
    with open(place, "rb") as file:
        head = file.read(4)
    if head == b"PAR1" or Path(place).suffix == ".parquet":
        return tables.read_parquet(place)
    return jsonl.read_jsonl(place)
