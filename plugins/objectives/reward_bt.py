"""Bradley-Terry reward model: learn a score from comparisons.

    P(y_i before y_j | x) = sigmoid(r(x, y_i) - r(x, y_j))                            Bradley & Terry 1952
    loss = - mean over rows of mean over pairs i < j of log sigmoid(r_i - r_j)        Ouyang et al. 2022, eq. 1

r is a linear head on the last token's hidden state. The K responses of a row are computed in one forward, with the prompt
once, and all their pairs are trained together; each row weighs one (of K = 9, single pairs overfit: Ouyang et al., 3.5).
Options: rankings as one choice after another (`loss=plackett_luce`), judged-equal pairs (`ties`), flipped labels
(`label_smoothing`), scores held near zero (`centre_coef`), a head for each group of people (`group_heads`).
After training the scores are shifted so that demonstrations score 0 on average (`zero`), as Stiennon et al. 2020 do.
Differs from the papers: nothing in the default; options are cited where their maths is (core.functional).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from core.api import Batch, CollectContext, LossOutput, Models, Objective, Reads, Row, check_option
from core.api import functional as F


class RewardBT(Objective):
    """Bradley-Terry reward model from pairs and rankings."""

    api_version = 1
    reads: Reads = "rankings"
    trains = frozenset({"reward"})
    generates = False
    mean_over = "rows"
    default_lr = 2e-5
    margins_may_miss = True

    def __init__(
        self,
        loss: Literal["bradley_terry", "plackett_luce"] = "bradley_terry",
        ties: Literal["ignore", "rao_kupper", "davidson"] = "ignore",
        tie_share: float = 0.3333,
        label_smoothing: float = 0.0,
        centre_coef: float = 0.0,
        group_heads: bool = False,
        zero: Literal["demonstrations", "samples", "none"] = "demonstrations",
        zero_rows: int = 512,
    ) -> None:
        check_option(loss in ("bradley_terry", "plackett_luce"), "loss", loss, "bradley_terry or plackett_luce")
        check_option(ties in ("ignore", "rao_kupper", "davidson"), "ties", ties, "ignore, rao_kupper or davidson")
        check_option(ties == "ignore" or loss == "bradley_terry", "ties", ties, f"ignore with loss={loss}")
        check_option(0 < tie_share < 1, "tie_share", tie_share, "a share between 0 and 1")
        check_option(
            tie_share == 0.3333 or ties != "ignore", "tie_share", tie_share, "0.3333 with ties=ignore, which trains none"
        )
        plain = loss == "bradley_terry" and ties == "ignore"
        check_option(label_smoothing == 0 or plain, "label_smoothing", label_smoothing, f"0 with loss={loss}, ties={ties}")
        self.loss_type, self.ties, self.tie_share = loss, ties, tie_share
        self.label_smoothing, self.centre_coef = check_loss_options(label_smoothing, centre_coef)
        self.zero, self.zero_rows = check_zero(zero, zero_rows)
        self.reads_ties = ties != "ignore"
        self.heads_by = "group" if group_heads else ""
        if zero == "samples":
            self.frozen = frozenset({"policy"})

    def loss(self, models: Models, batch: Batch) -> LossOutput:
        scores = models.scores("reward", batch)
        pairs = F.row_pairs(batch.row_index, batch.ties)
        first, second = scores[pairs.first], scores[pairs.second]
        if self.loss_type == "plackett_luce":
            loss = F.plackett_luce_loss(scores, batch.row_index, batch.ties).mean()
        else:
            loss = self._pairwise(first - second, pairs)
        if self.centre_coef > 0:
            loss = loss + self.centre_coef * pairs.mean((first + second).square())
        return LossOutput(loss, batch.count("rows"), *score_metrics(scores, batch, pairs))

    def _pairwise(self, difference: Any, pairs: Any) -> Any:
        """() the mean over rows of the mean over their pairs."""
        if self.ties == "rao_kupper":
            return pairs.mean(F.rao_kupper_loss(difference, pairs.tied, self.tie_share))
        if self.ties == "davidson":
            return pairs.mean(F.davidson_loss(difference, pairs.tied, self.tie_share))
        return pairs.mean(F.bradley_terry_loss(difference, self.label_smoothing), ~pairs.tied)

    def finish(self, models: Models, rows: Sequence[Row], ctx: CollectContext) -> str:
        return set_zero(self.zero, self.zero_rows, models, rows, ctx)


def check_loss_options(label_smoothing: float, centre_coef: float) -> tuple[float, float]:
    """As they came. ConfigError where they cannot work."""
    check_option(0 <= label_smoothing < 0.5, "label_smoothing", label_smoothing, "0 to below 0.5")
    check_option(0 <= centre_coef < float("inf"), "centre_coef", centre_coef, "0 or more")
    return label_smoothing, centre_coef


def check_zero(zero: str, zero_rows: int) -> tuple[str, int]:
    """As they came. ConfigError where they cannot work."""
    check_option(zero in ("demonstrations", "samples", "none"), "zero", zero, "demonstrations, samples or none")
    check_option(zero_rows >= 1, "zero_rows", zero_rows, "at least 1")
    return zero, zero_rows


def score_metrics(scores: Any, batch: Batch, pairs: Any) -> tuple[dict[str, Any], dict[str, int]]:
    """Means over rows, under the names of TRL's RewardTrainer; equal scores count half in `accuracy`.

    `accuracy` and `margin` are of the pairs that are not tied, over the rows that have such; their count is returned too.
    `min_reward` and `max_reward` are means over rows of the lowest and highest score.
    """
    scores, preferred = scores.detach(), ~pairs.tied
    difference = scores[pairs.first] - scores[pairs.second]
    right = (difference > 0).float() + 0.5 * (difference == 0).float()
    rows = int((pairs.kept(preferred) > 0).sum())
    share = batch.num_rows / max(1, rows)
    by_row = {how: scores.new_zeros(batch.num_rows) for how in ("mean", "amin", "amax")}
    for how, values in by_row.items():
        values.scatter_reduce_(0, batch.row_index, scores, how, include_self=False)
    metrics = {
        "accuracy": pairs.mean(right, preferred) * share,
        "margin": pairs.mean(difference, preferred) * share,
        "mean_reward": by_row["mean"].mean(),
        "min_reward": by_row["amin"].mean(),
        "max_reward": by_row["amax"].mean(),
    }
    return metrics, {"accuracy": rows, "margin": rows}


def set_zero(zero: str, most: int, models: Models, rows: Sequence[Row], ctx: CollectContext) -> str:
    """Shift scores so that known answers score 0 on average.

    demonstrations: the best response of each of the first `most` rows scores 0 on average (Stiennon et al. 2020, 3.4).
    samples: answers that the policy samples to the rows' prompts have mean 0 and standard deviation 1 (Ziegler et al.
        2019, section 2).
    A group's head is shifted by the rows of its own group.
    """
    if zero == "none":
        return ""
    chosen = list(rows[:most])
    known = ctx.generate(chosen) if zero == "samples" else [row.with_responses(row.responses[:1]) for row in chosen]
    return models.standardise("reward", known, ctx.scores("reward", known), unit_variance=zero == "samples")
