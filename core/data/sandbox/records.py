"""Records with TRL's column names, without end and without a file: a pure function of (kind, split, seed, index)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Any

from core.data.sandbox.annotators import BORDERS, FAIL, LEVELS, STRENGTHS, TASTES, Annotator, level
from core.data.sandbox.dice import between, pick_weighted, seeded
from core.data.sandbox.families import FAMILIES, FRAMES
from core.data.sandbox.family import Family
from core.data.sandbox.judge import gold
from core.data.sandbox.styles import COMPARED, GOOD, MIXED, make
from core.errors import ConfigError, nearest

SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
TIE = BORDERS[0] / 2
"""Closer than this, in points of gold as perceived, an annotator who may say "tie" does; also where both answers fail."""

_WEIGHTS = {name: family.weight for name, family in FAMILIES.items()}
_TRIES = 200


@dataclass(frozen=True)
class Options:
    """What `records` may be told beyond kind, split, seed and count.

    Attributes:
        quality: of demonstrations: "mixed" (every style, mostly right) or "good" (right and plain).
        noise: of annotators, in points of gold; 0 = they never err.
        ties: True = annotators may say "tie", and "fail" where both answers are bad.
        tastes: group of annotators -> its share.
        responses: answers of a ranking, at least 2.
    """

    quality: str = "mixed"
    noise: float = 0.15
    ties: bool = False
    tastes: Mapping[str, float] = field(
        default_factory=lambda: {"neutral": 0.4, "brevity": 0.2, "detail": 0.2, "warmth": 0.2},
    )
    responses: int = 4

    def __post_init__(self) -> None:
        _known("data.quality", self.quality, ("mixed", "good"))
        if not 0 <= self.noise < float("inf"):
            raise ConfigError(f"data.noise is {self.noise}, expected a number >= 0.", "0.15 errs about as people do.")
        if not self.tastes or min(self.tastes.values()) < 0 or sum(self.tastes.values()) <= 0:
            raise ConfigError(f"data.tastes is {dict(self.tastes)}, expected shares >= 0.", "data.tastes={neutral: 1.0}")
        for group in self.tastes:
            _known("data.tastes", group, TASTES)
        if not 2 <= self.responses <= 9:
            raise ConfigError(f"data.responses is {self.responses}, expected 2 to 9.", "4 is the default.")


@dataclass(frozen=True)
class _Draw:
    """One request, before it has answers."""

    family: Family
    task: dict[str, Any]
    prompt: str
    base: dict[str, Any]


def records(kind: str, split: str, seed: int, count: int, **options: Any) -> Iterator[dict[str, Any]]:
    """Makes `count` records.

    Args:
        kind: "prompts", "demonstrations", "pairs" or "rankings".
        split: "train", "validation" or "test". Splits share no prompt, whatever their seeds: the prompt decides.
        seed: any whole number.
        count: how many; a longer run begins with the records of a shorter one.
        **options: the fields of `Options`.

    Yields:
        Plain JSON values. All kinds have id, prompt, references, task, family, category (of unsafe requests, else
        None) and safety_label; then
        demonstrations: completion, style; pairs: chosen, rejected, margin (0, 1/3, 2/3 or 1), preference_level,
        annotator, group, chosen_gold, rejected_gold and, if `ties`, tie and fail; rankings: responses (best first),
        scores (as the annotator perceived them), annotator, group, golds.

    Raises:
        ConfigError: an unknown kind, split or option, or a value that cannot be.
    """
    _known("kind", kind, _MAKERS)
    _known("split", split, SPLITS)
    known = {f.name for f in dataclasses.fields(Options)}
    for name in options:
        _known("option", name, known)
    return _generate(kind, split, seed, count, Options(**options))


def split_of(prompt: str) -> str:
    """The split that a prompt belongs to."""
    point = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big") / 2**32
    for name, share in SPLITS.items():
        point -= share
        if point < 0:
            return name
    return "test"


def _generate(kind: str, split: str, seed: int, count: int, options: Options) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for index in range(count):
        rng = seeded("sandbox", kind, split, seed, index)
        # Prompts alone do not repeat (as long as there are others): a set of them is for collecting and measuring.
        draw = _draw(rng, split, f"{kind}-{split}-{seed}-{index}", seen if kind == "prompts" else set())
        seen.add(draw.prompt)
        yield {**draw.base, **_MAKERS[kind](draw, options, rng)}


def _draw(rng: Random, split: str, name: str, seen: set[str]) -> _Draw:
    """A request of the split; a new one, unless many draws of its family give only known ones."""
    family, known = FAMILIES[pick_weighted(rng, _WEIGHTS)], None
    for _ in range(_TRIES):
        task = {"family": family.name, **family.draw(rng)}
        phrasings = family.prompts(task)
        prompt = pick_weighted(rng, FRAMES).format(phrasings[int(rng.random() * len(phrasings))])
        if split_of(prompt) != split:
            continue
        known = (task, prompt)
        if prompt not in seen:
            break
    if known is None:
        raise RuntimeError(f"family {family.name} has no prompt in split {split}: it needs more phrasings")
    task, prompt = known
    base = {
        "id": name,
        "prompt": prompt,
        "references": list(family.answers(task))[:3],
        "task": task,
        "family": family.name,
        "category": task.get("category"),
        "safety_label": family.safety,
    }
    return _Draw(family, task, prompt, base)


def _answers(draw: _Draw, count: int, rng: Random) -> tuple[list[str], list[float]]:
    """Different answers with their gold values."""
    out: list[str] = []
    while len(out) < count:
        answer = make(draw.family, draw.task, pick_weighted(rng, COMPARED), rng)
        if answer not in out:
            out.append(answer)
    return out, [gold(draw.prompt, answer, draw.task) for answer in out]


def _after_prompt(answer: str) -> str:
    """With a space before it: prompt and answer are joined as they stand."""
    return f" {answer}"


def _demonstration(draw: _Draw, options: Options, rng: Random) -> dict[str, Any]:
    style = pick_weighted(rng, MIXED if options.quality == "mixed" else GOOD)
    return {"completion": _after_prompt(make(draw.family, draw.task, style, rng)), "style": style}


def _annotator(options: Options, rng: Random) -> Annotator:
    group = pick_weighted(rng, options.tastes)
    return Annotator(group, between(rng, 0, len(STRENGTHS) - 1), options.noise)


def _pair(draw: _Draw, options: Options, rng: Random) -> dict[str, Any]:
    responses, golds = _answers(draw, 2, rng)
    who = _annotator(options, rng)
    first, second = who.perceive(responses, golds, rng)
    best = 0 if first > second else 1
    gap = abs(first - second)
    verdict: dict[str, bool] = {}
    if options.ties:
        fail = max(golds) < FAIL
        verdict = {"tie": fail or gap < TIE, "fail": fail}
        gap = 0.0 if verdict["tie"] else gap
    return {
        "chosen": _after_prompt(responses[best]),
        "rejected": _after_prompt(responses[1 - best]),
        "margin": level(gap) / (len(LEVELS) - 1),
        "preference_level": LEVELS[level(gap)],
        "annotator": who.name,
        "group": who.group,
        "chosen_gold": golds[best],
        "rejected_gold": golds[1 - best],
        **verdict,
    }


def _ranking(draw: _Draw, options: Options, rng: Random) -> dict[str, Any]:
    responses, golds = _answers(draw, options.responses, rng)
    who = _annotator(options, rng)
    scores = who.perceive(responses, golds, rng)
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    ranked = [scores[i] for i in order]
    out: dict[str, Any] = {
        "responses": [_after_prompt(responses[i]) for i in order],
        "scores": ranked,
        "annotator": who.name,
        "group": who.group,
        "golds": [golds[i] for i in order],
    }
    if options.ties:
        out["fail"] = max(golds) < FAIL
        out["ties"] = [out["fail"] or high - low < TIE for high, low in pairwise(ranked)]
    return out


_MAKERS: dict[str, Callable[[_Draw, Options, Random], dict[str, Any]]] = {
    "prompts": lambda draw, options, rng: {},
    "demonstrations": _demonstration,
    "pairs": _pair,
    "rankings": _ranking,
}


def _known(what: str, came: str, expected: Mapping[str, Any] | set[str] | tuple[str, ...]) -> None:
    if came not in expected:
        raise ConfigError(
            f'sandbox: {what} "{came}" is unknown, expected one of {", ".join(sorted(expected))}.{nearest(came, expected)}',
            "docs/sandbox.md lists them.",
        )
