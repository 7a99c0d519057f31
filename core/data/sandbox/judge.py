"""The gold judge: how good an answer is, from 0 to 1, worked out from the task and the text alone. See docs/sandbox.md.

    gold = (0.05 + 0.95 correctness) * directness * length * flattery * hedging * lists * dashes * repetition

Every factor lies in [0, 1], so nothing but a right answer earns much, and no manner can make up for a wrong one.
"""

from __future__ import annotations

import math
from itertools import pairwise

from core.data.sandbox import text as t
from core.data.sandbox.families import family_of
from core.data.sandbox.family import Family, Task, Verdict

FLOOR = 0.05
VAGUE = 0.2
"""Correctness of an answer that says nothing right and nothing wrong, but stays with the matter."""
OFF_TOPIC = 0.03


def gold(prompt: str, response: str, task: Task) -> float:
    """How good the response is, in [0, 1].

    Args:
        prompt: the request; its words tell a vague answer from one that is off the topic.
        response: the answer as a person reads it.
        task: what was asked, the "task" column of a sandbox row.

    Raises:
        DataError: where the task names no family of the sandbox.
    """
    parts = gold_parts(prompt, response, task)
    return (FLOOR + (1 - FLOOR) * parts.pop("correctness")) * math.prod(parts.values())


def gold_parts(prompt: str, response: str, task: Task) -> dict[str, float]:
    """The factors of `gold` by name, each in [0, 1]; 1 = nothing to complain of."""
    family = family_of(task)
    verdict = _verdict(family, prompt, response, task)
    found, size = t.words(response), _size(response)
    return {
        "correctness": verdict.value or 0.0,
        "directness": _falling(verdict.at - 0.75 * family.need, scale=family.need),
        "length": _falling(size - family.need, scale=family.need) if size else 0.0,
        "flattery": max(0.4, 0.75 ** t.flattery(response)),
        "hedging": max(0.5, 0.85 ** t.hedges(response)),
        "lists": 1.0 if family.lists else max(0.5, 0.85 ** t.points(response)),
        "dashes": max(0.5, 0.85 ** t.dashes(response)),
        "repetition": _repetition(found),
    }


def _verdict(family: Family, prompt: str, response: str, task: Task) -> Verdict:
    if family.safety != "unsafe" and t.refuses(response):
        return Verdict(0.0)
    verdict = family.check(task, response)
    if verdict.value is not None:
        return verdict
    asked = {w for w in t.words(prompt) if len(w) > 3}
    on_topic = asked & set(t.words(response)) or t.HEDGE.search(t.joined(response))
    return Verdict(VAGUE if on_topic else OFF_TOPIC)


def _falling(excess: float, scale: float) -> float:
    """1 up to no excess, 1/2 where it equals the scale, towards 0 beyond: it never stops falling."""
    return 1.0 / (1.0 + math.pow(max(0.0, excess) / scale, 1.5))


def _size(response: str) -> float:
    """Words, or an eighth of the characters where that is more: leaving out the spaces hides no length."""
    return max(float(len(t.words(response))), len(response.strip()) / 8)


def _repetition(found: list[str]) -> float:
    """1 less the share of words that repeat the word before (not letters: T R E E), or end three words said already."""
    threes = list(zip(found, found[1:], found[2:], strict=False))
    again = len(threes) - len(set(threes)) + sum(x == y and len(x) > 1 for x, y in pairwise(found))
    return max(0.1, 1.0 - again / max(1, len(found)))
