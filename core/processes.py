"""The processes that train together, for code that should not import torch to ask."""

from __future__ import annotations

import sys
from typing import TypeVar

Given = TypeVar("Given")


def from_all_processes(value: Given) -> list[Given]:
    """The values that all processes gave, in order of rank; of a single process, its own.

    All processes must call it equally often. Plain containers of numbers and texts; they are pickled.
    """
    # Whoever trains on several processes has imported torch; nobody else should wait for it.
    torch = sys.modules.get("torch")
    if torch is None or not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    given: list[Given] = [value] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(given, value)
    return given
