"""Repetition: a penalty on answers that say the same thing again and again.

    score = - scale * (1 - distinct n-grams / n-grams)        0 = nothing is said twice, - scale = nothing new is said

An n-gram is n units in a row. An answer of fewer than n units has none, and scores 0. Source: seq-rep-n of Welleck et al.
2020, "Neural Text Generation with Unlikelihood Training", section 6, there over tokens with n = 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from core.api import ConfigError, RewardSource, Sample


class Repetition(RewardSource):
    """Minus the share of n-grams that were there before, 0 (none) to -1 (all but one)."""

    api_version = 1

    def __init__(self, n: int = 3, unit: Literal["words", "tokens"] = "words", scale: float = 1.0) -> None:
        if n < 1:
            raise ConfigError(f"reward.n is {n}; expected a whole number of at least 1.")
        if unit not in ("words", "tokens"):
            raise ConfigError(f'reward.unit is "{unit}"; expected words or tokens.')
        if not 0 < scale < float("inf"):
            raise ConfigError(f"reward.scale is {scale}; expected a number above 0.", "Higher is better, always.")
        self.n, self.of_tokens, self.scale = n, unit == "tokens", scale

    def score(self, samples: Sequence[Sample]) -> list[float]:
        return [-self.scale * repeated(s.tokens if self.of_tokens else s.response.lower().split(), self.n) for s in samples]


def repeated(units: Sequence[object], n: int) -> float:
    """1 - distinct n-grams / n-grams: from 0 to below 1; 0 where there are no n-grams."""
    grams = [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0
