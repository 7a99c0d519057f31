"""Rows: one prompt with its responses, unpadded, on the CPU, readable as a line of JSON.

One shape of data for the whole house (docs/concepts.md):

    a bare prompt      -> 0 responses
    a demonstration    -> 1 response
    a preference pair  -> 2 responses, chosen first
    a ranking          -> K responses, best first
    a rollout          -> K sampled responses

A worked example, a pair whose tokens are made up:

    Row(
        id="hp-1",
        prompt=[1, 52, 9],                          # token ids, never empty
        responses=(
            Response(tokens=[7, 8, 2], mask=[True, True, True], text="Paris."),
            Response(tokens=[7, 2], mask=[True, True], text="Rome."),
        ),
        prompt_text="What is the capital of France?",
        margins=(2.5,),
    )

This module imports no torch: rows are made, read and written by processes that have no model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, str]
"""One turn of a conversation: {"role": "system" | "user" | "assistant", "content": text}."""


@dataclass(frozen=True)
class Response:
    """One answer to a prompt.

    Attributes:
        tokens: (T,) token ids, the stop token included where the answer ended by itself.
        mask: (T,) True = the token counts in the loss.
        text: the answer as a person reads it, without special tokens.
        score: what the reward source returned for it; None = not scored, or the source abstained.
        finished: False where the answer was cut, by the sampler's limit or by truncation.
        token_fields: one number per token, by name ("ref_logps", "old_logps", "values", ...), each (T,).
    """

    tokens: list[int]
    mask: list[bool]
    text: str = ""
    score: float | None = None
    finished: bool = True
    token_fields: Mapping[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.mask) != len(self.tokens):
            raise ValueError(f"Response: {len(self.tokens)} tokens but a mask of {len(self.mask)}; they go together.")
        for name, values in self.token_fields.items():
            if len(values) != len(self.tokens):
                raise ValueError(f"Response: {len(self.tokens)} tokens but {len(values)} values in token_fields[{name!r}].")

    def with_field(self, name: str, values: list[float]) -> Response:
        """A copy that carries one more number per token."""
        return dataclasses.replace(self, token_fields={**self.token_fields, name: values})


@dataclass(frozen=True)
class Row:
    """One prompt with its responses, best first where they are ordered.

    Attributes:
        id: unique within a data set, stable between runs; error messages and samples name it.
        prompt: (P,) token ids, P >= 1 (the first token of all has nothing that could predict it).
        responses: the answers; how many says what kind of row it is (see the module's docstring).
        prompt_text: the prompt as a person reads it (of a conversation: its transcript), without template tokens.
        messages: the prompt as turns, where the data is conversational; else None.
        margins: (K-1,) how much better each response is than the next one, in the data's own unit; None = unknown.
        ties: (K-1,) True where a response and the next one were judged equal; None = no ties.
        references: texts of good answers, for rewards that compare (BLEU).
        columns: every other column of the data, untouched, for rewards and reports.
        source: where the row came from, as "file:line", for error messages; "" for made ones.
    """

    id: str
    prompt: list[int]
    responses: tuple[Response, ...] = ()
    prompt_text: str = ""
    messages: tuple[Message, ...] | None = None
    margins: tuple[float, ...] | None = None
    ties: tuple[bool, ...] | None = None
    references: tuple[str, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError(f"Row {self.id!r}: the prompt has no token; give it at least a begin-of-text token.")
        gaps = max(0, len(self.responses) - 1)
        for name, values in (("margins", self.margins), ("ties", self.ties)):
            if values is not None and len(values) != gaps:
                raise ValueError(f"Row {self.id!r}: {len(self.responses)} responses need {gaps} {name}, got {len(values)}.")

    @property
    def num_tokens(self) -> int:
        """Prompt and response tokens together, the prompt counted once."""
        return len(self.prompt) + sum(len(r.tokens) for r in self.responses)

    def with_responses(self, responses: Sequence[Response], **changes: Any) -> Row:
        """A copy with other responses. Margins and ties spoke of the old ones, so they go unless given anew."""
        changes = {"margins": None, "ties": None, **changes}
        return dataclasses.replace(self, responses=tuple(responses), **changes)

    def to_json(self) -> dict[str, Any]:
        """Plain containers only, for a line of `rollouts/*.jsonl`; what a person reads comes first."""
        out: dict[str, Any] = {
            "id": self.id,
            "prompt_text": self.prompt_text,
            "responses": [_response_to_json(r) for r in self.responses],
            "prompt": self.prompt,
        }
        if self.messages is not None:
            out["messages"] = [dict(m) for m in self.messages]
        if self.margins is not None:
            out["margins"] = list(self.margins)
        if self.ties is not None:
            out["ties"] = list(self.ties)
        if self.references:
            out["references"] = list(self.references)
        if self.columns:
            out["columns"] = dict(self.columns)
        if self.source:
            out["source"] = self.source
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """The inverse of `to_json`; floats come back bit for bit (JSON keeps repr's digits)."""
        return cls(
            id=data["id"],
            prompt=list(data["prompt"]),
            responses=tuple(Response(**{"mask": [True] * len(r["tokens"]), **r}) for r in data["responses"]),
            prompt_text=data.get("prompt_text", ""),
            messages=tuple(data["messages"]) if "messages" in data else None,
            margins=tuple(data["margins"]) if "margins" in data else None,
            ties=tuple(data["ties"]) if "ties" in data else None,
            references=tuple(data.get("references", ())),
            columns=data.get("columns", {}),
            source=data.get("source", ""),
        )


def _response_to_json(response: Response) -> dict[str, Any]:
    out: dict[str, Any] = {"text": response.text}
    if response.score is not None:
        out["score"] = response.score
    if not response.finished:
        out["finished"] = False
    out["tokens"] = response.tokens
    if not all(response.mask):
        out["mask"] = response.mask
    if response.token_fields:
        out["token_fields"] = dict(response.token_fields)
    return out
