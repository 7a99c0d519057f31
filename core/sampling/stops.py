"""Where a response ends: at an end token, at a stop text, or at the limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.data.templates import end_ids
from core.settings import Generation

_BEFORE = 8
"""Tokens decoded before those that could hold a stop text: how a text begins depends on its tokenizer's manners."""


class Stops:
    """The rules of one sampling."""

    def __init__(self, tokenizer: Any, settings: Generation) -> None:
        self.ends = end_ids(tokenizer)
        self.limit, self._least, self._texts = settings.max_new_tokens, settings.min_new_tokens, tuple(settings.stop)
        self._tokenizer, self._ends = tokenizer, frozenset(self.ends)
        self._silent = frozenset(tokenizer.all_special_ids) if self._texts else frozenset()
        # A token that is not silent stands for a byte at least.
        self._tail = _BEFORE + max((len(text.encode()) for text in self._texts), default=0)

    def finished(self, tokens: Sequence[int]) -> bool:
        """Has the newest of these tokens ended the response? An end token does, and so does a stop text."""
        return tokens[-1] in self._ends or self._says_stop(tokens)

    def _says_stop(self, tokens: Sequence[int]) -> bool:
        if not self._texts or len(tokens) < self._least:
            return False
        if len(tokens) > max(self._least, 1):  # else it is the first look, and the text may stand anywhere
            tokens = self._last_loud(tokens)
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return any(stop in text for stop in self._texts)

    def _last_loud(self, tokens: Sequence[int]) -> list[int]:
        """The last tokens that have a text of their own, as many as a stop text can take and some more."""
        last: list[int] = []
        for token in reversed(tokens):
            if token not in self._silent:
                last.append(token)
                if len(last) == self._tail:
                    break
        return last[::-1]
