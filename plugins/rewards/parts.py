"""What rewards made of other rewards share: their parts, built and labelled, and asked for scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.api import ConfigError, PluginError, RewardSource, Sample, Scored, build_reward

Parts = Mapping[str, Any] | Sequence[Any]
"""label -> a reward (its name, or a map of name and options; the name may be left out where it is the label); or a list
of rewards, labelled 0, 1, ..."""


def build_parts(parts: Parts | None) -> dict[str, RewardSource]:
    """label -> source. ConfigError that names the key where something is wrong."""
    if not parts:
        raise ConfigError("reward.parts is not set.", 'For example "reward.parts={gold: 1, length: -0.01}".')
    if not isinstance(parts, Mapping):
        return {str(i): build_reward(given, f"parts.{i}") for i, given in enumerate(parts)}
    return {check_label(label): build_reward(named(label, given), f"parts.{label}") for label, given in parts.items()}


def check_label(label: Any) -> str:
    """A label is a piece of metric names: a text without a slash."""
    if not isinstance(label, str) or not label or "/" in label:
        raise ConfigError(
            f"reward.parts has the label {label!r}; expected a text without a slash.", "Metrics are named by it."
        )
    return label


def named(label: str, given: Any) -> Any:
    """The options of a part, where the label stands for a name that is not given."""
    if given is None:
        return label
    return {"name": label, **given} if isinstance(given, Mapping) else given


def build_one(given: Any, key: str) -> RewardSource:
    """The reward under a key of its own. ConfigError where it is not set."""
    if given is None:
        raise ConfigError(f"reward.{key} is not set.", f'For example reward.{key}=length, or "reward.{key}={{name: gold}}".')
    return build_reward(given, key)


def common_unit(parts: Mapping[str, RewardSource]) -> str:
    """The unit that all parts have; else none."""
    units = {part.unit for part in parts.values()}
    return units.pop() if len(units) == 1 else ""


def scores_of(parts: Mapping[str, RewardSource], samples: Sequence[Sample]) -> dict[str, Scored]:
    """label -> what that part gives, as finite floats or None. PluginError where it gives anything else."""
    return {label: _checked(label, part.score_parts(samples), samples) for label, part in parts.items()}


def _checked(label: str, given: Scored, samples: Sequence[Sample]) -> Scored:
    if len(given.scores) != len(samples):
        raise PluginError(
            f'the part "{label}" of the reward returned {len(given.scores)} scores for {len(samples)} samples.',
            "Return one number (or None) per sample, in order.",
        )
    scores = [None if score is None else float(score) for score in given.scores]
    for score, sample in zip(scores, samples, strict=True):
        if score is not None and not math.isfinite(score):
            raise PluginError(
                f'the part "{label}" of the reward returned {score} for row {sample.row_id!r} '
                f"(response {sample.response[:60]!r}).",
                "Scores must be finite numbers; return None where the source does not apply.",
            )
    return replace(given, scores=scores)
