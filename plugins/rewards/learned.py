"""learned: the score of a reward model, ours or any sequence-classification model from a folder or the hub.

Each answer is scored after its prompt, with the model's own tokenizer and template, whatever the policy's are. The raw
score of a Bradley-Terry model is in log-odds: a difference d means that people prefer the higher one with probability
sigmoid(d). Several models are an ensemble: the mean, the least (the worst case), or the mean less `k` deviations
(Coste et al. 2023, section 3.2, who take off the variance).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from core.api import POCKET, ConfigError, RewardModel, RewardSource, Sample, Scored, model_folder
from plugins.rewards.parts import Reduce, check_reduce, reduced


class Learned(RewardSource):
    """The score of a learned reward model, or of an ensemble of them."""

    api_version = 1
    unit = "log-odds"

    def __init__(
        self,
        path: str | Sequence[str] | None = None,
        revision: str | None = None,
        template: Literal["auto", "chat", "plain"] | None = None,
        group: str | None = None,
        reduce: Reduce = "mean",
        k: float = 1.0,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str = "auto",
        batch_tokens: int = 16384,
    ) -> None:
        if not path:
            raise ConfigError(
                "reward.path is not set, and reward=learned needs it.",
                "Give one: reward.path=runs/<run>/reward; or reward=pocket, the reward model of the sandbox.",
            )
        self.paths = [path] if isinstance(path, str) else list(path)
        for one in self.paths:
            _check_path(one)
        check_reduce(reduce, k)
        if reduce != "mean" and len(self.paths) == 1:
            raise ConfigError(
                f"reward.reduce is {reduce}, and reward.path is one model: there is nothing to reduce.",
                "Give several, reward.path=[runs/a/reward,runs/b/reward], or leave reward.reduce out.",
            )
        if batch_tokens < 1:
            raise ConfigError(f"reward.batch_tokens is {batch_tokens}; expected at least 1.")
        self.reduce, self.k, self.group = reduce, k, group
        self._options: dict[str, Any] = {
            "revision": revision,
            "template": template,
            "dtype": dtype,
            "device": device,
            "batch_tokens": batch_tokens,
        }
        self._folders: list[str] | None = None
        self._models: list[RewardModel] | None = None

    def prepare(self) -> None:
        """The pocket reward model is trained where there is none yet, which no run should do in its midst."""
        self._folders = [model_folder(path) for path in self.paths]

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        """One number per sample, in log-odds of a Bradley-Terry model. ModelError where a model cannot be loaded."""
        return list(self.score_parts(samples).scores)

    def score_parts(self, samples: Sequence[Sample]) -> Scored:
        """With several models, what each gave."""
        given = [model.score(samples, self.group) for model in self._loaded()] if samples else [[] for _ in self.paths]
        if len(given) == 1:
            return Scored(given[0])
        columns = list(zip(*given, strict=True))
        decided = {}
        if self.reduce == "min":
            decided = {str(i): [float(min(c) == c[i]) / c.count(min(c)) for c in columns] for i in range(len(given))}
        return Scored(
            [reduced(c, self.reduce, self.k) for c in columns],
            {str(i): Scored(scores) for i, scores in enumerate(given)},
            decided,
        )

    def _loaded(self) -> list[RewardModel]:
        """Loaded at first use: a run that is refused for another reason does not wait for it."""
        if self._models is None:
            if self._folders is None:
                self.prepare()
            self._models = [RewardModel(p, **self._options) for p in self._folders or ()]
            for model in self._models:
                self._check_group(model)
                if model.facts.unit != self.unit:
                    self.unit = ""
        return self._models

    def _check_group(self, model: RewardModel) -> None:
        if self.group is not None and self.group not in model.heads:
            raise ConfigError(
                f"reward.group is {self.group}, and {model.path} has heads for {', '.join(model.heads) or 'no group'}.",
                "Leave reward.group out, or train with objective.group_heads=true.",
            )


def _check_path(path: str) -> None:
    """Is the folder there? Said before anything is loaded; hub ids pass."""
    if path == POCKET:
        return
    if not os.path.isdir(os.path.expanduser(path)) and (path.startswith((".", "/", "~")) or path.count("/") != 1):
        raise ConfigError(
            f"reward.path is {path}; there is no such folder.", "Give a folder that exists, or a hub id such as org/name."
        )
