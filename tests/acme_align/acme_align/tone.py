"""A reward that likes thanks."""

from __future__ import annotations

from collections.abc import Sequence

from core.api import RewardSource, Sample


class Tone(RewardSource):
    """How often the answer says one of the words, at most `limit` times."""

    api_version = 1
    unit = "words"

    def __init__(self, words: Sequence[str] = ("thank", "please"), limit: int = 3) -> None:
        self.words, self.limit = tuple(words), limit

    def score(self, samples: Sequence[Sample]) -> list[float]:
        return [float(min(self.limit, sum(s.response.lower().count(word) for word in self.words))) for s in samples]
