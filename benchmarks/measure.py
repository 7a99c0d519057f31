"""What one measured process hands back, and the few numbers made from it. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One process's run.

    Attributes:
        side: "trl" or "ours".
        setting: what was chosen on that side (micro-batch, accumulation, ...).
        batch: rows per optimizer step.
        step_seconds: wall time of every optimizer step, data loading and logging included, warm-up too.
        losses: of every step.
        first_metrics: what the trainer logged at its first step.
        peak_mb: peak resident memory of the process (MiB).
        peak_mb_before_training: the same just before the first step.
        step_digests: of the token ids of each step's rows, in any order: equal work has equal digests.
        trained_tokens: tokens in the loss, by step.
        parts: of an online step: sampling, scoring, update -> seconds by step.
    """

    side: str
    task: str
    setting: dict[str, Any]
    batch: int
    step_seconds: list[float]
    losses: list[float]
    first_metrics: dict[str, float]
    peak_mb: float
    peak_mb_before_training: float
    step_digests: list[str]
    trained_tokens: list[int]
    parts: dict[str, list[float]] = field(default_factory=dict)

    def rate(self, warmup: int) -> float:
        """Rows per second after the first `warmup` steps."""
        seconds = self.step_seconds[warmup:]
        return self.batch * len(seconds) / sum(seconds)

    def part(self, name: str, warmup: int) -> float:
        """Seconds a step of one part, its median after the first `warmup` steps."""
        return statistics.median(self.parts[name][warmup:])


def digest_of_step(rows: Sequence[Sequence[tuple[Sequence[int], int]]]) -> str:
    """Of the sequences of a step and how many of each one's tokens are trained on, whatever the order of the rows."""
    parts = sorted(json.dumps([[list(tokens), trained] for tokens, trained in row]) for row in rows)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def peak_memory_mb() -> float:
    """Peak resident set of this process in MiB (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def busy_seconds() -> float:
    """Processor seconds that the whole machine has spent working since it started; 0 where it cannot be asked."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, file.readline().split()[1:])
    except (OSError, ValueError):
        return 0.0
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Neighbours:
    """What share of the processors others used while our children ran.

    Two processes that fight for two cores are many times slower than their share says (threads wait for one another
    inside each matrix product), so this is recorded beside every measurement.
    """

    def __init__(self) -> None:
        self._start = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.monotonic(), busy_seconds(), used.ru_utime + used.ru_stime

    def share(self) -> float:
        """0 = the machine was ours alone, 1 = others used all of it."""
        wall, busy, ours = (b - a for a, b in zip(self._start, self._now(), strict=True))
        return max(0.0, busy - ours) / max(1e-9, wall * (os.cpu_count() or 1))


def write_measurement(measurement: Measurement, path: Path | None) -> None:
    text = json.dumps(dataclasses.asdict(measurement))
    if path is None:
        print(text)
    else:
        path.write_text(text, encoding="utf-8")


def read_measurement(path: Path) -> Measurement:
    return Measurement(**json.loads(path.read_text(encoding="utf-8")))
