"""Identity preference optimization on labelled pairs, and nothing else.

    loss = (h - 1 / (2 tau))^2      h = chosen log-ratio - rejected log-ratio      Azar et al. 2023, eq. 17
"""

from __future__ import annotations

from collections.abc import Sequence

from core.api import Batch, CollectContext, LossOutput, Models, Objective, Row
from core.api import functional as F


class IPO(Objective):
    """Identity preference optimization, from outside."""

    api_version = 1
    reads = "pairs"
    frozen = frozenset({"reference"})
    collects = "once"
    mean_over = "rows"
    default_lr = 1e-6

    def __init__(self, tau: float = 0.1) -> None:
        if tau <= 0:
            raise ValueError(f"tau is {tau}; expected a positive number.")
        self.tau = tau

    def collect(self, rows: Sequence[Row], ctx: CollectContext) -> Sequence[Row]:
        return ctx.token_logps("reference", rows, "ref_logps", cache=True)

    def loss(self, models: Models, batch: Batch) -> LossOutput:
        logps = F.sequence_logps(models.token_logps("policy", batch), batch.mask)
        ref_logps = F.sequence_logps(batch["ref_logps"], batch.mask)
        chosen, rejected = batch.pairs(logps)
        ref_chosen, ref_rejected = batch.pairs(ref_logps)
        h = F.dpo_logits(chosen, rejected, ref_chosen, ref_rejected)
        return LossOutput(((h - 1 / (2 * self.tau)) ** 2).mean(), batch.count("rows"), {"h": h.detach().mean()})
