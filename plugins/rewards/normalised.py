"""A reward in units of its own spread, so that rewards of different scales can be added.

    z     = (s - mean) / std
    z     = max(-clip, min(clip, z))            with clip
    score = z,  or  std z  with center_only

    mode=running    mean and std (divided by n) of all scores that collections have seen, this one included; before the
                    first collection a score passes as it is
    mode=fixed      mean and std as given

Only collections count, never an evaluation, and on several processes they are the statistics of all. Where all scores
were equal, std counts as 1.

Source: Chan et al. 1979 for the running statistics (plugins/rewards/running.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from core.api import ConfigError, RewardSource, Sample, Scored
from plugins.rewards.parts import build_one, scores_of
from plugins.rewards.running import Running


class Normalised(RewardSource):
    """A reward with mean 0 and standard deviation 1: over all collections so far, or with numbers that you give."""

    api_version = 1
    composite = True

    def __init__(
        self,
        of: str | Mapping[str, Any] | None = None,
        mode: Literal["running", "fixed"] = "running",
        mean: float | None = None,
        std: float | None = None,
        clip: float | None = None,
        center_only: bool = False,
    ) -> None:
        if mode not in ("running", "fixed"):
            raise ConfigError(f"reward.mode is {mode}; expected running or fixed.")
        _check_numbers(mode, {"mean": mean, "std": std}, center_only and clip is None)
        if clip is not None and not 0 < clip < math.inf:
            raise ConfigError(f"reward.clip is {clip}; expected a number of deviations above 0, or null.")
        self.parts = {"of": build_one(of, "of")}
        self.mode, self.clip, self.center_only = mode, clip, center_only
        self._fixed = (mean or 0.0, 1.0 if std is None else std)
        self._running = Running()
        self.unit = self.parts["of"].unit if center_only else "std"

    def score(self, samples: Sequence[Sample]) -> Sequence[float | None]:
        """One number per sample, in deviations from the mean; None where the part gives none."""
        return self.score_parts(samples).scores

    def score_parts(self, samples: Sequence[Sample]) -> Scored:
        """The same, with the raw scores as the part `of`."""
        raw = self._running.just_fitted(samples) or scores_of(self.parts, samples)["of"]
        moving = self.mode == "running" or raw.moving
        return Scored([self._normalised(score) for score in raw.scores], {"of": raw}, moving=moving)

    def fit(self, samples: Sequence[Sample]) -> None:
        """Take in the scores of a collection."""
        super().fit(samples)
        if self.mode == "running":
            self._running.fit(samples, scores_of(self.parts, samples)["of"])

    def state_dict(self) -> dict[str, Any]:
        """Count, mean and sum of squares (`statistics`), and what the part keeps (`of`)."""
        state = self._running.state_dict()
        return super().state_dict() | ({"statistics": state} if state else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._running.load_state_dict(state.get("statistics", {}))

    def _normalised(self, score: float | None) -> float | None:
        known = self._running.mean_and_std if self.mode == "running" else self._fixed
        if score is None or known is None:
            return score
        mean, std = known
        z = (score - mean) / std
        if self.clip is not None:
            z = max(-self.clip, min(self.clip, z))
        return std * z if self.center_only else z


def _check_numbers(mode: str, given: Mapping[str, float | None], centres: bool) -> None:
    """`centres`: the deviation is of no use."""
    for key, value in given.items():
        if mode == "running" and value is not None:
            raise ConfigError(
                f"reward.{key} is {value}, and mode=running works it out.", f"Use mode=fixed, or leave reward.{key} out."
            )
        if mode == "fixed" and value is None and not (key == "std" and centres):
            raise ConfigError(f"reward.{key} is not set, and mode=fixed needs it.", f"For example reward.{key}=1.")
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"reward.{key} is {value}; expected a finite number.")
    std = given["std"]
    if std is not None and std <= 0:
        raise ConfigError(f"reward.std is {std}; expected a number above 0.")
