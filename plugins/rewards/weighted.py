"""A weighted sum of rewards.

    score = sum_i w_i s_i

A part with weight 0 is measured and does not count. The part that decided a score is the one with the largest |w_i s_i|;
equal ones share it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from core.api import ConfigError, RewardSource, Sample, Scored, build_reward
from plugins.rewards.parts import check_label, named, scores_of


class Weighted(RewardSource):
    """A weighted sum of rewards, each measured on its own."""

    api_version = 1
    composite = True

    def __init__(
        self,
        parts: Mapping[str, float | Mapping[str, Any]] | None = None,
        missing: Literal["none", "zero"] = "none",
    ) -> None:
        if not parts:
            raise ConfigError("reward.parts is not set.", 'For example "reward.parts={gold: 1, length: -0.01}".')
        if missing not in ("none", "zero"):
            raise ConfigError(f"reward.missing is {missing}; expected none or zero.")
        self.missing = missing
        self.weights: dict[str, float] = {}
        self.parts = {}
        for label, given in parts.items():
            weight, options = _weight_and_options(check_label(label), given)
            self.weights[label], self.parts[label] = weight, build_reward(options, f"parts.{label}")
        if not any(self.weights.values()):
            raise ConfigError("reward.parts has no part with a weight other than 0; every score would be 0.")

    def score(self, samples: Sequence[Sample]) -> Sequence[float | None]:
        """One number per sample; None as `missing` says."""
        return self.score_parts(samples).scores

    def score_parts(self, samples: Sequence[Sample]) -> Scored:
        """The same, with what each part gave, before its weight."""
        parts = scores_of(self.parts, samples, "parts.")
        counted = [label for label in parts if self.weights[label]]
        scores: list[float | None] = []
        decided: dict[str, list[float]] = {label: [] for label in parts}
        for i in range(len(samples)):
            given = {label: self._term(label, parts[label].scores[i]) for label in counted}
            terms = {label: term for label, term in given.items() if term is not None}
            known = len(terms) == len(given) if self.missing == "none" else bool(terms)
            scores.append(math.fsum(terms.values()) if known else None)
            largest = max((abs(term) for term in terms.values()), default=0.0)
            deciding = [label for label, term in terms.items() if known and abs(term) == largest]
            for label, shares in decided.items():
                shares.append(1 / len(deciding) if label in deciding else 0.0)
        return Scored(scores, parts, decided, moving=any(parts[label].moving for label in counted))

    def _term(self, label: str, score: float | None) -> float | None:
        return None if score is None else self.weights[label] * score


def _weight_and_options(label: str, given: Any) -> tuple[float, Any]:
    """(weight, the options of the reward): of a number, that weight of the reward that the label names."""
    options = named(label, given) if isinstance(given, Mapping) else {"name": label}
    weight = options.pop("weight", 1.0) if isinstance(given, Mapping) else given
    key = f"reward.parts.{label}.weight" if isinstance(given, Mapping) else f"reward.parts.{label}"
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
        raise ConfigError(
            f"{key} is {weight!r}; expected a finite number, the weight of this part.",
            f"For example reward.parts.{label}=0.5, or reward.parts.{label}={{weight: 0.5, name: length, scale: 2}}.",
        )
    return float(weight), options
