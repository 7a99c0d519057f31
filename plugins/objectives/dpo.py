"""Direct Preference Optimization: learn from pairs, with no reward model and no sampling in the loss.

    h    = [log pi(y+|x) - log ref(y+|x)] - [log pi(y-|x) - log ref(y-|x)]
    loss = - log sigmoid(beta h)                                          Rafailov et al. 2023, eq. 7

The implicit reward of a response is beta (log pi - log ref); of averages per token, where the loss compares averages
(loss=ipo, length_normalised). The anchor (`sft_coef`) is the mean over pairs of the chosen response's NLL per token.
Where the pairs come from (`pairs`):
    dataset     the data's own labels
    relabelled  the data's responses, in the order of the composed reward
    sampled     each epoch draws `samples` responses from the policy; the reward's best against its worst
    auto        dataset without a reward, sampled with one
Differs from the paper: nothing in the default; options are cited where their maths is (core.functional).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from core.api import (
    Batch,
    CollectContext,
    ConfigError,
    LossOutput,
    Models,
    Objective,
    Reads,
    RewardUse,
    Row,
    better,
    check_option,
    log_scores,
    ranked,
)
from core.api import functional as F


class DPO(Objective):
    """Direct Preference Optimization on labelled, relabelled or sampled pairs."""

    api_version = 1
    reads: Reads = "pairs"
    frozen = frozenset({"reference"})
    reward_use: RewardUse = "optional"
    mean_over = "rows"
    default_lr = 1e-6

    def __init__(
        self,
        beta: float = 0.1,
        loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid",
        label_smoothing: float = 0.0,
        length_normalised: bool = False,
        sft_coef: float = 0.0,
        pairs: Literal["auto", "dataset", "relabelled", "sampled"] = "auto",
        samples: int = 4,
        reference: Literal["cached", "live"] = "cached",
    ) -> None:
        check_option(0 < beta < float("inf"), "beta", beta, "a positive number")
        check_option(loss in ("sigmoid", "ipo", "hinge"), "loss", loss, "sigmoid, ipo or hinge")
        check_option(0 <= label_smoothing < 0.5, "label_smoothing", label_smoothing, "0 to below 0.5")
        check_option(label_smoothing == 0 or loss == "sigmoid", "label_smoothing", label_smoothing, f"0 with loss={loss}")
        check_option(0 <= sft_coef < float("inf"), "sft_coef", sft_coef, "0 or more")
        check_option(
            pairs in ("auto", "dataset", "relabelled", "sampled"), "pairs", pairs, "auto, dataset, relabelled or sampled"
        )
        check_option(samples >= 2, "samples", samples, "at least 2")
        check_option(reference in ("cached", "live"), "reference", reference, "cached or live")
        self.beta, self.loss_type, self.label_smoothing, self.sft_coef = beta, loss, label_smoothing, sft_coef
        self.length_normalised, self.pairs, self.samples, self.reference = length_normalised, pairs, samples, reference

    def bind(self, reward_name: str | None) -> str:
        """Resolve where pairs come from, and with it what is read and when it is collected."""
        if self.pairs == "auto":
            self.pairs = "dataset" if reward_name is None else "sampled"
        if self.pairs != "dataset" and reward_name is None:
            raise ConfigError(
                f"objective.pairs={self.pairs} needs a reward to order the responses, and reward=none.",
                "Compose one (reward=length), or use objective.pairs=dataset.",
            )
        self.reads = "prompts" if self.pairs == "sampled" else "pairs"
        if self.pairs == "dataset":
            self.reward_use = "measured"
        once = self.reference == "cached" or self.pairs == "relabelled"
        self.collects = "every_epoch" if self.pairs == "sampled" else "once" if once else "never"
        return {
            "dataset": "Pairs: the data's own labels; the reward is only measured."
            if reward_name
            else "Pairs: the data's labels.",
            "relabelled": f"Pairs: the data's responses, ordered by reward {reward_name}.",
            "sampled": f"Pairs: {self.samples} responses sampled per prompt each epoch, best against worst by "
            f"{reward_name}.",
        }[self.pairs]

    def collect(self, rows: Sequence[Row], ctx: CollectContext) -> Sequence[Row]:
        if self.pairs == "sampled":
            rows = ctx.score(ctx.generate(rows, n=self.samples))
            log_scores(ctx, rows)
        elif self.pairs == "relabelled":
            rows = ctx.score(rows)
        if self.pairs != "dataset":
            rows = best_against_worst(rows, ctx)
        if self.reference == "cached":
            rows = ctx.token_logps("reference", rows, "ref_logps", cache=self.pairs != "sampled")
        return rows

    def loss(self, models: Models, batch: Batch) -> LossOutput:
        tokens = models.token_scores("policy", batch)
        live = self.reference == "live"
        ref_tokens = models.token_logps("reference", batch) if live else batch["ref_logps"]
        average = self.length_normalised or self.loss_type == "ipo"
        logps = F.sequence_logps(tokens.logps, batch.mask, average=average)
        ref_logps = F.sequence_logps(ref_tokens, batch.mask, average=average)
        chosen, rejected = batch.pairs(logps)
        ref_chosen, ref_rejected = batch.pairs(ref_logps)
        loss = self._preference_loss(F.dpo_logits(chosen, rejected, ref_chosen, ref_rejected)).mean()
        if self.sft_coef > 0:
            nll = -batch.pairs(F.sequence_logps(tokens.logps, batch.mask, average=True))[0].mean()
            loss = loss + self.sft_coef * nll
        sums = F.sequence_logps(tokens.logps.detach(), batch.mask)
        log_ratios = sums - F.sequence_logps(ref_tokens, batch.mask)
        metrics = _metrics(batch, self.beta * log_ratios, sums, log_ratios)
        metrics["entropy"] = F.sequence_logps(tokens.entropy, batch.mask, average=True).mean()
        return LossOutput(loss, batch.count("rows"), metrics)

    def _preference_loss(self, logits: Any) -> Any:
        """(R,) the loss of each pair from its log-ratio difference."""
        if self.loss_type == "ipo":
            return F.dpo_ipo_loss(logits, self.beta)
        if self.loss_type == "hinge":
            return F.dpo_hinge_loss(logits, self.beta)
        return F.dpo_sigmoid_loss(logits, self.beta, self.label_smoothing)

    def diagnose(self, metrics: Mapping[str, float]) -> str:
        """The degenerate case: the margin grows while *both* likelihoods fall below the reference's."""
        if metrics["log_ratios/chosen"] >= -1.0 or metrics["log_ratios/rejected"] >= -1.0:
            return ""
        return (
            "Both chosen and rejected responses have become less likely than under the reference: DPO lowers the "
            "rejected ones faster, and the mass goes to answers nobody compared. Try objective.sft_coef=0.1 "
            "(an anchor on the chosen answers), a smaller optim.lr, or a larger objective.beta."
        )


def best_against_worst(rows: Sequence[Row], ctx: CollectContext) -> list[Row]:
    """Pairs of the best and the worst scored response of each row; rows that give no pair are left out and counted."""
    made: list[Row] = []
    for row in rows:
        scored = ranked(row.responses)
        if len(scored) < 2:
            continue
        (high, best), (low, worst) = scored[0], scored[-1]
        if better(high, low) == 1 and best.tokens != worst.tokens:
            made.append(row.with_responses([best, worst], margins=(high - low,)))
    if rows:
        ctx.log({"pairs/share": len(made) / len(rows)}, len(rows))
    if len(made) < len(rows):
        ctx.note(f"{len(rows) - len(made)} of {len(rows)} prompts gave no pair (equal scores, or no score).")
    return made


def _metrics(batch: Batch, rewards: Any, logps: Any, log_ratios: Any) -> dict[str, Any]:
    chosen, rejected = batch.pairs(rewards)
    logps_chosen, logps_rejected = batch.pairs(logps)
    ratios_chosen, ratios_rejected = batch.pairs(log_ratios)
    return {
        "rewards/chosen": chosen.mean(),
        "rewards/rejected": rejected.mean(),
        "rewards/margins": (chosen - rejected).mean(),
        "rewards/accuracies": ((chosen > rejected).float() + 0.5 * (chosen == rejected)).mean(),  # a tie is half right
        "logps/chosen": logps_chosen.mean(),
        "logps/rejected": logps_rejected.mean(),
        "log_ratios/chosen": ratios_chosen.mean(),
        "log_ratios/rejected": ratios_rejected.mean(),
    }
