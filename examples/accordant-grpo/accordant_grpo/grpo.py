"""Group Relative Policy Optimization: each answer is held against the others to its prompt; there is no value network.

    A_i   = (r_i - mean(r)) / (std(r) + 1e-4)        over the K answers to one prompt            section 4.1.2
    rho_t = pi(y_t) / pi_old(y_t)
    k_t   = ref(y_t) / pi(y_t) - log(ref(y_t) / pi(y_t)) - 1                                     eq. 4
    loss  = - mean_i mean_t { min(rho_t A_i, clip(rho_t, 1 - eps, 1 + eps) A_i) - beta k_t }     eq. 3

i runs over answers, t over the tokens of one. pi_old sampled the answers; all probabilities are at the sampling temperature.
Source: Shao et al. 2024, "DeepSeekMath", equations 3 and 4 (outcome supervision). Options:
    loss           grpo     as above: every answer weighs the same, so a token of a long answer weighs less
                   dapo     mean over all tokens of the step                               Yu et al. 2025, eq. 8
                   dr_grpo  sum over tokens / max_length, mean over answers                Liu et al. 2025, section 3.2
    clip_high      another bound above than below ("clip higher")                          Yu et al. 2025, eq. 10
    unbiased_kl    beta rho_t k_t, whose gradient is that of the KL itself                 DeepSeek-AI 2025 (V3.2)
    scale_rewards  group    std of the group, as above;  batch: of the whole collection;  none: 1 (Liu et al. 2025)
Differs from the paper: 1e-4 beside the std, as TRL has it, so that a group of equal scores has advantage 0; an answer that
the reward could not score has advantage 0, and is in no mean(r) and no std(r).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, Literal

import accordant_grpo.answers as answers
from core.api import Batch, CollectContext, LossOutput, Models, Objective, Reads, Row, check_option, global_moments
from core.api import functional as F


class GRPO(Objective):
    """Group Relative Policy Optimization (DeepSeekMath), with the variants DAPO and Dr. GRPO."""

    api_version = 1
    reads: Reads = "prompts"
    collects = "every_epoch"
    reward_use = "required"
    on_policy = True
    default_lr = 5e-6

    def __init__(
        self,
        samples: int = 8,
        loss: Literal["grpo", "dapo", "dr_grpo"] = "grpo",
        clip_range: float = 0.2,
        clip_high: float | None = None,
        beta: float = 0.04,
        unbiased_kl: bool = False,
        scale_rewards: Literal["group", "batch", "none"] = "group",
        mask_truncated: bool = False,
        max_length: int | None = None,
        minibatches: int = 4,
        passes: int = 1,
    ) -> None:
        check_option(samples >= 2, "samples", samples, "at least 2, as answers are compared with each other")
        check_option(loss in ("grpo", "dapo", "dr_grpo"), "loss", loss, "grpo, dapo or dr_grpo")
        check_option(0 < clip_range < 1, "clip_range", clip_range, "above 0 and below 1")
        check_option(clip_high is None or 0 < clip_high < float("inf"), "clip_high", clip_high, "above 0, or null")
        check_option(0 <= beta < float("inf"), "beta", beta, "0 or more")
        check_option(beta > 0 or not unbiased_kl, "unbiased_kl", unbiased_kl, "false with beta=0")
        check_option(scale_rewards in ("group", "batch", "none"), "scale_rewards", scale_rewards, "group, batch or none")
        fits = max_length is None if loss != "dr_grpo" else max_length is not None and max_length >= 1
        check_option(fits, "max_length", max_length, f"a number of tokens with loss=dr_grpo, null else; loss is {loss}")
        check_option(minibatches >= 1, "minibatches", minibatches, "at least 1")
        check_option(passes >= 1, "passes", passes, "at least 1")
        self.samples, self.loss_type, self.scale_rewards = samples, loss, scale_rewards
        self.beta, self.unbiased_kl = beta, unbiased_kl
        self.clip_low, self.clip_high = clip_range, clip_range if clip_high is None else clip_high
        self.mask_truncated, self.max_length = mask_truncated, max_length
        self.minibatches, self.passes = minibatches, passes
        self.mean_over = "tokens" if loss == "dapo" else "responses"
        self.frozen = frozenset({"reference"}) if beta > 0 else frozenset()

    def bind(self, reward_name: str | None) -> str:
        return f"{self.samples} answers are sampled for each prompt, and {reward_name} holds them against each other."

    def collect(self, rows: Sequence[Row], ctx: CollectContext) -> Sequence[Row]:
        rows = ctx.score(ctx.generate(rows, n=self.samples))
        answers.report(rows, ctx)
        unit = common_unit(rows) if self.scale_rewards == "batch" else 1.0 if self.scale_rewards == "none" else None
        rows = [answers.with_advantages(row, group_advantages(answers.scores_of(row), unit)) for row in rows]
        if self.mask_truncated:
            rows = answers.without_truncated(rows, ctx)
        if self.beta > 0:
            rows = ctx.token_logps("reference", rows, "ref_logps", temperature=ctx.temperature)
            answers.report_kl(rows, ctx)
        return rows

    def loss(self, models: Models, batch: Batch) -> LossOutput:
        tokens = models.token_scores("policy", batch, temperature=models.temperature)
        ratio, advantages = (tokens.logps - batch["old_logps"]).exp(), batch["advantages"]
        losses = F.clipped_surrogate(ratio, advantages, self.clip_low, self.clip_high)
        clipped = F.clipped_tokens(ratio.detach(), advantages, self.clip_low, self.clip_high)
        measured = {
            "entropy": tokens.entropy,
            "clip_ratio/low_mean": clipped * (advantages < 0),
            "clip_ratio/high_mean": clipped * (advantages > 0),
            "clip_ratio/region_mean": clipped,
        }
        if self.beta > 0:
            kl = F.kl_estimate(tokens.logps - batch["ref_logps"], "k3")
            kl = kl * ratio if self.unbiased_kl else kl
            losses, measured["kl"] = losses + self.beta * kl, kl.detach()
        metrics = {name: F.masked_mean(values, batch.mask) for name, values in measured.items()}
        count = batch.count("tokens")
        return LossOutput(self._mean(losses, batch), batch.count(self.mean_over), metrics, dict.fromkeys(metrics, count))

    def _mean(self, losses: Any, batch: Batch) -> Any:
        """() of losses (N, T)."""
        if self.loss_type == "dapo":
            return F.masked_mean(losses, batch.mask)
        if self.loss_type == "dr_grpo":
            return F.sequence_logps(losses, batch.mask).mean() / self.max_length
        return F.sequence_logps(losses, batch.mask, average=True).mean()


def group_advantages(scores: Sequence[float | None], unit: float | None = None) -> list[float]:
    """(K,) how much better each answer to one prompt is than their mean, in this unit (None: their own deviation)."""
    known = [score for score in scores if score is not None]
    if len(known) < 2 or min(known) == max(known):
        return [0.0] * len(scores)
    mean, unit = statistics.fmean(known), statistics.stdev(known) + 1e-4 if unit is None else unit
    return [0.0 if score is None else (score - mean) / unit for score in scores]


def common_unit(rows: Sequence[Row]) -> float:
    """The deviation of all scores of a collection, over all processes."""
    _, variance = global_moments([score for row in rows for score in answers.scores_of(row) if score is not None])
    return math.sqrt(variance) + 1e-4
