"""A reward source as the core uses it: under its name, with what it needs and returns checked; its scores as metrics.

Imports no torch, so that rewards of plain text score data in an instant.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from core import registry
from core.errors import PluginError
from core.options import reward_options
from core.reward import Compared, RewardSource, Sample, Scored, checked_comparison, checked_scores, needs_of, samples_of
from core.rows import Row


class Reward:
    """A composed reward source with its name: checks what it needs and what it returns."""

    def __init__(self, name: str, source: RewardSource) -> None:
        self.name, self.source = name, source

    def check_columns(self, rows: Sequence[Row]) -> None:
        """Before training: do the rows have what the source needs? A column that is null is none."""
        needs = needs_of(self.source)
        for row in rows:
            have = {name for name, value in row.columns.items() if value is not None}
            have |= {"references"} if row.references else set()
            missing = sorted(needs - have)
            if missing:
                raise PluginError(
                    f'{row.source or row.id}: reward "{self.name}" needs the column {missing[0]!r}; the row has: '
                    f"{', '.join(sorted(have)) or 'none'}.",
                    "Use data that carries it, or another reward.",
                )

    def score_rows(self, rows: Sequence[Row], *, collecting: bool = False) -> list[Row]:
        """Rows with scores; one call for all responses, so that a source can batch as it likes."""
        return self.score_parts(rows, collecting=collecting)[0]

    def score_parts(self, rows: Sequence[Row], *, collecting: bool = False) -> tuple[list[Row], Scored]:
        """The same, with the scores of a composite's parts. `collecting`: sources with a memory take these rows in."""
        samples = [s for row in rows for s in samples_of(row)]
        if collecting:
            self.source.fit(samples)  # without samples too: the other processes wait for this one
        given = self.source.score_parts(samples) if samples else Scored([])
        scored = checked_scores(f'reward "{self.name}"', given, samples)
        scores = iter(scored.scores)
        made = [
            row.with_responses([replace(r, score=next(scores)) for r in row.responses], margins=row.margins, ties=row.ties)
            for row in rows
        ]
        return made, scored

    def compare(self, first: Sequence[Sample], second: Sequence[Sample]) -> Compared:
        """Which of two answers to one prompt is better, for each pair."""
        given = self.source.compare(first, second) if first else Compared([])
        return checked_comparison(f'reward "{self.name}"', given, len(first))


def build_rewards(config: Mapping[str, Any]) -> list[Reward]:
    """The composed reward, where there is one, then those that are only measured (`eval.rewards`)."""
    built = [(label, registry.build_reward(o, config["plugins"]["prefer"])) for label, o in reward_options(config)]
    return [Reward(label, source) for label, source in built if source is not None]


def score_metrics(name: str, scored: Scored) -> dict[str, float]:
    """`<name>/mean` and `/std` of scores; of a composite's parts also quantiles and the share they decided.

    `<name>/<part>/mean`, `/std`, `/p05`, `/p50`, `/p95`, and `/decided` from 0 to 1 where it can be told. A source that
    applied to nothing leaves no metric. `/moving` is 1, or not there: values of two steps cannot be compared.
    """
    metrics = {f"{name}/{key}": value for key, value in {**_moments(scored.scores), **_moving(scored)}.items()}
    for label, part, decided in scored.walk():
        known = [float(s) for s in part.scores if s is not None]
        quantiles = dict(zip(_QUANTILES, _quantiles(known), strict=True)) if known else {}
        share = {"decided": statistics.fmean(decided)} if decided else {}
        for key, value in {**_moments(part.scores), **quantiles, **share, **_moving(part)}.items():
            metrics[f"{name}/{label}/{key}"] = value
    return metrics


_QUANTILES = {"p05": 0.05, "p50": 0.5, "p95": 0.95}


def _moving(scored: Scored) -> dict[str, float]:
    return {"moving": 1.0} if scored.moving and any(s is not None for s in scored.scores) else {}


def _moments(scores: Sequence[float | None]) -> dict[str, float]:
    known = [float(s) for s in scores if s is not None]
    return {"mean": statistics.fmean(known), "std": statistics.pstdev(known)} if known else {}


def _quantiles(values: Sequence[float]) -> list[float]:
    return [float(q) for q in np.quantile(np.asarray(values), list(_QUANTILES.values()))]
