"""Supervised finetuning: maximise the likelihood of demonstrations.

    loss = - (1 / n) sum_t m_t log pi(y_t | x, y_<t)          n = sum_t m_t over the whole optimizer step

The mask m says which tokens are learnt: all, the completion, the assistant's turns, or its last one (`data.mask`).
The mean is over tokens of the *whole* step, so it does not matter how the step is cut into micro-batches.
Source: any text on language models; label smoothing: Szegedy et al. 2016, section 7. Differs from them: nothing.
"""

from __future__ import annotations

from core.api import Batch, ConfigError, LossOutput, Models, Objective
from core.api import functional as F


class SFT(Objective):
    """Supervised finetuning on demonstrations."""

    api_version = 1
    reads = "demonstrations"
    mean_over = "tokens"
    default_lr = 2e-5

    def __init__(self, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"objective.label_smoothing is {label_smoothing}; expected 0 to below 1.")
        self.label_smoothing = label_smoothing

    def loss(self, models: Models, batch: Batch) -> LossOutput:
        tokens = models.token_scores("policy", batch)
        nll = F.smoothed_nll(tokens.logps, tokens.mean_logps, self.label_smoothing)
        metrics = {
            "entropy": F.masked_mean(tokens.entropy, batch.mask),
            "mean_token_accuracy": F.masked_mean(tokens.correct, batch.mask),
        }
        return LossOutput(F.masked_mean(nll, batch.mask), batch.count("tokens"), metrics)
