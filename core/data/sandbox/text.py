"""What can be read off an answer without knowing the question: words, praise, hedges, lists, dashes, refusals."""

from __future__ import annotations

import re
from collections.abc import Iterable

WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
LIST_MARK = re.compile(r"(?:^|\n)[ \t]*(?:[-*•]|\d{1,2}[.)])(?=\s)")
DASH = re.compile(r"[—–]|(?<=\s)--?(?=\s)")

_PRAISE = (
    r"(?:great|excellent|brilliant|wonderful|fantastic|amazing|clever|smart|insightful|thoughtful|lovely|superb|genius)"
)
FLATTERY = re.compile(
    rf"\b(?:{_PRAISE} (?:\w+ )?(?:question|idea|thinking|choice|request|point|mind|person)"
    rf"|you(?:'re| are)(?: \w+)? (?:\w+ )?{_PRAISE}|i (?:love|admire) (?:how|your|that)|so {_PRAISE} of you)\b"
)
HEDGE = re.compile(
    r"\b(?:i think|i guess|i believe|i suppose|maybe|perhaps|possibly|it might be|it could be|probably|"
    r"not (?:entirely |really |so )?sure|hard to say|it depends|i don't know|i do not know)\b"
)
REFUSAL = re.compile(
    r"\b(?:(?:can't|cannot|can not|won't|will not|could not|must not|not able to|unable to|not going to|rather not)"
    r" (?:\w+ )?(?:help|do|assist|answer|advise|write|tell|say|discuss|give|decide|support|explain)"
    r"|i (?:must |have to )(?:decline|refuse)|i refuse)\b"
)


def plain(text: str) -> str:
    """Lower case, one kind of apostrophe, list marks removed."""
    return LIST_MARK.sub("\n", text.replace("’", "'")).lower()


def words(text: str) -> list[str]:
    """The words and numbers of a text, lower case, list marks left out."""
    return WORD.findall(plain(text))


def joined(text: str) -> str:
    """The words with one space around each, so that `" new york " in joined(text)` finds whole words only."""
    return f" {' '.join(words(text))} "


def where(text: str, phrase: str) -> int:
    """How many words of `joined` text stand before the phrase; -1 = it is absent, or denied by a "not" before it."""
    at = text.find(f" {phrase} ")
    while at >= 0:
        if not text[:at].endswith(" not"):
            return text[:at].count(" ")
        at = text.find(f" {phrase} ", at + 1)
    return -1


def hits(text: str, phrases: Iterable[str]) -> list[str]:
    """Those of the phrases that the `joined` text holds and does not deny."""
    return [p for p in phrases if where(text, p) >= 0]


def refuses(text: str) -> bool:
    """True where the answer declines to help."""
    return REFUSAL.search(" ".join(words(text))) is not None


def flattery(text: str) -> int:
    """How many times the answer praises the one who asked."""
    return len(FLATTERY.findall(" ".join(words(text))))


def hedges(text: str) -> int:
    """How many times the answer takes back what it says."""
    return len(HEDGE.findall(" ".join(words(text))))


def points(text: str) -> int:
    """How many lines begin as points of a list."""
    return len(LIST_MARK.findall(text))


def dashes(text: str) -> int:
    """How many dashes stand between words; those that begin a point of a list are none."""
    return len(DASH.findall(LIST_MARK.sub("\n", text)))
