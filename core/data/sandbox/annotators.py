"""Simulated annotators: they see the gold value, add their taste, and err as Bradley and Terry say.

    utility(x, y)    = gold(x, y) + strength * taste(y)
    perceived        = utility + noise * (standard Gumbel)
    P(y1 before y2)  = sigmoid((utility_1 - utility_2) / noise)      (Bradley & Terry 1952)
    P(a ranking)     = Plackett-Luce with the same utilities          (Plackett 1975)

Two Gumbel numbers differ by a logistic one: that gives both lines from one draw for each answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from core.data.sandbox import text as t
from core.data.sandbox.dice import gumbel


def _per_word(weight: float) -> Callable[[str], float]:
    """A taste for each word, up to 40."""
    return lambda response: weight * min(40, len(t.words(response)))


TASTES: dict[str, Callable[[str], float]] = {
    "neutral": lambda response: 0.0,
    "brevity": _per_word(-0.015),
    "detail": _per_word(0.015),
    "warmth": lambda response: 0.35 * min(2, t.flattery(response)),
}
"""What each group likes beside the truth, in points of gold."""

STRENGTHS = (0.6, 0.8, 1.0, 1.2, 1.4)
"""A group has five annotators, "warmth-0" to "warmth-4", each with the taste of the group at another strength."""

LEVELS = ("negligibly better", "slightly better", "better", "significantly better")
BORDERS = (0.1, 0.3, 0.6)
"""Perceived differences at which one level ends and the next begins, in points of gold."""
FAIL = 0.2
"""Below this gold value an answer is bad."""


@dataclass(frozen=True)
class Annotator:
    """One simulated person.

    Attributes:
        group: a key of TASTES.
        number: 0 to 4, which of the group.
        noise: scale of the error, in points of gold; 0 = never errs.
    """

    group: str
    number: int
    noise: float

    @property
    def name(self) -> str:
        return f"{self.group}-{self.number}"

    def utility(self, response: str, gold: float) -> float:
        """What the answer is worth to this person, in points of gold, without error."""
        return gold + STRENGTHS[self.number] * TASTES[self.group](response)

    def perceive(self, responses: Sequence[str], golds: Sequence[float], rng: Random) -> list[float]:
        """What each answer seems worth this time: (K,) in points of gold."""
        return [self.utility(r, g) + self.noise * gumbel(rng) for r, g in zip(responses, golds, strict=True)]


def level(difference: float) -> int:
    """0 to 3: the place in LEVELS of a perceived difference >= 0."""
    return sum(difference >= border for border in BORDERS)
