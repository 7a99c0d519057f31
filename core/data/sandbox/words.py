"""Families about words: spelling, rhymes, lists, polite rewriting."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from core.data.sandbox import text as t
from core.data.sandbox.dice import between, pick, pick_some
from core.data.sandbox.facts import KINDS
from core.data.sandbox.family import Family, Task, Verdict, cap, listing, one_of

SPELLED = ("cat", "sun", "tree", "fish", "moon", "bird", "milk", "ship", "lamp", "frog", "stone", "cloud", "plant", "green")
RHYMES = (
    ("cat", "hat", "mat", "bat"), ("tree", "bee", "sea", "knee"), ("day", "play", "way", "hay"),
    ("light", "night", "kite", "bite"), ("ring", "king", "sing", "wing"), ("boat", "coat", "goat", "note"),
    ("cake", "lake", "snake", "make"), ("moon", "spoon", "soon", "noon"), ("ball", "wall", "tall", "fall"),
    ("bear", "chair", "hair", "pear"),
)  # fmt: skip
REQUESTS: dict[str, tuple[str, str]] = {
    "Give me the salt": ("pass me the salt", "salt"),
    "Shut the door": ("close the door", "door"),
    "Be quiet": ("be a little quieter", "quieter|quiet"),
    "Send me the file": ("send me the file", "file"),
    "Move your car": ("move your car", "car"),
    "Answer my letter": ("answer my letter", "letter"),
    "Wait outside": ("wait outside", "outside|wait"),
    "Bring the bill": ("bring us the bill", "bill"),
    "Turn down the music": ("turn down the music", "music"),
    "Fix my computer": ("have a look at my computer", "computer"),
    "Help me now": ("help me for a moment", "help"),
    "Open the window": ("open the window", "window"),
}
RUDE = ("now", "at once", "hurry", "stupid", "lazy", "idiot", "or else", "i said")
LISTED = (2, 3, 4)
COUNT_WORDS = {2: "two", 3: "three", 4: "four"}


def _letters(k: Task) -> list[str]:
    return list(k["word"][::-1] if k["backwards"] else k["word"])


def _check_spelling(k: Task, text: str) -> Verdict:
    """The longest run of single letters must be the word; 0.4 of the share of letters in place otherwise."""
    runs: list[list[str]] = [[]]
    for word in t.words(text):
        if len(word) == 1:
            runs[-1].append(word)
        elif runs[-1]:
            runs.append([])
    best, right = max(runs, key=len), _letters(k)
    if len(best) < 2:
        return Verdict(None)
    if best == right:
        return Verdict(1.0)
    same = sum(x == y for x, y in zip(best, right, strict=False))
    return Verdict(0.4 * same / max(len(best), len(right)))


def _spelled(letters: Sequence[str]) -> str:
    return " ".join(letters).upper()


def _wrong_spelling(k: Task, rng: Random) -> str:
    letters = _letters(k)
    letters[int(rng.random() * len(letters))] = pick(rng, [x for x in "abdeklmorst" if x not in letters])
    return f"{_spelled(letters)}."


SPELLING = Family(
    name="spelling",
    draw=lambda rng: {"word": pick(rng, SPELLED), "backwards": rng.random() < 0.4},
    prompts=lambda k: [
        f"Spell the word {k['word']}{' backwards' if k['backwards'] else ''}.",
        f"How do you spell {k['word']}{' backwards' if k['backwards'] else ''}?",
        f"Give me the letters of {k['word']}{' in reverse order' if k['backwards'] else ' one by one'}.",
        f"Word game: spell {k['word']}{' from the end to the start' if k['backwards'] else ' for me'}.",
    ],
    answers=lambda k: [
        f"{_spelled(_letters(k))}.",
        f"The letters are {_spelled(_letters(k))}.",
        f"It is {_spelled(_letters(k))}.",
    ],
    wrong=_wrong_spelling,
    check=_check_spelling,
)


def _group(k: Task) -> tuple[str, ...]:
    return next(g for g in RHYMES if k["word"] in g)


def _partners(k: Task) -> list[str]:
    return [w for w in _group(k) if w != k["word"]]


def _strangers(k: Task) -> list[str]:
    return [w for g in RHYMES for w in g if w not in _group(k)]


RHYME = Family(
    name="rhymes",
    draw=lambda rng: {"word": pick(rng, pick(rng, RHYMES))},
    prompts=lambda k: [
        f"Give me a word that rhymes with {k['word']}.",
        f"What rhymes with {k['word']}?",
        f"Find a rhyme for the word {k['word']}.",
        f"Word game: name something that rhymes with {k['word']}.",
    ],
    answers=lambda k: [
        f"{cap(_partners(k)[0])} rhymes with {k['word']}.",
        f"{cap(_partners(k)[1])}.",
        f"A rhyme for {k['word']} is {_partners(k)[2]}.",
    ],
    wrong=lambda k, rng: f"{cap(pick(rng, _strangers(k)))} rhymes with {k['word']}.",
    check=lambda k, text: one_of(text, _partners(k), _strangers(k)),
)


def _draw_list(rng: Random) -> dict[str, Any]:
    return {"kind": pick(rng, list(KINDS)), "count": between(rng, LISTED[0], LISTED[-1])}


def _forms(word: str) -> tuple[str, str]:
    return word, f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def _check_list(k: Task, text: str) -> Verdict:
    """How many fitting things it names, next to how many were asked for; strangers and surplus ones cost."""
    found = t.joined(text)
    named = [w for w in KINDS[k["kind"]] if t.hits(found, _forms(w))]
    strange = [w for kind, items in KINDS.items() if kind != k["kind"] for w in items if t.hits(found, _forms(w))]
    if not named:
        return Verdict(0.0 if strange else None)
    enough = min(len(named), k["count"]) / k["count"]
    surplus = max(0, len(named) - k["count"]) + len(strange)
    return Verdict(
        enough / (1.0 + 0.5 * surplus), min(t.where(found, w) for n in named for w in _forms(n) if w in found.split())
    )


def _wrong_list(k: Task, rng: Random) -> str:
    other = pick(rng, [x for x in KINDS if x != k["kind"]])
    return f"{cap(listing(pick_some(rng, KINDS[other], k['count'])))}."


def _list_answers(k: Task) -> list[str]:
    items, n = KINDS[k["kind"]], k["count"]
    return [
        f"{cap(listing(items[:n]))}.",
        f"{cap(COUNT_WORDS[n])} {k['kind']} are {listing(items[2 : n + 2])}.",
        f"{cap(listing(items[4 : n + 4]))}.",
    ]


LISTS = Family(
    name="lists",
    draw=_draw_list,
    prompts=lambda k: [
        f"Name {COUNT_WORDS[k['count']]} {k['kind']}.",
        f"List {COUNT_WORDS[k['count']]} {k['kind']} for me.",
        f"Can you give me {COUNT_WORDS[k['count']]} examples of {k['kind']}?",
        f"I need {COUNT_WORDS[k['count']]} {k['kind']} for a game. Which ones?",
        f"Write down {COUNT_WORDS[k['count']]} {k['kind']}.",
        f"Tell me {COUNT_WORDS[k['count']]} kinds of {k['kind']}.",
    ],
    answers=_list_answers,
    wrong=_wrong_list,
    check=_check_list,
    lists=True,
)


def _check_polite(k: Task, text: str) -> Verdict:
    """A quarter each: a please, a question form, a question mark, the thing asked for. Rude words cost two thirds."""
    found = t.joined(text)
    points = [
        bool(t.hits(found, ("please", "kindly", "be so kind", "would you mind", "thank you"))),
        bool(t.hits(found, ("could you", "would you", "can you", "may i"))),
        "?" in text,
        bool(t.hits(found, REQUESTS[k["request"]][1].split("|"))),
    ]
    rude = bool(t.hits(found, RUDE))
    if not any(points[:2]) and not rude:
        return Verdict(0.0 if points[3] else None)
    return Verdict(sum(points) / 4 / (3.0 if rude else 1.0))


POLITE = Family(
    name="polite_rewriting",
    draw=lambda rng: {"request": pick(rng, list(REQUESTS))},
    prompts=lambda k: [
        f'Make this sound polite: "{k["request"]}!"',
        f'Rewrite this in a polite way: "{k["request"]}."',
        f'How can I say "{k["request"]}" more kindly?',
        f'Turn "{k["request"]}!" into a polite request.',
    ],
    answers=lambda k: [
        f"Could you please {REQUESTS[k['request']][0]}?",
        f"Would you please {REQUESTS[k['request']][0]}?",
        f"Could you {REQUESTS[k['request']][0]}, please?",
    ],
    wrong=lambda k, rng: pick(
        rng, [f"{k['request']} at once!", f"{k['request']}, and hurry!", f"I said: {k['request'].lower()}!"]
    ),
    check=_check_polite,
    need=10,
)

WORD_FAMILIES = (SPELLING, RHYME, LISTS, POLITE)
