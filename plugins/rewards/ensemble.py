"""Several rewards that judge the same thing, reduced to one: caution where they disagree.

    mean        score = (1/n) sum_i s_i
    min         score = min_i s_i                             the worst case
    mean_std    score = mean - k sqrt((1/n) sum_i (s_i - mean)^2)

Source: Coste et al. 2023, "Reward Model Ensembles Help Mitigate Overoptimization", section 3.2: mean, worst-case and
uncertainty-weighted optimisation. Differs from the paper: mean_std takes off the deviation, in points of score, where
the paper takes off the variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from core.api import ConfigError, RewardSource, Sample, Scored
from plugins.rewards.parts import Parts, Reduce, build_parts, check_reduce, common_unit, reduced, scores_of


class Ensemble(RewardSource):
    """Several rewards of one scale reduced to one: their mean, the least, or the mean less k deviations."""

    api_version = 1
    composite = True

    def __init__(
        self,
        parts: Parts | None = None,
        reduce: Reduce = "mean",
        k: float = 1.0,
        missing: Literal["none", "skip"] = "none",
    ) -> None:
        check_reduce(reduce, k)
        if missing not in ("none", "skip"):
            raise ConfigError(f"reward.missing is {missing}; expected none or skip.")
        self.parts = build_parts(parts)
        if len(self.parts) < 2:
            raise ConfigError(
                f"reward.parts has one part, {next(iter(self.parts))}; an ensemble needs two.",
                "Compose that reward alone, or add another.",
            )
        self.reduce, self.k, self.missing = reduce, k, missing
        self.unit = common_unit(self.parts)

    def score(self, samples: Sequence[Sample]) -> Sequence[float | None]:
        """One number per sample; None as `missing` says."""
        return self.score_parts(samples).scores

    def score_parts(self, samples: Sequence[Sample]) -> Scored:
        """The same, with what each member gave; with min, who gave the least (equal ones share it)."""
        parts = scores_of(self.parts, samples, "parts.")
        columns = list(zip(*(part.scores for part in parts.values()), strict=True))
        scores = [self._reduced(column) for column in columns]
        moving = any(part.moving for part in parts.values())
        if self.reduce != "min":
            return Scored(scores, parts, moving=moving)
        decided = {
            label: [_share(column[i], score, column) for column, score in zip(columns, scores, strict=True)]
            for i, label in enumerate(parts)
        }
        return Scored(scores, parts, decided, moving)

    def _reduced(self, column: Sequence[float | None]) -> float | None:
        known = [score for score in column if score is not None]
        if not known or (self.missing == "none" and len(known) < len(column)):
            return None
        return reduced(known, self.reduce, self.k)


def _share(own: float | None, score: float | None, column: Sequence[float | None]) -> float:
    return 0.0 if score is None or own != score else 1 / column.count(score)
