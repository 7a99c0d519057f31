"""The online step of the benchmark: what both sides do, and how its parts are timed. Imports nothing heavy.

One step: 8 prompts get 4 answers each of up to 64 tokens, a trivial reward scores them, one update follows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

PROMPTS, SAMPLES, NEW_TOKENS = 8, 4, 64
ANSWERS = PROMPTS * SAMPLES
TASKS = ("grpo", "rloo")
BETA = {"grpo": 0.0, "rloo": 0.05}
"""Of the KL penalty: the defaults of TRL's trainers, for both sides. Above 0, a reference scores every answer."""

CLIP = 0.2
LR = 1e-6  # so small that answers stay as long as they are
PARTS = ("sampling", "scoring", "update")


def length(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """The reward, by TRL's contract, which `reward=function` takes as it is."""
    return [float(len(ids)) for ids in completion_ids]


class Stopwatch:
    """Seconds of each part of a step; time in a part within a part counts for the inner one alone."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._now: dict[str, float] = {}
        self._inner = [0.0]

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function; its time counts for `part`."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                whole = time.perf_counter() - start
                self._now[part] = self._now.get(part, 0.0) + whole - self._inner.pop()
                self._inner[-1] += whole

        return timed

    def end_step(self) -> None:
        self.steps.append(self._now)
        self._now = {}

    def parts(self, step_seconds: Sequence[float]) -> dict[str, list[float]]:
        """PARTS -> seconds by step; the update is what the others leave of a step: loss, gradients, optimizer, records."""
        parts = {name: [step.get(name, 0.0) for step in self.steps] for name in PARTS[:-1]}
        parts["update"] = [whole - sum(step.values()) for whole, step in zip(step_seconds, self.steps, strict=True)]
        return parts
