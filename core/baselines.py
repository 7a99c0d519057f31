"""What every reward is held against: the length of the answer and, where there are references, BLEU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from core import registry
from core.checked_reward import Reward
from core.rows import Row

LENGTH: Mapping[str, Any] = {"name": "length", "unit": "words"}
BLEU: Mapping[str, Any] = {"name": "bleu"}


def baselines(rows: Sequence[Row], taken: Collection[str], prefer: Mapping[str, str]) -> list[Reward]:
    """Length in words always; BLEU where all rows have references and sacrebleu is installed. Not those already `taken`."""
    wanted = [LENGTH]
    if rows and all(row.references for row in rows) and importlib.util.find_spec("sacrebleu") is not None:
        wanted.append(BLEU)
    built = [(str(o["name"]), registry.build_reward(o, prefer)) for o in wanted if o["name"] not in taken]
    return [Reward(name, source) for name, source in built if source is not None]


def score_table(
    rewards: Sequence[Reward], rows: Sequence[Row], tell: Callable[[str], None] = lambda label: None
) -> Iterator[tuple[str, list[list[float | None]]]]:
    """(label, [row][response]) of each reward; `tell` hears which one is at work."""
    for reward in rewards:
        tell(reward.name)
        yield reward.name, [[r.score for r in row.responses] for row in reward.score_rows(rows)]
