"""REINFORCE Leave-One-Out: the baseline of an answer is the mean of the others to its prompt; there is no value network.

    R_i  = r_i - beta sum_t [log pi_old(y_t) - log ref(y_t)]          the score, less the KL of the whole answer    eq. 3
    A_i  = R_i - 1/(K - 1) sum_{j != i} R_j                           over the K answers to one prompt              eq. 8
    loss = - mean_i A_i log pi(y_i)                                   an answer is one action                       eq. 6

i runs over answers, t over the tokens of one. pi_old sampled the answers; all probabilities are at the sampling temperature.
Source: Ahmadian et al. 2024, "Back to Basics: Revisiting REINFORCE Style Optimization". With `clip_range` the loss is that
of TRL's RLOOTrainer, for several steps on one collection:
    rho_i = pi(y_i) / pi_old(y_i)
    loss  = - mean_i min(rho_i A_i, clip(rho_i, 1 - clip_range, 1 + clip_high) A_i)
Differs from the paper: an answer that the reward could not score has advantage 0, and is no baseline to the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import accordant_grpo.answers as answers
from core.api import Batch, CollectContext, LossOutput, MeanOver, Models, Objective, Reads, Row, check_option
from core.api import functional as F


class RLOO(Objective):
    """REINFORCE Leave-One-Out (Ahmadian et al. 2024), with TRL's clipping as an option."""

    api_version = 1
    reads: Reads = "prompts"
    collects = "every_epoch"
    reward_use = "required"
    on_policy = True
    mean_over: MeanOver = "responses"
    default_lr = 5e-6

    def __init__(
        self,
        samples: int = 4,
        beta: float = 0.05,
        clip_range: float | None = None,
        clip_high: float | None = None,
        mask_truncated: bool = False,
        minibatches: int = 1,
        passes: int = 1,
    ) -> None:
        check_option(samples >= 2, "samples", samples, "at least 2, as answers are compared with each other")
        check_option(0 <= beta < float("inf"), "beta", beta, "0 or more")
        check_option(clip_range is None or 0 < clip_range < 1, "clip_range", clip_range, "above 0 and below 1, or null")
        check_option(clip_high is None or 0 < clip_high < float("inf"), "clip_high", clip_high, "above 0, or null")
        check_option(
            clip_high is None or clip_range is not None, "clip_high", clip_high, "null without clip_range, as nothing is cut"
        )
        check_option(minibatches >= 1, "minibatches", minibatches, "at least 1")
        check_option(passes >= 1, "passes", passes, "at least 1")
        check_option(
            passes == 1 or clip_range is not None, "passes", passes, "1 without clip_range: later ones are off-policy"
        )
        self.samples, self.beta, self.mask_truncated = samples, beta, mask_truncated
        self.clip_low, self.clip_high = clip_range, clip_range if clip_high is None else clip_high
        self.minibatches, self.passes = minibatches, passes
        self.frozen = frozenset({"reference"}) if beta > 0 else frozenset()

    def bind(self, reward_name: str | None) -> str:
        return f"{self.samples} answers are sampled for each prompt, and {reward_name} holds each against the others."

    def collect(self, rows: Sequence[Row], ctx: CollectContext) -> Sequence[Row]:
        rows = ctx.score(ctx.generate(rows, n=self.samples))
        answers.report(rows, ctx)
        if self.mask_truncated:
            rows = answers.without_truncated(rows, ctx)
        if self.beta > 0:
            rows = ctx.token_logps("reference", rows, "ref_logps", temperature=ctx.temperature)
            kls = [kl for answer in answers.report_kl(rows, ctx) for kl in answer]
            ctx.log({"kl": sum(kls) / max(1, len(kls))}, len(kls))
        return [answers.with_advantages(row, leave_one_out(returns(row, self.beta))) for row in rows]

    def loss(self, models: Models, batch: Batch) -> LossOutput:
        tokens = models.token_scores("policy", batch, temperature=models.temperature)
        logps = F.sequence_logps(tokens.logps, batch.mask)
        advantages = batch["advantages"][:, 0]
        metrics = {"entropy": F.masked_mean(tokens.entropy, batch.mask)}
        counts = {"entropy": batch.count("tokens")}
        if self.clip_low is None:
            losses = -logps * advantages
        else:
            ratio = (logps - F.sequence_logps(batch["old_logps"], batch.mask)).exp()
            losses = F.clipped_surrogate(ratio, advantages, self.clip_low, self.clip_high)
            clipped = F.clipped_tokens(ratio.detach(), advantages, self.clip_low, self.clip_high)
            metrics["clip_ratio/low_mean"] = (clipped * (advantages < 0)).mean()
            metrics["clip_ratio/high_mean"] = (clipped * (advantages > 0)).mean()
            metrics["clip_ratio/region_mean"] = clipped.mean()
        return LossOutput(losses.mean(), batch.count("responses"), metrics, counts)


def returns(row: Row, beta: float) -> list[float | None]:
    """(K,) score less beta times the answer's KL; None = not scored."""
    if beta == 0:
        return answers.scores_of(row)
    return [None if r.score is None else r.score - beta * sum(answers.token_kls(r)) for r in row.responses]


def leave_one_out(values: Sequence[float | None]) -> list[float]:
    """(K,) each value less the mean of the others; 0 where it, or all others, are None."""
    known = [value for value in values if value is not None]
    if len(known) < 2 or min(known) == max(known):
        return [0.0] * len(values)
    return [0.0 if v is None else v - (sum(known) - v) / (len(known) - 1) for v in values]
