"""chrF of one answer against its references, by sacrebleu, from 0 to 100: character n-grams, no tokenizer.

    chrF  = 100 * (1 + beta^2) * P * R / (beta^2 * P + R)
    P, R  = precision and recall of n-grams, each the mean over the orders that both texts have:
            characters 1..char_order, and words 1..word_order (word_order=2 is called chrF++)

Of several references the one that gives the highest score counts. An empty answer is 0.

Source: Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation", equation 1; Popović 2017, "chrF++:
words helping character n-grams"; Post 2018 (sacrebleu). Differs from the first paper: beta is 2 by default, as Popović
advised in 2016 ("chrF deconstructed"); orders that a text is too short for are left out (sacrebleu's eps_smoothing=False).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from core.api import ConfigError, RewardSource, Sample
from plugins.rewards.references import check_scale, need_package, references_of


class Chrf(RewardSource):
    """chrF or chrF++ against the references of the data (sacrebleu), 0 to 100."""

    api_version = 1
    needs = frozenset({"references"})

    def __init__(
        self,
        char_order: int = 6,
        word_order: int = 0,
        beta: float = 2.0,
        lowercase: bool = False,
        whitespace: bool = False,
        scale: float = 1.0,
    ) -> None:
        if char_order < 1:
            raise ConfigError(f"reward.char_order is {char_order}; expected 1 or more (chrF as published: 6).")
        if word_order < 0:
            raise ConfigError(f"reward.word_order is {word_order}; expected 0 (chrF), 1 or 2 (chrF++), or more.")
        if not beta > 0 or beta - beta != 0:
            raise ConfigError(f"reward.beta is {beta}; expected a number above 0: how much recall weighs over precision.")
        check_scale(scale)
        need_package("sacrebleu", "reward=chrf", "accordant[bleu]")
        self.scale = scale
        self.unit = ("chrF" + "+" * min(word_order, 2)) if scale == 1 else ""
        self._options = {
            "char_order": char_order,
            "word_order": word_order,
            "beta": beta,
            "lowercase": lowercase,
            "whitespace": whitespace,
        }

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """One number per sample, `scale` times 0 to 100. DataError where a sample has no references."""
        return [
            self.scale * float(self._metric.sentence_score(sample.response, references_of(sample, "chrf")).score)
            for sample in samples
        ]

    @cached_property
    def _metric(self) -> Any:
        from sacrebleu.metrics import CHRF

        return CHRF(**self._options)
