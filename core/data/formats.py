"""Formats: every shape in which people write prompts and responses, made into one.

| format | columns |
|---|---|
| `text` | text |
| `messages` | messages (the last turn is the response) |
| `conversations` | conversations (ShareGPT: from, value), optional system |
| `prompt` | prompt, or messages that end with the user |
| `completion` | prompt or messages, completion |
| `pair` | prompt or messages, chosen, rejected; or chosen and rejected alone, which then begin with their prompt |
| `hh` | chosen, rejected: raw HH transcripts |
| `ranking` | prompt or messages, responses (best first), optional scores (falling) |

Optional everywhere: id; reference or references; of pairs margin (>= 0), tie, majority; of rankings ties. Prompts and
responses are text or lists of {"role", "content"}. Names follow TRL's where TRL has one. Every other column is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core.data.records import Record, RowError
from core.data.turns import is_hh, transcript
from core.rows import Message

Format = Literal["text", "messages", "conversations", "prompt", "completion", "pair", "hh", "ranking"]
Kind = Literal["text", "prompts", "demonstrations", "pairs", "rankings"]

KINDS: dict[str, Kind] = {
    "text": "text",
    "messages": "demonstrations",
    "conversations": "demonstrations",
    "prompt": "prompts",
    "completion": "demonstrations",
    "pair": "pairs",
    "hh": "pairs",
    "ranking": "rankings",
}
"""What each format holds."""


@dataclass(frozen=True)
class Example:
    """One row as text, before any tokenizer. The fields mean what they mean in `core.rows.Row`.

    Attributes:
        prompt: text, or turns that end with the user; "" in the format `text`.
        responses: best first where they are ordered.
        kind: what the row holds.
        made_id: True where the data had no id, so that `id` is a hash of the content.
    """

    id: str
    prompt: str | tuple[Message, ...]
    responses: tuple[str, ...] = ()
    margins: tuple[float, ...] | None = None
    ties: tuple[bool, ...] | None = None
    references: tuple[str, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    kind: Kind = "prompts"
    made_id: bool = False

    @property
    def messages(self) -> tuple[Message, ...] | None:
        """The prompt's turns, None where it is plain text."""
        return None if isinstance(self.prompt, str) else self.prompt

    @property
    def prompt_text(self) -> str:
        """The prompt as a person reads it."""
        return self.prompt if isinstance(self.prompt, str) else transcript(self.prompt)

    @property
    def prompt_key(self) -> str:
        """A digest of the prompt, equal for equal prompts; of raw text, of the text."""
        prompt: Any = self.prompt if isinstance(self.prompt, str) else [[m["role"], m["content"]] for m in self.prompt]
        return digest(prompt or self.responses)

    @property
    def all_tied(self) -> bool:
        """Several responses, and no preference between any of them."""
        return self.ties is not None and len(self.ties) > 0 and all(self.ties)


def digest(value: Any) -> str:
    """16 hex digits of plain JSON values, the same on every machine."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True, default=str).encode()).hexdigest()[:16]


def detect(record: Record) -> Format:
    """The format by the columns that are there; a column that is null counts as absent, as tables fill gaps with null."""
    have = {name for name, value in record.data.items() if value is not None}
    if have >= {"chosen", "rejected"} and not have & {"prompt", "messages"} and is_hh(record.data["chosen"]):
        return "hh"
    if have >= {"response_a", "response_b"} and "chosen" in record.data:
        return "pair"
    order: tuple[tuple[str, Format], ...] = (
        ("responses", "ranking"),
        ("chosen", "pair"),
        ("rejected", "pair"),
        ("completion", "completion"),
        ("conversations", "conversations"),
        ("messages", "messages"),
        ("prompt", "prompt"),
        ("text", "text"),
    )
    for column, found in order:
        if column in have:
            return "prompt" if found == "messages" and _ends_with_user(record.data["messages"]) else found
    columns = ", ".join(sorted(record.data)) or "none"
    hint = "Expected prompt, completion, chosen, rejected, responses, messages, conversations or text; rename yours."
    raise RowError(record.where, "", f"no known column; it has: {columns}.", hint)


def _ends_with_user(messages: Any) -> bool:
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and last.get("role") == "user"
