"""gold: the sandbox's own judge, which knows the truth. Only for data=sandbox; docs/sandbox.md says what it rewards."""

from __future__ import annotations

from collections.abc import Sequence

from core.api import RewardSource, Sample
from core.data.sandbox import gold


class Gold(RewardSource):
    """How good an answer to a sandbox request is, from 0 to 1, worked out from the request and the answer."""

    api_version = 1
    needs = frozenset({"task"})
    unit = "gold"

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        """One number in [0, 1] per sample. DataError where a sample's task is none of the sandbox's."""
        return [gold(s.prompt, s.response, s.columns["task"]) for s in samples]
