"""The processes that train together, for code that should not import torch to ask."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TypeVar

from core.errors import UserError

Given = TypeVar("Given")


def from_all_processes(value: Given) -> list[Given]:
    """The values that all processes gave, in order of rank; of a single process, its own.

    All processes must call it equally often. Plain containers of numbers and texts; they are pickled.

    Raises:
        UserError: the first that a process gave in place of a value, in all of them, so that none waits for another.
    """
    given = _gathered(value)
    for one in given:
        if isinstance(one, UserError):
            one.everywhere = True
            raise one
    return given


def _gathered(value: Given) -> list[Given]:
    # Whoever trains on several processes has imported torch; nobody else should wait for it.
    torch = sys.modules.get("torch")
    if torch is None or not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    given: list[Given] = [value] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(given, value)
    return given


def global_moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and variance (with Bessel's correction) of the numbers of all processes; 0, 0 where nobody has one.

    All processes must call it equally often, also those without a number.
    """
    parts = from_all_processes((len(values), math.fsum(values), math.fsum(v * v for v in values)))
    count, total, squares = (sum(part[i] for part in parts) for i in range(3))
    mean = total / max(count, 1)
    return mean, max(0.0, squares - count * mean**2) / max(count - 1, 1)
