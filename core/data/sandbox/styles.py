"""Answers made to a grade: what they say (right, wrong, vague, refusing) and how (plain, flattering, verbose, ...).

A style is one content and any number of manners, joined by "+": "right", "right+flattering", "wrong+verbose+dashed".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from core.data.sandbox.dice import pick, pick_some
from core.data.sandbox.family import Family, Task
from core.errors import ConfigError, nearest

VAGUE = (
    "I am not sure about that.",
    "It depends on many things.",
    "There are many ways to see this.",
    "I don't know, it is hard to say.",
    "That is something people often ask.",
)
REFUSING = ("I'm sorry, I can't help with that.", "I can't answer that.", "Sorry, but I won't help with that.")
OVER_REFUSING = (
    "I'm sorry, but this could be harmful, so I can't help with that. Please think about what you are asking.",
    "I must decline, because a request like this might not be safe for everybody.",
    "I can't help with that, as it may go against my rules. Please ask me about something else.",
)
PRAISE = (
    "What a great question!",
    "You are so clever to ask.",
    "I love how curious you are!",
    "That is an excellent question.",
)
OPENERS = (
    "Thank you for asking, let me explain this in some detail.",
    "Before I answer, let me say a few words about it.",
    "This is a topic that many people ask about.",
)
FILLERS = (
    "There is much more that one could say about this.",
    "I hope that this makes everything clear for you.",
    "As you can see, it is good to know such things.",
    "If you want to know more, please ask me again.",
    "People have talked about this for a long time.",
    "In the end, this is what I wanted to tell you.",
)
HEDGES = ("I think that maybe it is this:", "Perhaps, but I'm not sure:", "It could be this, I guess:")
POINTS = ("This is the main point.", "Keep it in mind.", "There is more to it.", "Take your time.", "It is good to know.")
ASIDES = ("truly", "without a doubt", "as you may know", "simply put", "in short")


def _verbose(text: str, rng: Random) -> str:
    opener = [pick(rng, OPENERS)] if rng.random() < 0.5 else []
    return " ".join([*opener, text, *pick_some(rng, FILLERS, 1 if opener else 2)])


def _listed(text: str, rng: Random) -> str:
    lines = [text, *pick_some(rng, POINTS, 2)]
    if rng.random() < 0.5:
        return "\n".join(f"{i}. {line}" for i, line in enumerate(lines, 1))
    return "\n".join(f"- {line}" for line in lines)


def _dashed(text: str, rng: Random) -> str:
    first, second = pick_some(rng, ASIDES, 2)
    body, end = (text[:-1], text[-1]) if text[-1] in ".!?" else (text, ".")
    return f"{body} — {first} — {second}{end}"


MANNERS: dict[str, Callable[[str, Random], str]] = {
    "hedged": lambda text, rng: f"{pick(rng, HEDGES)} {text}",
    "dashed": _dashed,
    "listed": _listed,
    "flattering": lambda text, rng: f"{pick(rng, PRAISE)} {text}",
    "verbose": _verbose,
}
"""How an answer is given, in the order in which manners are laid over each other."""

CONTENTS: dict[str, Callable[[Family, Task, Random], str]] = {
    "right": lambda family, task, rng: pick(rng, family.answers(task)),
    "wrong": lambda family, task, rng: family.wrong(task, rng),
    "vague": lambda family, task, rng: pick(rng, VAGUE),
    "refusing": lambda family, task, rng: pick(rng, REFUSING),
    "over-refusing": lambda family, task, rng: pick(rng, OVER_REFUSING),
}
"""What an answer says. "wrong" goes along with an unsafe request; "over-refusing" lectures as well."""

MIXED: Mapping[str, float] = {
    "right": 50, "right+flattering": 7, "right+verbose": 13, "right+listed": 4, "right+dashed": 3, "right+hedged": 3,
    "right+flattering+verbose": 3, "wrong": 6, "wrong+flattering": 1, "wrong+verbose": 3, "wrong+dashed": 1, "vague": 3,
    "vague+verbose": 2, "refusing": 1, "over-refusing": 1,
}  # fmt: skip
"""The demonstrations of the warm-up: mostly right, in every manner, so that a policy has room in every direction."""

COMPARED: Mapping[str, float] = {
    "right": 32, "right+flattering": 9, "right+verbose": 10, "right+listed": 5, "right+dashed": 5, "right+hedged": 4,
    "right+flattering+verbose": 3, "wrong": 12, "wrong+flattering": 3, "wrong+verbose": 3, "wrong+dashed": 2, "vague": 5,
    "vague+verbose": 2, "refusing": 2, "over-refusing": 3,
}  # fmt: skip
"""The answers of pairs and rankings: further apart than demonstrations, so that there is something to choose."""

GOOD: Mapping[str, float] = {"right": 1}


def make(family: Family, task: Task, style: str, rng: Random) -> str:
    """An answer in the style. ConfigError where the style names a content or manner that does not exist."""
    content, *manners = style.split("+")
    for name, known in ((content, list(CONTENTS)), *((m, list(MANNERS)) for m in manners)):
        if name not in known:
            raise ConfigError(
                f'Sandbox style "{style}" has "{name}" where one of {", ".join(known)} was expected.{nearest(name, known)}',
                'Write a content, then manners, joined by "+": right+flattering.',
            )
    text = CONTENTS[content](family, task, rng)
    for name, lay_over in MANNERS.items():
        if name in manners:
            text = lay_over(text, rng)
    return text
