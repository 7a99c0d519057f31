"""All families by name, and the frames that a request may stand in."""

from __future__ import annotations

from core.data.sandbox.facts import FACTS
from core.data.sandbox.family import Family, Task
from core.data.sandbox.numbers import NUMBER_FAMILIES
from core.data.sandbox.safety import SAFETY
from core.data.sandbox.talk import TALK
from core.data.sandbox.words import WORD_FAMILIES
from core.errors import DataError, nearest

FAMILIES: dict[str, Family] = {f.name: f for f in (*FACTS, *NUMBER_FAMILIES, *WORD_FAMILIES, *TALK, *SAFETY)}

FRAMES: dict[str, float] = {
    "{}": 4,
    "Quick question: {}": 1,
    "Hello! {}": 1,
    "I need your help. {}": 1,
    "{} Thanks!": 1,
    "{} I am curious.": 1,
    "Here is something for you. {}": 1,
}
"""What stands around a request, with its weight. It changes nothing in what is asked."""


def family_of(task: Task) -> Family:
    """The family that made the task. DataError where the task names none."""
    name = task.get("family")
    if name not in FAMILIES:
        raise DataError(
            f'task: "family" is {name!r}, expected one of {", ".join(FAMILIES)}.{nearest(str(name), FAMILIES)}',
            "The gold judge knows the sandbox's own tasks only; take another reward for other data.",
        )
    return FAMILIES[name]
