"""Rejection sampling: the policy answers, the reward picks, and the policy is finetuned on what was picked.

Collect: `samples` answers y_1..y_K ~ pi(.|x) for each prompt x, scored by r. Of these are kept (`keep`)
    best        argmax_k r(x, y_k)            Touvron et al. 2023 (Llama 2), sec. 3.2.3; Dong et al. 2023 (RAFT), alg. 1
    top         the best `share` of them, of each prompt
    threshold   those with r(x, y_k) >= threshold                              Gulcehre et al. 2023 (ReST), sec. 3
With `best_so_far`, what was kept of a prompt in earlier epochs competes with the new answers (Llama 2, the same section).
Loss: sft's, imported, on the kept answers.
Differs from the papers: RAFT and ReST forget earlier epochs (best_so_far=false). Llama 2 sampled for all prompts in each of
its few iterations; here an epoch takes a part of them, and what was kept of a prompt waits until it comes again.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from core.api import (
    Batch,
    CollectContext,
    CollectionError,
    LossOutput,
    Models,
    Objective,
    Response,
    Row,
    check_option,
    from_all_processes,
    log_scores,
    ranked,
)
from plugins.objectives.sft import SFT


class RejectionSampling(Objective):
    """Finetuning on the policy's own answers, those that the reward likes best."""

    api_version = 1
    reads = "prompts"
    collects = "every_epoch"
    reward_use = "required"
    mean_over = SFT.mean_over
    default_lr = 1e-5

    def __init__(
        self,
        samples: int = 8,
        keep: Literal["best", "top", "threshold"] = "best",
        share: float = 0.25,
        threshold: float | Sequence[float] | None = None,
        best_so_far: bool = True,
        temperature: float | Sequence[float] | None = None,
        minibatches: int = 16,
        passes: int = 1,
        measure_kl: bool = True,
    ) -> None:
        for key, value, least in (("samples", samples, 2), ("minibatches", minibatches, 1), ("passes", passes, 1)):
            check_option(value >= least, key, value, f"at least {least}")
        check_option(keep in ("best", "top", "threshold"), "keep", keep, "best, top or threshold")
        check_option(0 < share < 1 and (keep == "top" or share == 0.25), "share", share, "0 to 1, and 0.25 unless keep=top")
        wanted = "a number, or a list of them" if keep == "threshold" else f"null with keep={keep}"
        check_option((threshold is not None) == (keep == "threshold"), "threshold", threshold, wanted)
        check_option(_all(math.isfinite, threshold), "threshold", threshold, "a number, or a list of them")
        check_option(_all(lambda t: 0 < t < math.inf, temperature), "temperature", temperature, "null, or above 0")
        self.samples, self.keep, self.share, self.threshold = samples, keep, share, threshold
        self.best_so_far, self.temperature, self.minibatches, self.passes = best_so_far, temperature, minibatches, passes
        self.frozen = frozenset({"reference"}) if measure_kl else frozenset()
        self._sft = SFT()
        self._kept: dict[str, list[Response]] = {}  # row id -> the answers kept when its prompt came last

    def bind(self, reward_name: str | None) -> str:
        what = {"best": "the best", "top": f"the best {self._most}", "threshold": f"those from {self.threshold}"}[self.keep]
        rivals = ", earlier epochs' included" if self.best_so_far else ""
        return f"{self.samples} responses sampled per prompt each epoch; learnt: {what} by {reward_name}{rivals}."

    def collect(self, rows: Sequence[Row], ctx: CollectContext) -> Sequence[Row]:
        temperature = _of_epoch(self.temperature, ctx.epoch)
        if temperature is None and ctx.temperature == 0:
            raise CollectionError(
                f"generation.temperature is 0: all {self.samples} answers to a prompt would be the same.",
                "Use generation.temperature=1, or give objective.temperature.",
            )
        answered = ctx.score(ctx.generate(rows, n=self.samples, temperature=temperature))
        log_scores(ctx, answered)
        kept = {row.id: self._pick(row, _of_epoch(self.threshold, ctx.epoch)) for row in answered}
        self._log(kept, ctx)
        if self.best_so_far:
            # A prompt may come to another process in a later epoch. One without rows asks too: the others wait for it.
            for part in from_all_processes({name: found for name, found in kept.items() if found}):
                self._kept |= part
        return [row.with_responses(kept[row.id]) for row in answered if kept[row.id]]

    def _pick(self, row: Row, threshold: float | None) -> list[Response]:
        """The answers to one prompt that are learnt, best first; of equal scores the newer, then the one drawn first."""
        new = [dataclasses.replace(r, token_fields={}) for r in row.responses]
        picked: dict[tuple[int, ...], Response] = {}
        for score, response in ranked([*new, *self._kept.get(row.id, ())]):
            if threshold is None or score >= threshold:
                picked.setdefault(tuple(response.tokens), response)  # an answer that was drawn twice counts once
        return list(picked.values())[: self._most]

    @property
    def _most(self) -> int:
        """How many answers to a prompt are kept, at the most."""
        return {"best": 1, "top": max(1, round(self.share * self.samples)), "threshold": self.samples}[self.keep]

    def _log(self, kept: Mapping[str, Sequence[Response]], ctx: CollectContext) -> None:
        answers = [r for found in kept.values() for r in found]
        if kept:
            ctx.log({"kept/share": len(answers) / (len(kept) * self.samples)}, len(kept))
        if answers:
            earlier = {id(r) for name in kept for r in self._kept.get(name, ())}
            metrics = {
                "kept/scores": statistics.fmean(score for score, _ in ranked(answers)),
                "kept/mean_length": statistics.fmean(len(r.tokens) for r in answers),
                "kept/clipped_ratio": statistics.fmean(not r.finished for r in answers),
                "kept/earlier": statistics.fmean(id(r) in earlier for r in answers),
            }
            ctx.log(metrics, len(answers))
        if empty := sum(not found for found in kept.values()):
            ctx.note(f"{empty} of {len(kept)} prompts keep no answer: none has a score, or none reaches the threshold.")

    def loss(self, models: Models, batch: Batch) -> LossOutput:
        return self._sft.loss(models, batch)

    def state_dict(self) -> dict[str, Any]:
        return {name: [_plain(r) for r in found] for name, found in self._kept.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._kept = {name: [Response(mask=[True] * len(r["tokens"]), **r) for r in found] for name, found in state.items()}


def _plain(response: Response) -> dict[str, Any]:
    """A sampled answer, all of whose tokens count, as a plain container."""
    return {name: getattr(response, name) for name in ("tokens", "text", "score", "finished")}


def _of_epoch(values: float | Sequence[float] | None, epoch: int) -> float | None:
    """What holds in an epoch: of a list the one with its number, of a shorter one the last."""
    return values[min(epoch, len(values) - 1)] if isinstance(values, Sequence) else values


def _all(right: Callable[[float], bool], values: float | Sequence[float] | None) -> bool:
    """Is it right of a number, or of each in a list that is not empty? None passes."""
    if isinstance(values, Sequence):
        return len(values) > 0 and all(map(right, values))
    return values is None or right(values)
