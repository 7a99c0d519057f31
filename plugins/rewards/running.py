"""Mean and deviation of all scores that collections have seen so far.

    n = n_a + n_b        d = mean_b - mean_a
    mean = mean_a + d n_b / n        M2 = M2_a + M2_b + d^2 n_a n_b / n        std = sqrt(M2 / n)

M2 is the sum of squared distances from the mean. Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise
algorithm for computing sample variances", equations 1.5 (as Welford 1962, for groups of any size).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.api import Sample, Scored, from_all_processes

_NO_SPREAD = 1e-9
"""Deviations this small beside the mean are rounding: such scores are all equal."""


@dataclass(frozen=True)
class Moments:
    """Statistics of scores, in double precision.

    Attributes:
        count: how many.
        mean: their mean, in points.
        m2: the sum of their squared distances from it, in points squared.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    @classmethod
    def of(cls, values: Sequence[float]) -> Moments:
        if not values:
            return cls()
        mean = math.fsum(values) / len(values)
        return cls(len(values), mean, math.fsum((value - mean) ** 2 for value in values))

    def __add__(self, other: Moments) -> Moments:
        if self.count == 0 or other.count == 0:
            return self if other.count == 0 else other
        count = self.count + other.count
        step = other.mean - self.mean
        return Moments(
            count,
            self.mean + step * other.count / count,
            self.m2 + other.m2 + step * step * self.count * other.count / count,
        )

    @property
    def std(self) -> float:
        """Of the scores themselves (divided by n), 0 where they are all equal."""
        found = math.sqrt(self.m2 / self.count) if self.count else 0.0
        return found if found > _NO_SPREAD * abs(self.mean) else 0.0


class Running:
    """Moments that grow with each collection, those of all processes together.

    It keeps the scores of the last collection until they are asked for: what scores right after `fit` need not compute a
    learned reward twice.
    """

    def __init__(self) -> None:
        self.moments = Moments()
        self._last: tuple[Sequence[Sample], Scored] | None = None

    def fit(self, samples: Sequence[Sample], scored: Scored) -> None:
        """Take in what a collection's samples scored."""
        self.take(scored.scores)
        self._last = (samples, scored)

    def just_fitted(self, samples: Sequence[Sample]) -> Scored | None:
        """What these very samples scored, where they are those of the last `fit`; once."""
        last, self._last = self._last, None
        return last[1] if last is not None and last[0] is samples else None

    def take(self, scores: Sequence[float | None]) -> None:
        """Take in the scores of a collection. Every process must call it, with its own share."""
        mine = Moments.of([float(score) for score in scores if score is not None])
        # In order of rank, so that all processes add alike and agree to the last bit.
        for count, mean, m2 in from_all_processes((mine.count, mine.mean, mine.m2)):
            self.moments += Moments(count, mean, m2)

    @property
    def mean_and_std(self) -> tuple[float, float] | None:
        """None before the first score. Where there is no spread, std counts as 1."""
        return (self.moments.mean, self.moments.std or 1.0) if self.moments.count else None

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers; {} before the first score."""
        found = self.moments
        return {"count": found.count, "mean": found.mean, "m2": found.m2} if found.count else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.moments = Moments(**state)
        self._last = None
