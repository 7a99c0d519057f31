"""What rewards made of other rewards share: their parts, built and labelled, and asked for scores."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from core.api import ConfigError, RewardSource, Sample, Scored, UserError, build_reward, checked_scores

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


def scores_of(parts: Mapping[str, RewardSource], samples: Sequence[Sample], under: str = "") -> dict[str, Scored]:
    """label -> what that part gives, as finite floats or None. Without samples no part is asked.

    Args:
        under: what stands before the labels in the composite's keys ("parts."), for messages.

    Raises:
        UserError: of a part, naming its key; PluginError where it gives anything else.
    """
    found = {}
    for label, part in parts.items():
        try:
            given = part.score_parts(samples) if samples else Scored([])
        except UserError as error:
            raise error.of_part(f"{under}{label}") from error
        found[label] = checked_scores(f'the part "{label}" of the reward', given, samples)
    return found


Reduce = Literal["mean", "min", "mean_std"]


def check_reduce(reduce: str, k: float) -> None:
    """ConfigError for a reduction that there is none of, or a `k` that is none or has no use."""
    if reduce not in ("mean", "min", "mean_std"):
        raise ConfigError(f"reward.reduce is {reduce}; expected mean, min or mean_std.")
    if not 0 <= k < math.inf:
        raise ConfigError(f"reward.k is {k}; expected a finite number of 0 or more.")
    if k != 1 and reduce != "mean_std":
        raise ConfigError(f"reward.k is {k}, and reduce={reduce} has no use for it.", "Use reward.reduce=mean_std.")


def reduced(scores: Sequence[float], reduce: Reduce, k: float) -> float:
    """Their mean, the least of them, or the mean less k standard deviations (divided by n)."""
    if reduce == "min":
        return min(scores)
    spread = k * statistics.pstdev(scores) if reduce == "mean_std" else 0.0
    return statistics.fmean(scores) - spread
