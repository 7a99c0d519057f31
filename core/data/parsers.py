"""Parsers: a record of a known format made into an Example, every field checked by name."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from core.data.formats import Example, Format, digest
from core.data.prefix import common_prefix
from core.data.records import Record, RowError
from core.data.turns import (
    FieldError,
    check_answer,
    check_dialogue,
    check_prompt,
    check_text,
    check_turns,
    from_hh,
    from_sharegpt,
)
from core.rows import Message


def parse(record: Record, format: Format) -> Example:
    """The record as an Example. Raises RowError with place and field."""
    try:
        example = _PARSERS[format](record.data)
        id = _id(record.data)
    except FieldError as error:
        raise RowError(record.where, error.field, error.problem, error.hint) from None
    if id is None:
        name = os.path.basename(record.where.rsplit(":", 1)[0]) if format == "text" else ""
        content = digest([example.prompt_key, example.responses, example.references, name])
        return dataclasses.replace(example, id=f"row-{content}", source=record.where, made_id=True)
    return dataclasses.replace(example, id=id, source=record.where)


def _id(data: Mapping[str, Any]) -> str | None:
    value = data.get("id")
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise FieldError("id", f"is {value!r}, expected text or a whole number.")
    return str(value)


def _example(data: Mapping[str, Any], used: Sequence[str], **fields: Any) -> Example:
    taken = {"id", "reference", "references", *used}
    columns = {name: value for name, value in data.items() if name not in taken}
    return Example(id="", references=_references(data), columns=columns, **fields)


def _references(data: Mapping[str, Any]) -> tuple[str, ...]:
    many = data.get("references")
    if many is None:
        one = data.get("reference")
        return () if one is None else (check_text("reference", one),)
    if isinstance(many, str):
        return (check_text("references", many),)
    if not isinstance(many, Sequence):
        raise FieldError("references", "is no list of texts.")
    if not many:
        raise FieldError("references", "is an empty list.", "Give at least one text, or leave the column out.")
    return tuple(check_text(f"references[{i}]", text) for i, text in enumerate(many))


def _prompt(data: Mapping[str, Any]) -> str | tuple[Message, ...]:
    """From `prompt`, else from `messages`."""
    if "prompt" not in data and data.get("messages") is not None:
        return check_prompt("messages", data["messages"])
    if "prompt" not in data:
        raise FieldError("prompt", "is missing.")
    value = data["prompt"]
    return (
        check_prompt("prompt", value)
        if isinstance(value, Sequence) and not isinstance(value, str)
        else check_text("prompt", value)
    )


def _text(data: Mapping[str, Any]) -> Example:
    if "text" not in data:
        raise FieldError("text", "is missing.")
    return _example(data, ["text"], prompt="", responses=(check_text("text", data["text"]),), kind="text")


def _messages(data: Mapping[str, Any]) -> Example:
    if "messages" not in data:
        raise FieldError("messages", "is missing.")
    context, answer = check_dialogue("messages", data["messages"])
    return _example(data, ["messages"], prompt=context, responses=(answer,), kind="demonstrations")


def _conversations(data: Mapping[str, Any]) -> Example:
    if "conversations" not in data:
        raise FieldError("conversations", "is missing.")
    turns = from_sharegpt("conversations", data["conversations"], data.get("system"))
    context, answer = check_dialogue("conversations", turns)
    return _example(data, ["conversations", "system"], prompt=context, responses=(answer,), kind="demonstrations")


def _prompt_only(data: Mapping[str, Any]) -> Example:
    return _example(data, ["prompt", "messages"], prompt=_prompt(data), kind="prompts")


def _completion(data: Mapping[str, Any]) -> Example:
    prompt = _prompt(data)
    if "completion" not in data:
        raise FieldError("completion", "is missing.")
    if isinstance(data.get("label"), bool):
        hint = "Keep the rows whose label is true, or pair good and bad completions of a prompt as chosen and rejected."
        raise FieldError("label", "is true or false: unpaired preferences, which no objective here reads.", hint)
    answer = check_answer("completion", data["completion"])
    return _example(data, ["prompt", "messages", "completion"], prompt=prompt, responses=(answer,), kind="demonstrations")


_PAIR_COLUMNS = ("prompt", "messages", "chosen", "rejected", "margin")


def _pair(data: Mapping[str, Any]) -> Example:
    tied = data.get("tie") is True or ("majority" in data and data["majority"] in (None, "tie"))
    margin = _margin(data)
    if tied:
        names = ("response_a", "response_b") if data.get("chosen") is None else ("chosen", "rejected")
        prompt, first, second = _prompt(data), _answer(data, names[0]), _answer(data, names[1])
    elif _holds_prompt(data) or not ("prompt" in data or data.get("messages") is not None):
        prompt, first, second = _implicit(data)
    else:
        prompt, first, second = _prompt(data), _answer(data, "chosen"), _answer(data, "rejected")
        _same_manner(data)
    if first == second:
        raise FieldError("rejected", "is equal to chosen, so the pair carries no preference.", "Leave the row out.")
    columns = (
        _PAIR_COLUMNS if not tied else ("prompt", "messages", "chosen", "rejected", "margin", "response_a", "response_b")
    )
    return _example(
        data,
        columns,
        prompt=prompt,
        responses=(first, second),
        margins=None if margin is None else (margin,),
        ties=(True,) if tied else None,
        kind="pairs",
    )


def _holds_prompt(data: Mapping[str, Any]) -> bool:
    """Are chosen and rejected whole dialogues? Some sets have them so, and the prompt's text once more beside them."""
    both = [data.get("chosen"), data.get("rejected")]
    return all(
        isinstance(v, list) and len(v) > 1 and isinstance(v[0], dict) and v[0].get("role") != "assistant" for v in both
    )


def _answer(data: Mapping[str, Any], name: str) -> str:
    if name not in data:
        raise FieldError(name, "is missing.")
    return check_answer(name, data[name])


def _same_manner(data: Mapping[str, Any]) -> None:
    """Text with text: a prompt that is text cannot be followed by turns."""
    for name in ("chosen", "rejected"):
        if isinstance(data.get("prompt"), str) and not isinstance(data[name], str):
            raise FieldError(name, "is a list of turns while prompt is text.", "Write both as text or both as turns.")


def _implicit(data: Mapping[str, Any]) -> tuple[str | tuple[Message, ...], str, str]:
    """A pair whose chosen and rejected both begin with the prompt: turns, or text up to where they part."""
    for name in ("chosen", "rejected"):
        if name not in data:
            raise FieldError(name, "is missing.")
    chosen, rejected = data["chosen"], data["rejected"]
    if not isinstance(chosen, str):
        first, second = check_turns("chosen", chosen), check_turns("rejected", rejected)
        return _parted(check_dialogue("chosen", first), check_dialogue("rejected", second))
    check_text("chosen", chosen)
    check_text("rejected", rejected)
    shared = chosen[: common_prefix(chosen, rejected)]
    if len(shared) < min(len(chosen), len(rejected)) or not shared[-1:].isspace():
        shared = shared[: max((i for i, c in enumerate(shared) if c.isspace()), default=0)]
    if not shared.strip():
        hint = "Add a column prompt, or write the prompt at the start of both."
        raise FieldError("prompt", "is missing, and chosen and rejected share no beginning.", hint)
    answers = [check_text(name, text[len(shared) :]) for name, text in (("chosen", chosen), ("rejected", rejected))]
    return shared, answers[0], answers[1]


def _parted(
    first: tuple[tuple[Message, ...], str], second: tuple[tuple[Message, ...], str]
) -> tuple[tuple[Message, ...], str, str]:
    if first[0] != second[0]:
        raise FieldError(
            "rejected", "has another context than chosen; they must differ in the last turn only.", "Leave the row out."
        )
    return first[0], first[1], second[1]


def _hh(data: Mapping[str, Any]) -> Example:
    for name in ("chosen", "rejected"):
        if name not in data:
            raise FieldError(name, "is missing.")
    context, first, second = _parted(from_hh("chosen", data["chosen"]), from_hh("rejected", data["rejected"]))
    if first == second:
        raise FieldError("rejected", "is equal to chosen, so the pair carries no preference.", "Leave the row out.")
    margin = _margin(data)
    margins = None if margin is None else (margin,)
    return _example(
        data, ["chosen", "rejected", "margin"], prompt=context, responses=(first, second), margins=margins, kind="pairs"
    )


def _margin(data: Mapping[str, Any]) -> float | None:
    value = data.get("margin")
    if value is None:
        return None
    margin = _number("margin", value)
    if margin < 0:
        raise FieldError(
            "margin", f"is {value}, negative: it contradicts chosen > rejected.", "Swap the responses or drop the row."
        )
    return margin


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FieldError(name, f"is {value!r}, expected a number.")
    if not math.isfinite(value):
        raise FieldError(name, f"is {value}, expected a finite number.")
    return float(value)


def _ranking(data: Mapping[str, Any]) -> Example:
    prompt = _prompt(data)
    texts = data.get("responses")
    if not isinstance(texts, Sequence) or isinstance(texts, str):
        raise FieldError("responses", "is missing or no list of texts.")
    if len(texts) < 2:
        raise FieldError("responses", f"has {len(texts)} entry, a ranking needs at least two.", "Leave the row out.")
    responses = tuple(check_answer(f"responses[{i}]", text) for i, text in enumerate(texts))
    scores = _scores(data.get("scores"), len(responses))
    given = _ties(data.get("ties"), len(responses))
    kept = [i for i, text in enumerate(responses) if text not in responses[:i]]
    if len(kept) < 2:
        raise FieldError("responses", "are all equal, so the ranking prefers nothing.", "Leave the row out.")
    if given is not None and len(kept) < len(responses):
        raise FieldError(
            "responses", "holds a text twice, so ties between neighbours cannot be told.", "Leave one of them out."
        )
    margins = None if scores is None else tuple(scores[a] - scores[b] for a, b in pairwise(kept))
    equal = None if margins is None or all(margins) else tuple(margin == 0 for margin in margins)
    return _example(
        data,
        ("prompt", "messages", "responses") if given is None else ("prompt", "messages", "responses", "ties"),
        prompt=prompt,
        responses=tuple(responses[i] for i in kept),
        margins=margins,
        ties=given or equal,
        kind="rankings",
    )


def _scores(scores: Any, count: int) -> list[float] | None:
    """One number for each response, best first, so that they never rise."""
    if scores is None:
        return None
    if not isinstance(scores, Sequence) or isinstance(scores, str):
        raise FieldError("scores", "is no list of numbers.")
    if len(scores) != count:
        raise FieldError("scores", f"has {len(scores)} entries for {count} responses.")
    numbers = [_number(f"scores[{i}]", score) for i, score in enumerate(scores)]
    for i, (high, low) in enumerate(pairwise(numbers)):
        if low > high:
            hint = "Write the responses best first, with their scores in the same order."
            raise FieldError(
                "scores", f"rises from {high:g} to {low:g} at entry {i + 1}; responses are to be best first.", hint
            )
    return numbers


def _ties(given: Any, count: int) -> tuple[bool, ...] | None:
    """Neighbours that the data itself calls equal; None where it says nothing (equal scores are ties too)."""
    if not isinstance(given, list):
        return None
    if len(given) != count - 1 or not all(isinstance(tie, bool) for tie in given):
        raise FieldError("ties", f"expected {count - 1} times true or false, one for each two neighbours.")
    return tuple(given)


_PARSERS: dict[str, Callable[[Mapping[str, Any]], Example]] = {
    "text": _text,
    "messages": _messages,
    "conversations": _conversations,
    "prompt": _prompt_only,
    "completion": _completion,
    "pair": _pair,
    "hh": _hh,
    "ranking": _ranking,
}
