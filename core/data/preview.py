"""Rows as a person reads them, the trained tokens marked: the quickest way to see that a mask is right.

Trained tokens are green and stand between ▸ and ◂, so that they can be told without colour; control tokens show by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import rich.console
from rich.text import Text

from core.rows import Response, Row
from core.text import visible

OPEN, CLOSE = "▸", "◂"


def preview(rows: Sequence[Row], tokenizer: Any, count: int, console: rich.console.Console | None = None) -> None:
    """Print the first `count` rows."""
    console = console or rich.console.Console()
    for row in rows[:count]:
        console.print(render_row(row, tokenizer), soft_wrap=True)


def render_row(row: Row, tokenizer: Any) -> Text:
    """One row: where it is from, its prompt, each response with its trained tokens between ▸ and ◂."""
    text = Text()
    text.append(f"{row.id}", style="bold").append(f"  {row.source}\n" if row.source else "\n", style="dim")
    text.append(f"prompt ({len(row.prompt)} tokens)\n", style="bold")
    text.append(_decode(tokenizer, row.prompt) + "\n", style="dim")
    for number, response in enumerate(row.responses, start=1):
        text.append(_title(row, response, number), style="bold")
        for part, style in _spans(tokenizer, response):
            text.append(part, style=style)
        text.append("\n")
    return text.append("\n")


def _title(row: Row, response: Response, number: int) -> str:
    name = f"response {number} of {len(row.responses)}" if len(row.responses) > 1 else "response"
    cut = "" if response.finished else ", cut"
    return f"{name} ({len(response.tokens)} tokens, {sum(response.mask)} trained{cut})\n"


def _spans(tokenizer: Any, response: Response) -> Iterator[tuple[str, str]]:
    """(text, style) of each stretch of tokens that are trained, or not."""
    pairs = zip(response.mask, response.tokens, strict=True)
    for trained, stretch in groupby(pairs, key=lambda pair: pair[0]):
        text = _decode(tokenizer, [token for _, token in stretch])
        yield (f"{OPEN}{text}{CLOSE}", "bold green") if trained else (text, "dim")


def _decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    return visible(tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))
