"""Conversations: lists of turns, checked, and the two other ways in which people write them (HH transcripts, ShareGPT)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from core.errors import nearest
from core.rows import Message

ROLES = ("system", "user", "assistant")

_SHAREGPT_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model"), "assistant"),
    "system": "system",
}
_HH_MARKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}


class FieldError(Exception):
    """A field that is wrong; the caller adds the row's place."""

    def __init__(self, field: str, problem: str, hint: str = "") -> None:
        self.field, self.problem, self.hint = field, problem, hint
        super().__init__(f"{field}: {problem}")


def check_text(field: str, value: Any) -> str:
    """A text that is not blank, unchanged."""
    if not isinstance(value, str):
        raise FieldError(field, f"is {_kind(value)}, expected text.")
    if not value.strip():
        raise FieldError(field, "is empty." if not value else "is white space only.", "Fill it in or leave the row out.")
    return value


def check_turns(field: str, value: Any) -> tuple[Message, ...]:
    """Turns with known roles and non-empty text: at most one system turn, first; then user and assistant in turn.

    Raises:
        FieldError: with the exact place, as "messages[1].role".
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise FieldError(field, f"is {_kind(value)}, expected a list of turns.")
    if not value:
        raise FieldError(field, "has no turns at all.", "Fill it in or leave the row out.")
    turns = tuple(_check_turn(f"{field}[{i}]", turn) for i, turn in enumerate(value))
    expected = "user"
    for i, turn in enumerate(turns):
        role = turn["role"]
        if role == "system":
            if i:
                raise FieldError(f"{field}[{i}].role", "a system turn after the first turn.", "Only the first may be one.")
        elif role == expected:
            expected = "assistant" if role == "user" else "user"
        elif i == (turns[0]["role"] == "system"):
            raise FieldError(field, "starts with the assistant, expected the user.", "Leave that turn out.")
        else:
            raise FieldError(f"{field}[{i}].role", f"two {role} turns in a row.", "Merge them before training.")
    return turns


def _check_turn(field: str, turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise FieldError(field, f'is {_kind(turn)}, expected {{"role": ..., "content": ...}}.')
    role = turn.get("role")
    if role not in ROLES:
        close = nearest(role, ROLES) if isinstance(role, str) else ""
        raise FieldError(f"{field}.role", f"is {role!r}, expected one of {', '.join(ROLES)}.{close}")
    if turn.get("tool_calls"):
        raise FieldError(
            f"{field}.tool_calls", "tool calls are not supported.", "Write the call as text, or leave the row out."
        )
    if "content" not in turn:
        raise FieldError(f"{field}.content", "is missing.")
    return {"role": role, "content": check_text(f"{field}.content", turn["content"])}


def check_prompt(field: str, value: Any) -> tuple[Message, ...]:
    """Turns that end with the user, so that the assistant is next."""
    turns = check_turns(field, value)
    if turns[-1]["role"] != "user":
        raise FieldError(
            field, f"ends with a turn of the {turns[-1]['role']}, expected the user.", "Leave the last turn out."
        )
    return turns


def check_dialogue(field: str, value: Any) -> tuple[tuple[Message, ...], str]:
    """Turns that end with the assistant, as (context, last answer)."""
    turns = check_turns(field, value)
    if turns[-1]["role"] != "assistant":
        raise FieldError(field, f"ends with a turn of the {turns[-1]['role']}: there is nothing to learn from.")
    if len(turns) == 1 or turns[-2]["role"] != "user":
        raise FieldError(field, "has no user turn before the answer.")
    return turns[:-1], turns[-1]["content"]


def check_answer(field: str, value: Any) -> str:
    """The text of a response: text, or a list with one assistant turn."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return check_text(field, value)
    if not value:
        raise FieldError(field, "has no turns at all.", "Fill it in or leave the row out.")
    if not all(isinstance(turn, dict) for turn in value):
        raise FieldError(field, "is a list of other things than turns; expected text or one assistant turn.")
    turns = [_check_turn(f"{field}[{i}]", turn) for i, turn in enumerate(value)]
    if len(turns) > 1:
        raise FieldError(field, f"has {len(turns)} turns, expected one.", "Whole dialogues go into the column messages.")
    if turns[0]["role"] != "assistant":
        raise FieldError(f"{field}[0].role", f"is {turns[0]['role']!r}, expected 'assistant'.")
    return turns[0]["content"]


def from_hh(field: str, value: Any) -> tuple[tuple[Message, ...], str]:
    """A raw HH transcript as (context, last answer). A marker counts only at the start or after a blank line."""
    text = check_text(field, value)
    marks = list(_HH_MARKER.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        raise FieldError(field, 'is no transcript; expected it to begin with "\\n\\nHuman:".')
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    turns: list[Message] = []
    for i, (mark, end) in enumerate(zip(marks, ends, strict=True)):
        role, content = _HH_ROLES[mark.group(1)], text[mark.end() : end].strip()
        if not content:
            raise FieldError(field, f"turn {i + 1} ({mark.group(1)}) is empty.", "Leave the row out.")
        if turns and turns[-1]["role"] == role:
            raise FieldError(
                field, f"turns {i} and {i + 1} are both of {mark.group(1)}.", "Merge them or leave the row out."
            )
        turns.append({"role": role, "content": content})
    if turns[-1]["role"] != "assistant":
        raise FieldError(field, "ends without an Assistant turn.", "Leave the row out.")
    return check_dialogue(field, turns)


def is_hh(value: Any) -> bool:
    """Does the text look like a raw HH transcript?"""
    return isinstance(value, str) and value.lstrip("\n").startswith(("Human:", "Assistant:"))


def from_sharegpt(field: str, value: Any, system: Any = None) -> list[dict[str, Any]]:
    """ShareGPT's {"from", "value"} turns with our names; {"role", "content"} are taken as they are. Checked later."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise FieldError(field, f"is {_kind(value)}, expected a list of turns.")
    turns = [] if system in (None, "") else [{"role": "system", "content": system}]
    for i, turn in enumerate(value):
        if not isinstance(turn, dict):
            raise FieldError(f"{field}[{i}]", f'is {_kind(turn)}, expected {{"from": ..., "value": ...}}.')
        if "from" not in turn:
            turns.append(turn)
            continue
        speaker = turn["from"]
        if speaker not in _SHAREGPT_ROLES:
            raise FieldError(f"{field}[{i}].from", f"is {speaker!r}, expected one of {', '.join(_SHAREGPT_ROLES)}.")
        if "value" not in turn:
            raise FieldError(f"{field}[{i}].value", "is missing.")
        turns.append({"role": _SHAREGPT_ROLES[speaker], "content": turn["value"]})
    return turns


def transcript(messages: Sequence[Message]) -> str:
    """Turns as a person reads them; one user turn alone is just its text."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in messages)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")
