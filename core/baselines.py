"""What every reward is held against: the length of the answer and, where there are references, BLEU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from core import registry
from core.checked_reward import Reward
from core.reward import RewardSource, Sample
from core.rows import Row

LENGTH: Mapping[str, Any] = {"name": "length", "unit": "words"}
BLEU: Mapping[str, Any] = {"name": "bleu"}


def baselines(rows: Sequence[Row], taken: Collection[str], prefer: Mapping[str, str]) -> list[Reward]:
    """Length in words always; BLEU where rows have references and sacrebleu is installed. Not those already `taken`.

    On rows without references BLEU abstains.
    """
    wanted = [LENGTH]
    if any(row.references for row in rows) and importlib.util.find_spec("sacrebleu") is not None:
        wanted.append(BLEU)
    built = [(str(o["name"]), registry.build_reward(o, prefer)) for o in wanted if o["name"] not in taken]
    return [Reward(name, WhereItCan(source)) for name, source in built if source is not None]


class WhereItCan(RewardSource):
    """Another source on the samples that have references, where it needs them; elsewhere it abstains."""

    def __init__(self, source: RewardSource) -> None:
        self.source, self.unit = source, source.unit

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        able = [i for i, s in enumerate(samples) if s.references or "references" not in self.source.needs]
        scores: list[float | None] = [None] * len(samples)
        for i, score in zip(able, self.source.score([samples[i] for i in able]), strict=True):
            scores[i] = score
        return scores


def score_table(
    rewards: Sequence[Reward], rows: Sequence[Row], tell: Callable[[str], None] = lambda label: None
) -> Iterator[tuple[str, list[list[float | None]]]]:
    """(label, [row][response]) of each reward; `tell` hears which one is at work."""
    for reward in rewards:
        tell(reward.name)
        yield reward.name, [[r.score for r in row.responses] for row in reward.score_rows(rows)]
