"""Draws that are the same on every platform and Python: only `Random.random()` is promised to stay as it is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


def seeded(*parts: object) -> Random:
    """A generator whose numbers depend on the parts alone (SHA-256 of their texts, joined by "/")."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return Random(int.from_bytes(digest[:8], "big"))


def pick(rng: Random, items: Sequence[T]) -> T:
    """One item, uniformly."""
    return items[int(rng.random() * len(items))]


def pick_some(rng: Random, items: Sequence[T], count: int) -> list[T]:
    """`count` different positions of `items`, in random order."""
    left = list(items)
    return [left.pop(int(rng.random() * len(left))) for _ in range(count)]


def between(rng: Random, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return low + int(rng.random() * (high - low + 1))


def pick_weighted(rng: Random, weights: Mapping[T, float]) -> T:
    """One key, with a chance in proportion to its weight."""
    point = rng.random() * sum(weights.values())
    for item, weight in weights.items():
        point -= weight
        if point < 0:
            return item
    return [item for item, weight in weights.items() if weight > 0][-1]  # rounding left a crumb


def gumbel(rng: Random) -> float:
    """A standard Gumbel number. Two of them differ by a logistic one: that is Bradley-Terry noise."""
    return -math.log(-math.log(max(rng.random(), 1e-300)))
