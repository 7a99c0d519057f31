"""A regular expression as a reward.

    search, fullmatch     score = value where the pattern is found in the answer, or is the whole of it; else 0
    count                 score = value * min(n, max), n: how often it is found (not overlapping, not empty)

With negate, search and fullmatch pay where there is no match.

Patterns are those of the package regex, which reads what Python's `re` reads, and whose matching can be stopped. So a
pattern that backtracks without end cannot hang a run: see `Pattern`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from core.api import ConfigError, PluginError, RewardSource, Sample, nearest

_T = TypeVar("_T")
FLAGS = ("ignorecase", "multiline", "dotall", "ascii", "verbose")
_PROBE_LENGTH = 1000
_PROBED_CHARACTERS = 40
_SLOW = "It backtracks: avoid a repeat inside a repeat, as in (a+)+, or make the inner one possessive, (a++)+."
_LARGER = " A pattern that is slow for a reason may have a larger reward.timeout."


class Regex(RewardSource):
    """Does the answer match a regular expression, or how often."""

    api_version = 1

    def __init__(
        self,
        pattern: str,
        mode: Literal["search", "fullmatch", "count"] = "search",
        value: float = 1.0,
        max: int | None = None,
        flags: Sequence[str] = (),
        negate: bool = False,
        timeout: float = 1.0,
    ) -> None:
        if mode not in ("search", "fullmatch", "count"):
            raise ConfigError(f'reward.mode is "{mode}"; expected search, fullmatch or count.')
        if value == 0 or value - value != 0:
            raise ConfigError(f"reward.value is {value}; expected a finite number other than 0.")
        if max is not None and mode != "count":
            raise ConfigError(f"reward.max is {max}, and mode={mode} counts nothing.", "Use reward.mode=count, or leave it.")
        if max is not None and max < 1:
            raise ConfigError(f"reward.max is {max}; expected 1 or more, or null.")
        if negate and mode == "count":
            raise ConfigError(
                "reward.negate says nothing with mode=count.", "To pay less for each match, use a reward.value below 0."
            )
        self.pattern = Pattern(pattern, "reward.pattern", flags=flags, timeout=timeout, slow=_SLOW + _LARGER)
        self.mode, self.value, self.max, self.negate = mode, value, max, negate
        self.unit = "matches" if mode == "count" and value == 1 else ""

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """One number per sample. PluginError where the pattern takes longer than `timeout`: that is no score of 0."""
        return [self.value * self._matches(sample) for sample in samples]

    def _matches(self, sample: Sample) -> int:
        if self.mode == "count":
            return self.pattern.count(sample, self.max)
        found = self.pattern.search(sample) if self.mode == "search" else self.pattern.fullmatch(sample)
        return int(found != self.negate)


class Pattern:
    """A compiled pattern that cannot hang a run.

    When it is made, it is tried on texts that bring bad patterns to light: one character, or two, over and over, and
    something else at the end. Later every answer has `timeout` seconds. In both cases too slow is an error, never a
    score, so that scores do not depend on the machine.

    Args:
        text: the pattern.
        key: the option that holds it, for messages.
        flags: some of `FLAGS`.
        timeout: seconds for one text.
        slow: what to do about a pattern that takes longer, for messages.

    Raises:
        ConfigError: no pattern (the message shows where it breaks off), an unknown flag, or it is too slow.
    """

    def __init__(self, text: str, key: str, *, flags: Sequence[str] = (), timeout: float = 1.0, slow: str = _SLOW) -> None:
        if not 0 < timeout <= 60:
            raise ConfigError(f"reward.timeout is {timeout}; expected seconds above 0, at most 60.")
        self.text, self.key, self.timeout, self.slow = text, key, timeout, slow
        self._compiled = _compile(text, key, flags)
        self._probe()

    def search(self, sample: Sample) -> bool:
        """Is it found anywhere in the answer?"""
        with self._named(sample):
            return self._found("search", sample.response)

    def fullmatch(self, sample: Sample) -> bool:
        """Is it the whole answer?"""
        with self._named(sample):
            return self._found("fullmatch", sample.response)

    def count(self, sample: Sample, most: int | None = None) -> int:
        """How often it is found, up to `most`. Matches do not overlap; empty ones do not count."""

        def found(limit: float) -> int:
            matches = self._compiled.finditer(sample.response, timeout=limit)
            return sum(1 for _ in itertools.islice((match for match in matches if match[0]), most))

        with self._named(sample):
            return _in_time(found, self.timeout)

    def _found(self, method: str, text: str) -> bool:
        match = getattr(self._compiled, method)
        return _in_time(lambda limit: match(text, timeout=limit) is not None, self.timeout)

    @contextmanager
    def _named(self, sample: Sample) -> Iterator[None]:
        """Too slow becomes an error that names the sample."""
        try:
            yield
        except TimeoutError as error:
            raise PluginError(
                f"{self.key} {self.text!r} took more than {self.timeout:g} s on one answer of {len(sample.response)} "
                f"characters (row {sample.row_id!r}, {sample.response[:60]!r}).",
                self.slow,
            ) from error

    def _probe(self) -> None:
        own = sorted({character for character in self.text if character.isprintable()})[:_PROBED_CHARACTERS]
        for unit, end in itertools.product(("a", "0", " ", "\n", "a ", "a\n", *own), ("\x00", "".join(own) + "\x00")):
            probe = unit * (_PROBE_LENGTH // len(unit)) + end
            try:
                self._found("search", probe)
                self._found("fullmatch", probe)
            except TimeoutError as error:
                raise ConfigError(
                    f"{self.key} {self.text!r} takes more than {self.timeout:g} s on a text of {_PROBE_LENGTH} characters: "
                    f"{unit!r} over and over.",
                    self.slow,
                ) from error


def _in_time(work: Callable[[float], _T], timeout: float) -> _T:
    """What `work` gives within `timeout` seconds of the clock on the wall; else TimeoutError.

    The package regex counts the processor time of all threads, which may pass many times as fast. So a limit that was
    reached too early is doubled.
    """
    limit = timeout
    while True:
        started = time.monotonic()
        try:
            return work(limit)
        except TimeoutError:
            if time.monotonic() - started >= timeout:
                raise
            limit *= 2


def _compile(text: str, key: str, flags: Sequence[str]) -> Any:
    import regex

    if not text:
        raise ConfigError(f"{key} is empty; it would match everything.", "Give a regular expression.")
    chosen = regex.V0
    for flag in flags:
        if flag not in FLAGS:
            raise ConfigError(f'reward.flags: "{flag}" is no flag.{nearest(flag, FLAGS)}', f"Flags: {', '.join(FLAGS)}.")
        chosen |= getattr(regex, flag.upper())
    try:
        return regex.compile(text, chosen)
    except (regex.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"{key} is no regular expression: {_where(text, error)}", "Mend it where the ^ is.") from error


def _where(text: str, error: Exception) -> str:
    """The complaint, with a ^ under the place in the pattern's line."""
    message, line, column = (getattr(error, name, None) for name in ("msg", "lineno", "colno"))
    if message is None or line is None or column is None:
        return f"{error}\n  {text}"
    shown = text.split("\n")[line - 1]
    return f"{message}, line {line}, character {column}.\n  {shown}\n  {' ' * (column - 1)}^"
