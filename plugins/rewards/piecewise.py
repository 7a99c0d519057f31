"""Llama 2's rule: the safety reward where safety is in question, else the helpfulness reward.

    R_c(g | p)  = R_s(g | p)    if is_safety(p) or R_s(g | p) < 0.15
                  R_h(g | p)    otherwise
    score       = whiten(logit(R_c(g | p)))

    p, g    prompt and answer
    R_s     probability from the safety reward; R_h from the helpfulness reward: sigmoid of a learned model's raw score
    whiten  less the mean, divided by the standard deviation: here of all collections so far (running.py)

rule=or is the paper's: every answer to a tagged prompt is judged by safety, and unsafe answers to any prompt. rule=and,
which some lectures write, judges by safety only where both hold: a safe answer to a tagged prompt by its helpfulness, and
an unsafe answer to an untagged prompt too.

Source: Touvron et al. 2023, "Llama 2: Open Foundation and Fine-Tuned Chat Models", section 3.2.3, the two equations on
R_c. Differs from the paper: running statistics, as a score may not depend on the batch; probabilities of 0 and 1, which a
sigmoid never gives, are moved inwards by `clamp` before logit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from core.api import ConfigError, DataError, PluginError, RewardSource, Sample, Scored
from plugins.rewards.parts import build_one, scores_of
from plugins.rewards.running import Running

log = logging.getLogger("accordant")

_ENOUGH = 8
"""Fewer log-odds may all be from 0 to 1 by chance."""
_MANY = 64
"""Fewer answers may all be to prompts without a tag."""

_WORDS = {
    "rule": ("or", "and"),
    "safety_scale": ("log_odds", "probability"),
    "helpfulness_scale": ("log_odds", "probability"),
    "output": ("log_odds", "probability"),
    "whiten": ("none", "running"),
}


class Piecewise(RewardSource):
    """Llama 2's rule: the safety reward where the prompt or the answer is unsafe, else the helpfulness reward."""

    api_version = 1
    composite = True

    def __init__(
        self,
        safety: str | Mapping[str, Any] | None = None,
        helpfulness: str | Mapping[str, Any] | None = None,
        rule: Literal["or", "and"] = "or",
        threshold: float = 0.15,
        unsafe_column: str | None = "safety_label",
        unsafe_values: Sequence[Any] = ("unsafe",),
        safety_scale: Literal["log_odds", "probability"] = "log_odds",
        helpfulness_scale: Literal["log_odds", "probability"] = "log_odds",
        clamp: float = 0.001,
        output: Literal["log_odds", "probability"] = "log_odds",
        whiten: Literal["none", "running"] = "running",
    ) -> None:
        words = {"safety_scale": safety_scale, "helpfulness_scale": helpfulness_scale, "output": output}
        _check_words({"rule": rule, **words, "whiten": whiten})
        if not 0 <= threshold <= 1:
            raise ConfigError(f"reward.threshold is {threshold}; expected a probability, 0 to 1 (Llama 2: 0.15).")
        if not 0 < clamp < 0.5:
            raise ConfigError(f"reward.clamp is {clamp}; expected a number above 0 and below 0.5.")
        _check_tag(rule, unsafe_column, unsafe_values)
        self.column, self.values = unsafe_column, tuple(unsafe_values)
        self.needs = frozenset() if unsafe_column is None else frozenset({unsafe_column})
        self.parts = {"safety": build_one(safety, "safety"), "helpfulness": build_one(helpfulness, "helpfulness")}
        self.rule, self.threshold, self.clamp = rule, threshold, clamp
        self.scales = {"safety": safety_scale, "helpfulness": helpfulness_scale}
        self.output, self.whiten = output, whiten
        self._doubted: set[str] = set()
        self._running = Running()
        self.unit = "std" if whiten == "running" else {"log_odds": "log-odds", "probability": "probability"}[output]

    def score(self, samples: Sequence[Sample]) -> Sequence[float | None]:
        """One number per sample; None where the part that the rule needs gives none."""
        return self.score_parts(samples).scores

    def score_parts(self, samples: Sequence[Sample]) -> Scored:
        """The same, with the raw scores of both parts, and which of them was taken; with whitening, what it began with.

        DataError where a sample lacks the tag; PluginError where a part on the scale of probabilities leaves 0 to 1.
        """
        found = self._running.just_fitted(samples) or self._combined(samples)
        if self.whiten == "none":
            return found
        mean, std = self._running.mean_and_std or (0.0, 1.0)
        scores = [None if s is None else (s - mean) / std for s in found.scores]
        parts = {**found.parts, "unwhitened": Scored(found.scores, moving=found.moving)}
        return Scored(scores, parts, found.decided, moving=True)

    def fit(self, samples: Sequence[Sample]) -> None:
        """Take in the scores of a collection, where they are whitened."""
        super().fit(samples)
        if self.whiten == "running":
            self._running.fit(samples, self._combined(samples))

    def state_dict(self) -> dict[str, Any]:
        """Count, mean and sum of squares (`statistics`), and what the parts keep."""
        state = self._running.state_dict()
        return super().state_dict() | ({"statistics": state} if state else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._running.load_state_dict(state.get("statistics", {}))

    def _combined(self, samples: Sequence[Sample]) -> Scored:
        """R_c on the scale of `output`, before whitening."""
        parts = scores_of(self.parts, samples)
        for label, part in parts.items():
            self._doubt_scale(label, part.scores)
        self._doubt_tags(samples)
        scores: list[float | None] = []
        decided: dict[str, list[float]] = {label: [] for label in parts}
        for i, sample in enumerate(samples):
            given = {label: self._checked(label, part.scores[i]) for label, part in parts.items()}
            chosen = self._chosen(self._tagged(sample), given["safety"])
            score = None if chosen is None else given[chosen]
            scores.append(None if chosen is None or score is None else self._put_out(score, self.scales[chosen]))
            for label, shares in decided.items():
                shares.append(float(label == chosen and score is not None))
        return Scored(scores, parts, decided, moving=any(part.moving for part in parts.values()))

    def _chosen(self, tagged: bool, safety: float | None) -> str | None:
        """The part that judges; None where that hangs on a safety score that is missing."""
        if tagged == (self.rule == "or"):  # or: the tag is enough; and: no tag is enough
            return "safety" if tagged else "helpfulness"
        if safety is None:
            return None
        unsafe = (safety if self.scales["safety"] == "probability" else sigmoid(safety)) < self.threshold
        return "safety" if unsafe else "helpfulness"

    def _tagged(self, sample: Sample) -> bool:
        """is_safety(p): is the prompt tagged?"""
        if self.column is None:
            return False
        tag = sample.columns.get(self.column)
        if tag is None:
            raise DataError(
                f"row {sample.row_id!r} has no {self.column}, by which reward=piecewise knows unsafe prompts.",
                "Add the column, name another (reward.unsafe_column), or judge by the threshold alone: "
                "reward.unsafe_column=null.",
            )
        return tag in self.values

    def _checked(self, label: str, score: float | None) -> float | None:
        if score is not None and self.scales[label] == "probability" and not 0 <= score <= 1:
            raise PluginError(
                f"reward.{label} gave {score:g}, and reward.{label}_scale=probability expects 0 to 1.",
                f"Use reward.{label}_scale=log_odds for raw scores, or another reward.",
            )
        return score

    def _doubt_scale(self, label: str, scores: Sequence[float | None]) -> None:
        """Say once that scores look like probabilities: read as log-odds, none of them is below any threshold up to 0.5."""
        known = [score for score in scores if score is not None]
        if self.scales[label] != "log_odds" or label in self._doubted or len(known) < _ENOUGH:
            return
        if all(0 <= score <= 1 for score in known):
            self._doubted.add(label)
            log.warning(
                "reward=piecewise: all %d scores of %s are from 0 to 1, like probabilities, and are read as log-odds. "
                "If they are probabilities: reward.%s_scale=probability (said once).",
                *(len(known), label, label),
            )

    def _doubt_tags(self, samples: Sequence[Sample]) -> None:
        """Say once that no prompt is tagged: "1" is not 1, and "Unsafe" is not "unsafe"."""
        if self.column is None or self.column in self._doubted or len(samples) < _MANY:
            return
        seen = {repr(sample.columns.get(self.column)) for sample in samples}
        if not any(map(self._tagged, samples)):
            self._doubted.add(self.column)
            log.warning(
                "reward=piecewise: none of %d prompts has %s in the column %s, which holds %s. "
                "If that is not what you meant: reward.unsafe_values (said once).",
                *(len(samples), " or ".join(map(repr, self.values)), self.column, ", ".join(sorted(seen)[:5])),
            )

    def _put_out(self, score: float, scale: str) -> float:
        if scale == self.output:
            return score
        return sigmoid(score) if self.output == "probability" else logit(min(1 - self.clamp, max(self.clamp, score)))


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), for any x."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def logit(p: float) -> float:
    """log(p / (1 - p)), for 0 < p < 1."""
    return math.log(p) - math.log1p(-p)


def _check_words(given: Mapping[str, str]) -> None:
    for key, value in given.items():
        if value not in _WORDS[key]:
            raise ConfigError(f"reward.{key} is {value}; expected {' or '.join(_WORDS[key])}.")


def _check_tag(rule: str, column: str | None, values: Sequence[Any]) -> None:
    if column is None and rule == "and":
        raise ConfigError(
            "reward.unsafe_column is null with rule=and: no answer would ever be judged by its safety.",
            "Name the column of the tag, or use rule=or.",
        )
    if column is None and tuple(values) != ("unsafe",):
        raise ConfigError(
            f"reward.unsafe_values is {list(values)}, and reward.unsafe_column=null tags no prompt.",
            "Name the column, or leave the values out.",
        )
    if column is not None and not values:
        raise ConfigError(
            "reward.unsafe_values is empty: no prompt would be tagged.",
            "Name the values, or use reward.unsafe_column=null.",
        )
