"""Rules about the form of an answer: did it end, is it JSON, does it have its tags, is it short enough.

    mode=share    score = rules kept / rules        in [0, 1]
    mode=all      score = 1 if every rule is kept else 0

A rule is a name, or a map from the name to what it needs: [ended, {tags: [think, answer]}, {max_words: 200}]. `RULES`
has them all. Each rule is measured on its own, as a part of the score.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from core.api import ConfigError, RewardSource, Sample, Scored, nearest
from plugins.rewards.regex import Pattern

Kept = Callable[[Sample], bool]
"""Does the answer keep the rule?"""


class Format(RewardSource):
    """Rules about an answer's form: ended, JSON, tags, length, words it must or must not have."""

    api_version = 1

    def __init__(
        self,
        rules: Sequence[str | Mapping[str, Any]] = ("ended", "not_empty"),
        mode: Literal["share", "all"] = "share",
    ) -> None:
        if mode not in ("share", "all"):
            raise ConfigError(f'reward.mode is "{mode}"; expected share or all.')
        if not rules:
            raise ConfigError("reward.rules is empty; nothing would be checked.", f"Rules: {', '.join(RULES)}.")
        named = [_name_and_argument(rule) for rule in rules]
        twice = sorted({name for name, _ in named if sum(name == other for other, _ in named) > 1})
        if twice:
            raise ConfigError(f"reward.rules has {twice[0]} twice.", "Put what both need into one of them.")
        _check_limits(dict(named))
        self.mode = mode
        self.rules: dict[str, Kept] = {name: RULES[name](name, argument) for name, argument in named}

    def score(self, samples: Sequence[Sample]) -> Sequence[float | None]:
        """One number per sample, from 0 to 1."""
        return self.score_parts(samples).scores

    def score_parts(self, samples: Sequence[Sample]) -> Scored:
        """The same, and as parts, by the name of the rule, 1.0 where it is kept and 0.0 where not."""
        kept = {name: [float(rule(sample)) for sample in samples] for name, rule in self.rules.items()}
        merge = min if self.mode == "all" else _mean
        scores = [merge(values) for values in zip(*kept.values(), strict=True)]
        return Scored(scores, {name: Scored(values) for name, values in kept.items()})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _name_and_argument(rule: Any) -> tuple[str, Any]:
    """(name, what it needs); None where a rule is a bare name."""
    if isinstance(rule, Mapping):
        if len(rule) != 1:
            raise ConfigError(
                f"reward.rules has {dict(rule)}; expected one rule in each item.", "Write [ended, {max_words: 200}]."
            )
        name, argument = next(iter(rule.items()))
    else:
        name, argument = rule, None
    if not isinstance(name, str) or name not in RULES:
        raise ConfigError(
            f"reward.rules has {name!r}, which is no rule.{nearest(str(name), RULES)}", f"Rules: {', '.join(RULES)}."
        )
    return name, argument


def _check_limits(rules: Mapping[str, Any]) -> None:
    for unit in ("words", "characters"):
        least, most = rules.get(f"min_{unit}"), rules.get(f"max_{unit}")
        if isinstance(least, int) and isinstance(most, int) and least > most:
            raise ConfigError(f"reward.rules: min_{unit} {least} is above max_{unit} {most}; no answer keeps both.")


def _bad(name: str, argument: Any, expected: str, example: str) -> ConfigError:
    came = "nothing" if argument is None else repr(argument)
    return ConfigError(f"reward.rules: {name} came with {came}; expected {expected}.", f"For example {{{name}: {example}}}.")


# -- what a rule may be given -------------------------------------------------------------------------------------------


def _plain(kept: Kept) -> Callable[[str, Any], Kept]:
    """A rule that needs nothing."""

    def made(name: str, argument: Any) -> Kept:
        if argument is not None and argument is not True:
            raise ConfigError(f"reward.rules: {name} came with {argument!r}, and needs nothing.", f"Write {name} alone.")
        return kept

    return made


def _limit(kept: Callable[[str, int], bool]) -> Callable[[str, Any], Kept]:
    """A rule with a number of words or characters."""

    def made(name: str, argument: Any) -> Kept:
        if not isinstance(argument, int) or isinstance(argument, bool) or argument < 1:
            raise _bad(name, argument, "a whole number above 0", "200")
        return lambda sample: kept(sample.response, argument)

    return made


def _texts(name: str, argument: Any, example: str) -> tuple[str, ...]:
    found = (argument,) if isinstance(argument, str) else argument
    good = isinstance(found, (list, tuple)) and bool(found) and all(isinstance(text, str) and text for text in found)
    if not good:
        raise _bad(name, argument, "a text, or a list of texts", example)
    return tuple(found)


def _with_texts(kept: Callable[[str, tuple[str, ...]], bool], example: str) -> Callable[[str, Any], Kept]:
    """A rule with one text or several."""

    def made(name: str, argument: Any) -> Kept:
        texts = _texts(name, argument, example)
        return lambda sample: kept(sample.response, texts)

    return made


# -- rules --------------------------------------------------------------------------------------------------------------


def _json_value(text: str) -> Any:
    """The JSON value that a text is (RFC 8259; white space around it is part of JSON). ValueError where it is none."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)  # NaN and Infinity, which Python reads and JSON lacks

    try:
        # Numbers stay text: nobody looks at them, and a whole number of 5,000 digits is JSON but no Python int.
        return json.loads(text, parse_constant=refuse, parse_int=str, parse_float=str)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


_JSON_KINDS: dict[Any, type] = {None: object, True: object, "object": dict, "array": list}


def _json(name: str, argument: Any) -> Kept:
    if not (argument is None or argument is True or argument in ("object", "array")):
        raise _bad(name, argument, "nothing, object or array", "object")
    kind = _JSON_KINDS[argument]

    def kept(sample: Sample) -> bool:
        try:
            return isinstance(_json_value(sample.response), kind)
        except ValueError:
            return False

    return kept


def _has_keys(text: str, keys: tuple[str, ...]) -> bool:
    try:
        value = _json_value(text)
    except ValueError:
        return False
    return isinstance(value, dict) and all(key in value for key in keys)


_TAG = re.compile(r"[A-Za-z_][\w.-]*")


def _tags(*, alone: bool) -> Callable[[str, Any], Kept]:
    def made(name: str, argument: Any) -> Kept:
        tags = _texts(name, argument, "[think, answer]")
        wrong = [tag for tag in tags if not _TAG.fullmatch(tag)]
        if wrong:
            raise _bad(name, wrong[0], "names of tags, without brackets", "[think, answer]")
        if len(set(tags)) < len(tags):
            raise ConfigError(f"reward.rules: {name} names a tag twice: {', '.join(tags)}.", "Each stands once.")
        return lambda sample: _in_order(sample.response, tags, alone=alone)

    return made


def _in_order(text: str, tags: Sequence[str], *, alone: bool) -> bool:
    """Each tag opened and closed exactly once, with something in it, one after the other."""
    at = 0
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if text.count(opening) != 1 or text.count(closing) != 1:
            return False
        start = text.find(opening, at)
        end = text.find(closing, start)
        if start < 0 or end < start or not text[start + len(opening) : end].strip():
            return False
        if alone and text[at:start].strip():
            return False
        at = end + len(closing)
    return not alone or not text[at:].strip()


def _matches(name: str, argument: Any) -> Kept:
    patterns = [Pattern(text, f"reward.rules: {name}") for text in _texts(name, argument, '"^Yes|^No"')]
    return lambda sample: all(pattern.search(sample) for pattern in patterns)


def _without(pattern: str) -> Kept:
    found = re.compile(pattern, re.MULTILINE)
    return lambda sample: found.search(sample.response) is None


RULES: dict[str, Callable[[str, Any], Kept]] = {
    "ended": _plain(lambda sample: sample.finished),
    "not_empty": _plain(lambda sample: bool(sample.response.strip())),
    "json": _json,
    "json_keys": _with_texts(_has_keys, "[name, age]"),
    "tags": _tags(alone=False),
    "only_tags": _tags(alone=True),
    "min_words": _limit(lambda text, limit: len(text.split()) >= limit),
    "max_words": _limit(lambda text, limit: len(text.split()) <= limit),
    "min_characters": _limit(lambda text, limit: len(text) >= limit),
    "max_characters": _limit(lambda text, limit: len(text) <= limit),
    "must_contain": _with_texts(lambda text, parts: all(part in text for part in parts), "[however]"),
    "must_not_contain": _with_texts(lambda text, parts: not any(part in text for part in parts), "[sorry]"),
    "starts_with": _with_texts(lambda text, parts: text.lstrip().startswith(parts), "Dear"),
    "ends_with": _with_texts(lambda text, parts: text.rstrip().endswith(parts), "."),
    "matches": _matches,
    "no_code": _plain(_without(r"^[ \t]*(?:```|~~~)")),
    "no_lists": _plain(_without(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S")),
    "no_headings": _plain(_without(r"^ {0,3}#{1,6}[ \t]+\S")),
}
"""Name -> what makes the rule of its name and what it was given. ConfigError where it was given something else."""
