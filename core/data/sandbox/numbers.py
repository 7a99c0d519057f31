"""Families with numbers: arithmetic, sequences, unit conversion, sorting, counting letters."""

from __future__ import annotations

from random import Random
from typing import Any

from core.data.sandbox import text as t
from core.data.sandbox.dice import between, pick, pick_some
from core.data.sandbox.facts import KINDS
from core.data.sandbox.family import Family, Task, Verdict, cap, listing, number

UNITS = [
    ("minutes", "hour", 60), ("seconds", "minute", 60), ("hours", "day", 24), ("days", "week", 7), ("months", "year", 12),
    ("centimetres", "metre", 100), ("cents", "euro", 100), ("eggs", "dozen", 12), ("legs", "spider", 8),
]  # fmt: skip
COUNTED = ("cat", "sun", "apple", "house", "river", "garden", "window", "planet", "morning", "elephant", "bread", "kitchen")
SORTED = KINDS["fruits"] + KINDS["animals"]


def _draw_sum(rng: Random) -> dict[str, Any]:
    """Operands whose result is not one of them: an echo of the question must not look like an answer."""
    while True:
        a, b, op = between(rng, 1, 9), between(rng, 1, 6), pick(rng, ("plus", "minus"))
        task = {"a": a, "op": op, "b": b}
        if _result(task) >= 0 and _result(task) not in (a, b):
            return task


def _result(k: Task) -> int:
    return int(k["a"] + k["b"] if k["op"] == "plus" else k["a"] - k["b"])


ARITHMETIC = Family(
    name="arithmetic",
    draw=_draw_sum,
    prompts=lambda k: [
        f"What is {k['a']} {k['op']} {k['b']}?",
        f"Work out {k['a']} {k['op']} {k['b']} for me.",
        f"How much is {k['a']} {k['op']} {k['b']}?",
        f"Please calculate {k['a']} {k['op']} {k['b']}.",
    ],
    answers=lambda k: [
        f"{k['a']} {k['op']} {k['b']} is {_result(k)}.",
        f"The answer is {_result(k)}.",
        f"{_result(k)}.",
    ],
    wrong=lambda k, rng: f"{k['a']} {k['op']} {k['b']} is {_near(_result(k), rng, {k['a'], k['b']})}.",
    check=lambda k, text: number(text, _result(k), (k["a"], k["b"])),
    weight=1.2,
)


def _near(right: int, rng: Random, taken: set[int]) -> int:
    """A number close to the right one that nobody could take for it or for an echo of the question."""
    return pick(rng, [n for n in range(max(0, right - 3), right + 6) if n != right and n not in taken])


def _terms(k: Task) -> list[int]:
    return [k["start"] + i * k["step"] for i in range(5)]


SEQUENCE = Family(
    name="sequences",
    draw=lambda rng: {"start": between(rng, 1, 8), "step": pick(rng, (1, 2, 5, 10))},
    prompts=lambda k: [
        f"What number comes next: {', '.join(map(str, _terms(k)[:4]))}?",
        f"Continue this sequence with one number: {', '.join(map(str, _terms(k)[:4]))}.",
        f"Which number follows in this row: {', '.join(map(str, _terms(k)[:4]))}?",
        f"Find the next number after {', '.join(map(str, _terms(k)[:4]))}.",
    ],
    answers=lambda k: [
        f"The next number is {_terms(k)[4]}.",
        f"{_terms(k)[4]}.",
        f"It is {_terms(k)[4]}, because each step adds {k['step']}.",
    ],
    wrong=lambda k, rng: f"The next number is {_near(_terms(k)[4], rng, set(_terms(k)))}.",
    check=lambda k, text: number(text, _terms(k)[4], (*_terms(k)[:4], k["step"])),
    need=10,
)


def _draw_units(rng: Random) -> dict[str, Any]:
    small, big, per = pick(rng, UNITS)
    return {"small": small, "big": big, "per": per, "count": between(rng, 1, 4)}


def _amount(k: Task) -> str:
    if k["count"] == 1:
        return f"1 {k['big']}"
    plural = "dozen" if k["big"] == "dozen" else f"{k['big']}s"
    return f"{k['count']} {plural}"


def _total(k: Task) -> int:
    return int(k["per"] * k["count"])


def _check_conversion(k: Task, text: str) -> Verdict:
    """The factor (60 minutes an hour) may stand beside the answer, but not in place of it."""
    echoes = (k["count"], k["per"]) if str(_total(k)) in t.words(text) else (k["count"],)
    return number(text, _total(k), echoes)


CONVERSION = Family(
    name="unit_conversion",
    draw=_draw_units,
    prompts=lambda k: [
        f"How many {k['small']} are there in {_amount(k)}?",
        f"Convert {_amount(k)} into {k['small']}.",
        f"Tell me the number of {k['small']} in {_amount(k)}.",
        f"Turn {_amount(k)} into {k['small']}, please.",
    ],
    answers=lambda k: [
        f"There are {_total(k)} {k['small']} in {_amount(k)}.",
        f"{_total(k)} {k['small']}.",
        f"It is {_total(k)}.",
    ],
    wrong=lambda k, rng: (
        f"There are {pick(rng, [x for x in (7, 10, 12, 24, 50, 60, 90, 100, 500) if x not in (_total(k), k['count'])])} "
        f"{k['small']} in {_amount(k)}."
    ),
    check=_check_conversion,
    need=10,
)


def _draw_sort(rng: Random) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {"by": "size", "items": [str(n) for n in pick_some(rng, range(1, 16), 3)]}
    return {"by": "letter", "items": pick_some(rng, SORTED, 3)}


def _ordered(k: Task) -> list[str]:
    return sorted(k["items"], key=int if k["by"] == "size" else None)


def _sort_prompts(k: Task) -> list[str]:
    items = ", ".join(k["items"])
    if k["by"] == "size":
        return [f"Sort these numbers from small to large: {items}.", f"Put the numbers {items} in rising order."]
    return [f"Put these words in alphabetical order: {items}.", f"Sort the words {items} from A to Z."]


def _check_sort(k: Task, text: str) -> Verdict:
    """Right in the right order; half of the share of well-ordered pairs otherwise."""
    found = t.joined(text)
    places = [t.where(found, item) for item in _ordered(k)]
    if all(p < 0 for p in places):
        return Verdict(None)
    pairs = [(x, y) for i, x in enumerate(places) for y in places[i + 1 :]]
    good = sum(0 <= x < y for x, y in pairs)
    return Verdict(1.0 if good == len(pairs) else 0.5 * good / len(pairs), min(p for p in places if p >= 0))


def _wrong_sort(k: Task, rng: Random) -> str:
    orders = [o for o in (k["items"], _ordered(k)[::-1]) if o != _ordered(k)]
    return f"The order is {', '.join(pick(rng, orders))}."


SORTING = Family(
    name="sorting",
    draw=_draw_sort,
    prompts=_sort_prompts,
    answers=lambda k: [
        f"{cap(', '.join(_ordered(k)))}.",
        f"The order is {', '.join(_ordered(k))}.",
        f"In order: {listing(_ordered(k))}.",
    ],
    wrong=_wrong_sort,
    check=_check_sort,
    lists=True,
)

COUNTING = Family(
    name="counting",
    draw=lambda rng: {"word": pick(rng, COUNTED)},
    prompts=lambda k: [
        f"How many letters are in the word {k['word']}?",
        f"Count the letters of the word {k['word']}.",
        f"Tell me how long the word {k['word']} is, in letters.",
        f"Word game: how many letters has {k['word']}?",
    ],
    answers=lambda k: [
        f"The word {k['word']} has {len(k['word'])} letters.",
        f"{len(k['word'])} letters.",
        f"It has {len(k['word'])}.",
    ],
    wrong=lambda k, rng: f"The word {k['word']} has {_near(len(k['word']), rng, {0, 1})} letters.",
    check=lambda k, text: number(text, len(k["word"])),
    weight=0.6,
)

NUMBER_FAMILIES = (ARITHMETIC, SEQUENCE, CONVERSION, SORTING, COUNTING)
