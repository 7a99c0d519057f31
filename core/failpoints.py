"""Points at which a test can make the process die, so that a crash happens exactly where it is meant to.

`ACCORDANT_FAILPOINT=checkpoint.before:3` kills the process with SIGKILL when that point is passed for the third time.
Without the variable a point costs one dictionary look-up.
"""

from __future__ import annotations

import os
import signal

_passed: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Die here, if the environment says so."""
    wanted = os.environ.get("ACCORDANT_FAILPOINT")
    if not wanted:
        return
    point, _, count = wanted.partition(":")
    if point == name:
        _passed[name] = _passed.get(name, 0) + 1
        if _passed[name] == int(count or 1):
            os.kill(os.getpid(), signal.SIGKILL)
