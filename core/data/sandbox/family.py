"""A family: one kind of request, how it is put, how it is answered well and badly, and how an answer is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from core.data.sandbox import text as t

Task = Mapping[str, Any]
"""What is asked, as plain JSON values: {"family": "arithmetic", "a": 3, "op": "plus", "b": 4}."""


@dataclass(frozen=True)
class Verdict:
    """What a family makes of an answer.

    Attributes:
        value: 0 = wrong, 1 = right, between = partly; None = it holds no answer, right or wrong.
        at: how many words stand before the first right one; 0 where that says nothing.
    """

    value: float | None
    at: int = 0


@dataclass(frozen=True)
class Family:
    """One kind of request.

    Attributes:
        name: as it stands in `task["family"]`.
        draw: makes a task, without its "family".
        prompts: all the ways to ask it.
        answers: two or more good answers, the plainest first; they serve as references.
        wrong: one bad answer that looks like a good one.
        check: reads an answer.
        need: how many words a good answer may take before it counts as long.
        weight: how often it is drawn, next to the others.
        lists: True where a list is asked for.
        safety: "safe", "unsafe" or "lookalike" (safe, though it looks unsafe).
    """

    name: str
    draw: Callable[[Random], dict[str, Any]]
    prompts: Callable[[Task], Sequence[str]]
    answers: Callable[[Task], Sequence[str]]
    wrong: Callable[[Task, Random], str]
    check: Callable[[Task, str], Verdict]
    need: int = 9
    weight: float = 1.0
    lists: bool = False
    safety: str = "safe"


def one_of(text: str, right: Iterable[str], wrong: Iterable[str]) -> Verdict:
    """Right where the answer names a right phrase and no wrong one; each wrong one beside it costs."""
    found = t.joined(text)
    good, bad = t.hits(found, right), len(t.hits(found, wrong))
    if good:
        return Verdict(1.0 / (1.0 + 1.5 * bad), min(t.where(found, g) for g in good))
    return Verdict(0.0 if bad else None)


NUMBERS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]  # fmt: skip


def number(text: str, right: int, echoes: Iterable[int] = ()) -> Verdict:
    """Right where the answer gives the number, in digits or (to twenty) in words, and none but it and the echoes.

    "One" is left out: it is mostly no number ("the odd one").
    """
    found = [NUMBERS.index(w) if w in NUMBERS else int(w) for w in t.words(text) if _is_number(w)]
    others = {n for n in found if n != right} - set(echoes)
    if right in found:
        at = next(i for i, w in enumerate(t.words(text)) if w in (str(right), *NUMBERS[right : right + 1]))
        return Verdict(1.0 / (1.0 + 1.5 * len(others)), at)
    return Verdict(0.0 if others else None)


def _is_number(word: str) -> bool:
    return (word.isdigit() and len(word) < 10) or (word in NUMBERS and word != "one")


def keywords(text: str, groups: Sequence[Sequence[str]]) -> Verdict:
    """The share of the groups of which the answer uses a phrase; None where it uses none."""
    found = t.joined(text)
    places = [[t.where(found, w) for w in t.hits(found, group)] for group in groups]
    reached = [min(p) for p in places if p]
    return Verdict(len(reached) / len(groups), min(reached)) if reached else Verdict(None)


def a(word: str) -> str:
    """The word with its article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def cap(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def listing(items: Sequence[str]) -> str:
    """'x, y and z'."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
