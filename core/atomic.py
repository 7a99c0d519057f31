"""Whole files: there entirely or not at all, even when the machine goes down."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from core.failpoints import failpoint


def write_atomic(target: Path, data: str | bytes | memoryview) -> None:
    """Writes beside the target, syncs, moves into place, syncs the folder. Text is UTF-8, its line ends as they are."""
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            failpoint(f"write{target.suffix}.before_move")
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp gives 0600; a colleague should be able to read a report
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


_UMASK = _umask()  # read once at import: asking for it means setting it, which is no thread's business later
