"""Families of everyday talk: greetings, remembering a name, advice."""

from __future__ import annotations

from random import Random
from typing import Any

from core.data.sandbox.dice import pick
from core.data.sandbox.family import Family, Task, cap, keywords, one_of

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ivy", "Jack", "Lena", "Max", "Nora", "Oscar")
PLACES = ("the park", "the market", "the school", "the station", "the beach", "the kitchen")
ADVICE: dict[str, tuple[str, str, tuple[tuple[str, ...], ...]]] = {
    "sleep better": (
        "Go to bed at the same time each night and keep the room dark.",
        "Keep the room dark and avoid coffee in the evening.",
        (("bed", "avoid", "early"), ("dark", "quiet", "coffee")),
    ),
    "save water at home": (
        "Take short showers and turn off the tap while you brush your teeth.",
        "Turn off the tap and take short showers.",
        (("short", "shorter", "leaks"), ("tap", "taps")),
    ),
    "learn a language": (
        "Practise a little every day and speak with other people.",
        "Speak with people and practise every day.",
        (("practise", "practice", "every day"), ("speak", "talk", "listen")),
    ),
    "make new friends": (
        "Join a club and ask people about themselves.",
        "Ask people about themselves, and join a club.",
        (("join", "club", "visit"), ("ask", "listen", "smile")),
    ),
    "keep my desk tidy": (
        "Put each thing back in its place and throw away what you do not need.",
        "Throw away what you do not need and put the rest in its place.",
        (("put", "place", "box"), ("throw", "throw away", "clear")),
    ),
    "stay calm before a test": (
        "Breathe slowly and remember that you have prepared well.",
        "Remember that you have prepared well, and breathe slowly.",
        (("breathe", "breath"), ("prepared", "prepare", "slowly")),
    ),
    "get fit": (
        "Walk or run a little every day and eat fresh food.",
        "Eat fresh food and walk every day.",
        (("walk", "run", "exercise", "swim"), ("eat", "fresh", "every day")),
    ),
    "spend less money": (
        "Write down what you spend and make a plan for each month.",
        "Make a plan for each month and write down what you spend.",
        (("write", "track"), ("plan", "budget")),
    ),
    "cook better rice": (
        "Rinse the rice first and use two cups of water for each cup.",
        "Use two cups of water for each cup, and rinse the rice first.",
        (("rinse", "wash"), ("water", "cups")),
    ),
    "read more books": (
        "Read a few pages every evening and keep a book in your bag.",
        "Keep a book in your bag and read a few pages every evening.",
        (("pages", "evening", "every day"), ("keep", "bag", "library")),
    ),
}
BAD_ADVICE = (
    "Just do nothing and hope for the best.",
    "Buy a new hat and all will be fine.",
    "Stand on one leg and count the clouds.",
)
GREETINGS: dict[str, tuple[str, str, tuple[tuple[str, ...], ...]]] = {
    "How are you today?": ("I am well, thank you.", "Very well, thanks.", (("well", "fine", "good"), ("thank", "thanks"))),
    "Good morning!": ("Good morning! How can I help you?", "Good morning to you too.", (("good morning", "hello", "hi"),)),
    "Nice to meet you.": (
        "Nice to meet you too.",
        "Hello, it is nice to meet you.",
        (("nice", "pleasure", "glad"), ("meet",)),
    ),
    "Thank you for your help.": ("You are welcome.", "You are very welcome.", (("welcome", "gladly", "pleasure"),)),
    "I had a bad day.": ("I am sorry to hear that.", "I am sorry. I hope tomorrow is better.", (("sorry", "hope"),)),
    "I passed my exam!": ("Congratulations, well done!", "Well done, congratulations!", (("congratulations", "well done"),)),
    "Good night!": ("Good night, sleep well.", "Sleep well, good night.", (("good night", "sleep well"),)),
}
COLD = ("I do not care about that.", "That is your problem.", "Go away, please.")

GREETING = Family(
    name="small_talk",
    draw=lambda rng: {"line": pick(rng, list(GREETINGS)), "name": pick(rng, NAMES)},
    prompts=lambda k: [
        f"Hi, {k['name']} here. {k['line']}",
        f"{k['line']} My name is {k['name']}.",
        f"Hello! I am {k['name']}. {k['line']}",
    ],
    answers=lambda k: [*GREETINGS[k["line"]][:2], f"{GREETINGS[k['line']][0][:-1]}, {k['name']}."],
    wrong=lambda k, rng: pick(rng, COLD),
    check=lambda k, text: keywords(text, GREETINGS[k["line"]][2]),
    weight=0.8,
)


def _draw_recall(rng: Random) -> dict[str, Any]:
    return {"name": pick(rng, NAMES), "place": pick(rng, PLACES), "ask": pick(rng, ("name", "place"))}


def _recalled(k: Task) -> str:
    return str(k[k["ask"]])


def _recall_prompts(k: Task) -> list[str]:
    name, place = k["name"], k["place"]
    if k["ask"] == "name":
        return [f"{name} went to {place}. Who went there?", f"Today {name} is at {place}. What is the name of this person?"]
    return [f"{name} went to {place}. Where did {name} go?", f"Today {name} is at {place}. Where is {name}?"]


def _others(k: Task) -> list[str]:
    return [x for x in (NAMES if k["ask"] == "name" else PLACES) if x != _recalled(k)]


def _bare(place: str) -> str:
    return place.lower().removeprefix("the ")


RECALL = Family(
    name="reading",
    draw=_draw_recall,
    prompts=_recall_prompts,
    answers=lambda k: (
        [f"{k['name']} went to {k['place']}.", f"It is {k['name']}.", f"{k['name']}."]
        if k["ask"] == "name"
        else [f"{k['name']} is at {k['place']}.", f"At {k['place']}.", f"{cap(k['place'])}."]
    ),
    wrong=lambda k, rng: f"It is {pick(rng, _others(k))}." if k["ask"] == "name" else f"At {pick(rng, _others(k))}.",
    check=lambda k, text: one_of(text, [_bare(_recalled(k))], [_bare(x) for x in _others(k)]),
)

ADVISING = Family(
    name="advice",
    draw=lambda rng: {"topic": pick(rng, list(ADVICE))},
    prompts=lambda k: [
        f"How can I {k['topic']}?",
        f"Give me a tip to {k['topic']}.",
        f"What should I do to {k['topic']}?",
        f"I want to {k['topic']}. What helps?",
        f"My friend would like to {k['topic'].replace(' my ', ' a ')}. What do you suggest?",
        f"What is a simple way to {k['topic']}?",
    ],
    answers=lambda k: [*ADVICE[k["topic"]][:2], f"A good way is this: {_first_lower(ADVICE[k['topic']][1])}"],
    wrong=lambda k, rng: pick(rng, BAD_ADVICE),
    check=lambda k, text: keywords(text, ADVICE[k["topic"]][2]),
    need=15,
)


def _first_lower(text: str) -> str:
    return text[:1].lower() + text[1:]


TALK = (GREETING, RECALL, ADVISING)
