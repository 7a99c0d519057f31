"""Families that ask what the world is like: capitals, colours, opposites, definitions, comparisons, odd one out."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from core.data.sandbox import text as t
from core.data.sandbox.dice import pick, pick_some
from core.data.sandbox.family import Family, Task, Verdict, a, cap, keywords, one_of

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Austria": "Vienna", "Greece": "Athens",
    "Poland": "Warsaw", "Norway": "Oslo", "Portugal": "Lisbon", "Japan": "Tokyo", "China": "Beijing", "Egypt": "Cairo",
    "Peru": "Lima", "Cuba": "Havana",
}  # fmt: skip
COLOURS = {
    "a banana": "yellow", "snow": "white", "grass": "green", "blood": "red", "coal": "black", "the sky": "blue",
    "chocolate": "brown", "a lemon": "yellow", "milk": "white", "a tomato": "red", "a carrot": "orange",
    "a frog": "green", "a raven": "black", "a flamingo": "pink", "the ocean": "blue", "tree bark": "brown",
}  # fmt: skip
OPPOSITES = [
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("old", "young"), ("rich", "poor"), ("happy", "sad"),
    ("light", "dark"), ("high", "low"), ("wet", "dry"), ("full", "empty"), ("open", "closed"), ("early", "late"),
    ("hard", "soft"), ("strong", "weak"),
]  # fmt: skip
DEFINITIONS: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
    "bakery": ("a shop where bread is made", (("shop", "place"), ("bread", "cakes"))),
    "library": ("a place where people borrow books", (("place", "building"), ("books", "read"))),
    "island": ("land with water all around it", (("land",), ("water", "sea"))),
    "thermometer": ("a tool that measures how warm it is", (("tool", "measures"), ("warm", "temperature", "heat"))),
    "orphan": ("a child without parents", (("child", "person"), ("parents", "mother", "father"))),
    "desert": ("a dry place with little rain", (("dry", "sand"), ("rain", "place", "land"))),
    "hospital": ("a place where doctors treat sick people", (("doctors", "nurses"), ("sick", "ill"))),
    "umbrella": ("a thing that keeps the rain off you", (("keeps", "protects", "shields"), ("rain",))),
    "volcano": ("a mountain that can throw out hot rock", (("mountain",), ("rock", "lava", "fire"))),
    "compass": ("a tool that shows which way is north", (("tool", "shows"), ("north", "direction"))),
    "orchard": ("a field where fruit trees grow", (("field", "place", "land"), ("trees", "fruit"))),
    "diary": ("a book in which you write about your day", (("book",), ("write", "day"))),
    "nephew": ("the son of your brother or sister", (("son",), ("brother", "sister"))),
    "harbour": ("a safe place for ships near the land", (("ships", "boats"), ("place", "land"))),
}
SIZES = ["ant", "bee", "mouse", "cat", "goat", "lion", "horse", "bus", "house", "mountain"]
SPEEDS = ["snail", "turtle", "duck", "dog", "bicycle", "car", "train", "plane", "rocket"]
SCALES: dict[str, tuple[str, list[str]]] = {
    "bigger": ("smaller", SIZES),
    "smaller": ("bigger", SIZES),
    "faster": ("slower", SPEEDS),
    "slower": ("faster", SPEEDS),
}
KINDS = {
    "fruits": ("apple", "pear", "grape", "plum", "cherry", "peach", "melon", "mango"),
    "animals": ("dog", "horse", "rabbit", "sheep", "tiger", "monkey", "goose", "camel"),
    "colours": ("red", "blue", "green", "yellow", "purple", "pink", "brown", "white"),
    "tools": ("hammer", "saw", "drill", "shovel", "ladder", "rake", "wrench", "axe"),
    "clothes": ("shirt", "hat", "coat", "scarf", "glove", "sock", "dress", "belt"),
    "drinks": ("tea", "coffee", "juice", "water", "milk", "cocoa", "cider", "lemonade"),
}


def _other(rng: Random, table: Sequence[str], right: str) -> str:
    return pick(rng, [x for x in dict.fromkeys(table) if x != right])


def _lower(items: Sequence[str], *without: str) -> list[str]:
    return [x.lower() for x in dict.fromkeys(items) if x not in without]


CAPITAL = Family(
    name="capitals",
    draw=lambda rng: {"country": pick(rng, list(CAPITALS))},
    prompts=lambda k: [
        f"What is the capital of {k['country']}?",
        f"Which city is the capital of {k['country']}?",
        f"Tell me the capital city of {k['country']}.",
        f"Name the capital of {k['country']}.",
        f"Do you know the capital of {k['country']}?",
    ],
    answers=lambda k: [
        f"The capital of {k['country']} is {CAPITALS[k['country']]}.",
        f"{CAPITALS[k['country']]}.",
        f"It is {CAPITALS[k['country']]}.",
    ],
    wrong=lambda k, rng: f"The capital of {k['country']} is {_other(rng, list(CAPITALS.values()), CAPITALS[k['country']])}.",
    check=lambda k, text: one_of(
        text,
        [CAPITALS[k["country"]].lower()],
        _lower(list(CAPITALS.values()), CAPITALS[k["country"]]),
    ),
)


COLOUR = Family(
    name="colours",
    draw=lambda rng: {"thing": pick(rng, list(COLOURS))},
    prompts=lambda k: [
        f"What is the usual colour of {k['thing']}?",
        f"Which colour do people link with {k['thing']}?",
        f"If I paint {k['thing']}, which colour should I take?",
        f"Tell me the normal colour of {k['thing']}.",
        f"Name the colour of {k['thing']}.",
    ],
    answers=lambda k: [
        f"The usual colour of {k['thing']} is {COLOURS[k['thing']]}.",
        f"{cap(COLOURS[k['thing']])}.",
        f"It is {COLOURS[k['thing']]}.",
    ],
    wrong=lambda k, rng: f"The usual colour of {k['thing']} is {_other(rng, list(COLOURS.values()), COLOURS[k['thing']])}.",
    check=lambda k, text: one_of(text, [COLOURS[k["thing"]]], _lower(list(COLOURS.values()), COLOURS[k["thing"]])),
)

_PAIRS = {**dict(OPPOSITES), **{y: x for x, y in OPPOSITES}}
OPPOSITE = Family(
    name="opposites",
    draw=lambda rng: {"word": pick(rng, list(_PAIRS))},
    prompts=lambda k: [
        f"What is the opposite of {k['word']}?",
        f"Give me the opposite of the word {k['word']}.",
        f"Which word means the opposite of {k['word']}?",
        f"Tell me a word that is the opposite of {k['word']}.",
    ],
    answers=lambda k: [
        f"The opposite of {k['word']} is {_PAIRS[k['word']]}.",
        f"{cap(_PAIRS[k['word']])}.",
        f"It is {_PAIRS[k['word']]}.",
    ],
    wrong=lambda k, rng: (
        f"The opposite of {k['word']} is {pick(rng, [w for w in _PAIRS if w not in (k['word'], _PAIRS[k['word']])])}."
    ),
    check=lambda k, text: one_of(text, [_PAIRS[k["word"]]], _lower(list(_PAIRS), k["word"], _PAIRS[k["word"]])),
)

DEFINITION = Family(
    name="definitions",
    draw=lambda rng: {"word": pick(rng, list(DEFINITIONS))},
    prompts=lambda k: [
        f"What is {a(k['word'])}?",
        f"What does the word {k['word']} mean?",
        f"Explain in one sentence what {a(k['word'])} is.",
        f"Define the word {k['word']} for a child.",
        f"Can you tell me what {a(k['word'])} is?",
    ],
    answers=lambda k: [
        f"{cap(a(k['word']))} is {DEFINITIONS[k['word']][0]}.",
        f"It is {DEFINITIONS[k['word']][0]}.",
        f"The word {k['word']} means {DEFINITIONS[k['word']][0]}.",
    ],
    wrong=lambda k, rng: f"{cap(a(k['word']))} is {DEFINITIONS[pick(rng, [w for w in DEFINITIONS if w != k['word']])][0]}.",
    check=lambda k, text: _definition(k, text),
    need=13,
)


def _definition(k: Task, text: str) -> Verdict:
    """The definition of another word is wrong, even where it shares a keyword."""
    verdict = keywords(text, DEFINITIONS[k["word"]][1])
    found = t.joined(text)
    if any(other != k["word"] and f" {meaning} " in found for other, (meaning, _) in DEFINITIONS.items()):
        return Verdict(0.0)
    return verdict


def _draw_compare(rng: Random) -> dict[str, Any]:
    more = pick(rng, list(SCALES))
    left, right = pick_some(rng, SCALES[more][1], 2)
    return {"more": more, "left": left, "right": right}


def _winner(k: Task) -> tuple[str, str]:
    """The thing that the question is after, and the other one."""
    scale = SCALES[k["more"]][1]
    low, high = sorted((k["left"], k["right"]), key=scale.index)
    return (high, low) if k["more"] in ("bigger", "faster") else (low, high)


def _check_compare(k: Task, text: str) -> Verdict:
    """The thing named first is the one meant, unless the answer turns the question round ("smaller than")."""
    found = t.joined(text)
    win, lose = (t.where(found, thing) for thing in _winner(k))
    if win < 0 and lose < 0:
        return Verdict(None)
    turned = t.where(found, SCALES[k["more"]][0]) >= 0
    if win >= 0 and lose >= 0 and " than " not in found:
        return Verdict(0.3, min(win, lose))
    first = lose < 0 or 0 <= win < lose
    return Verdict(1.0 if first != turned else 0.0, max(win, 0))


COMPARISON = Family(
    name="comparisons",
    draw=_draw_compare,
    prompts=lambda k: [
        f"Which is {k['more']}, {a(k['left'])} or {a(k['right'])}?",
        f"Tell me which is {k['more']}: {a(k['left'])} or {a(k['right'])}.",
        f"Compare {a(k['left'])} and {a(k['right'])}: which one is {k['more']}?",
        f"Is {a(k['left'])} or {a(k['right'])} {k['more']}?",
    ],
    answers=lambda k: [
        f"{cap(a(_winner(k)[0]))} is {k['more']} than {a(_winner(k)[1])}.",
        f"{cap(a(_winner(k)[0]))}.",
        f"The {_winner(k)[0]} is {k['more']}.",
    ],
    wrong=lambda k, rng: pick(
        rng, [f"{cap(a(_winner(k)[1]))} is {k['more']} than {a(_winner(k)[0])}.", f"The {_winner(k)[1]} is {k['more']}."]
    ),
    check=_check_compare,
    weight=1.2,
)


def _draw_odd(rng: Random) -> dict[str, Any]:
    kind, other = pick_some(rng, list(KINDS), 2)
    odd = pick(rng, KINDS[other])
    items = pick_some(rng, [*pick_some(rng, KINDS[kind], 2), odd], 3)
    return {"items": items, "odd": odd, "kind": kind}


ODD_ONE = Family(
    name="odd_one_out",
    draw=_draw_odd,
    prompts=lambda k: [
        f"Which word does not belong here: {', '.join(k['items'])}?",
        f"Find the odd one out: {', '.join(k['items'])}.",
        f"One of these words is different. Which one? {cap(', '.join(k['items']))}.",
        f"Word game: pick the word that does not fit: {', '.join(k['items'])}.",
    ],
    answers=lambda k: [
        f"The odd one out is {k['odd']}.",
        f"{cap(k['odd'])}.",
        f"{cap(k['odd'])}, because the others are {k['kind']}.",
    ],
    wrong=lambda k, rng: f"The odd one out is {_other(rng, k['items'], k['odd'])}.",
    check=lambda k, text: one_of(text, [k["odd"]], [w for w in k["items"] if w != k["odd"]]),
)

FACTS = (CAPITAL, COLOUR, OPPOSITE, DEFINITION, COMPARISON, ODD_ONE)
