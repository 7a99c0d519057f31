"""BLEU of one answer against its references, by sacrebleu, from 0 to 100.

    BLEU = 100 * BP * exp(1/N * sum_{n=1..N} log p_n)
    p_n  = matching n-grams / n-grams of the answer; an n-gram matches at most as often as in the reference that has
           it most often
    BP   = 1 if c >= r else exp(1 - r/c)         c: words of the answer, r: of the reference nearest to it in length

An answer that is short or has no matching 4-gram has p_n = 0, and BLEU would be 0. Hence, for one answer:
    effective_order   N = the longest n-gram that the answer has, at most max_ngram_order (but see add-k)
    smooth_method     exp:   the k-th p_n without a match is 1 / (2^k * n-grams)        (method 3 below, NIST's)
                      floor: a p_n without a match is smooth_value / n-grams            (method 1)
                      add-k: for n > 1, smooth_value is added to both counts of p_n     (method 2, Lin and Och 2004);
                             in sacrebleu N stays max_ngram_order then, and an order that the answer lacks has p_n = 1
                      none:  0 stays 0, and so does the product
Where not one word matches, BLEU is 0 under every smoothing. An empty answer is 0.

Source: Papineni et al. 2002, "BLEU", section 2; Chen and Cherry 2014, "A Systematic Comparison of Smoothing Techniques
for Sentence-Level BLEU", section 3; Post 2018, "A Call for Clarity in Reporting BLEU Scores" (sacrebleu). Differs from
the paper: one answer at a time, where Papineni et al. sum the counts of a corpus first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from core.api import ConfigError, PluginError, RewardSource, Sample, nearest
from plugins.rewards.references import check_scale, need_package, references_of

TOKENIZERS: dict[str, tuple[str, str] | None] = {
    "13a": None,
    "intl": None,
    "char": None,
    "zh": None,
    "none": None,
    "ja-mecab": ("MeCab", "sacrebleu[ja]"),
    "ko-mecab": ("mecab_ko", "sacrebleu[ko]"),
    "spm": ("sentencepiece", "sentencepiece"),
    "flores101": ("sentencepiece", "sentencepiece"),
    "flores200": ("sentencepiece", "sentencepiece"),
    "spBLEU-1K": ("sentencepiece", "sentencepiece"),
}
"""sacrebleu's names -> (package, what pip installs) that one needs besides sacrebleu."""

_SMOOTHING = ("exp", "floor", "add-k", "none")
_VALUED = ("floor", "add-k")


class Bleu(RewardSource):
    """Sentence BLEU against the references of the data (sacrebleu), 0 to 100."""

    api_version = 1
    needs = frozenset({"references"})

    def __init__(
        self,
        smooth_method: Literal["exp", "floor", "add-k", "none"] = "exp",
        smooth_value: float | None = None,
        tokenize: str = "13a",
        lowercase: bool = False,
        effective_order: bool = True,
        max_ngram_order: int = 4,
        scale: float = 1.0,
    ) -> None:
        _check_smoothing(smooth_method, smooth_value)
        if tokenize not in TOKENIZERS:
            raise ConfigError(
                f'reward.tokenize is "{tokenize}", which is no tokenizer of sacrebleu.{nearest(tokenize, TOKENIZERS)}',
                f"Its tokenizers: {', '.join(TOKENIZERS)}.",
            )
        if max_ngram_order < 1:
            raise ConfigError(f"reward.max_ngram_order is {max_ngram_order}; expected 1 or more (BLEU as published: 4).")
        check_scale(scale)
        need_package("sacrebleu", "reward=bleu", "accordant[bleu]")
        if extra := TOKENIZERS[tokenize]:
            need_package(extra[0], f"reward.tokenize={tokenize}", extra[1])
        self.tokenize, self.scale = tokenize, scale
        self.unit = "BLEU" if scale == 1 else ""
        self._options = {
            "smooth_method": smooth_method,
            "smooth_value": smooth_value,
            "tokenize": tokenize,
            "lowercase": lowercase,
            "effective_order": effective_order,
            "max_ngram_order": max_ngram_order,
        }

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """One number per sample, `scale` times 0 to 100. DataError where a sample has no references."""
        return [self.scale * self._bleu(sample.response, references_of(sample, "bleu")) for sample in samples]

    def _bleu(self, response: str, references: list[str]) -> float:
        # sacrebleu says 0 too, but by way of whatever its tokenizer makes of nothing.
        return float(self._metric.sentence_score(response, references).score) if response.strip() else 0.0

    @cached_property
    def _metric(self) -> Any:
        from sacrebleu.metrics import BLEU

        try:
            return BLEU(**self._options)
        except (OSError, ImportError, RuntimeError) as error:  # spm and flores fetch their model, mecab its dictionary
            raise PluginError(
                f"reward.tokenize={self.tokenize}: sacrebleu cannot set it up ({type(error).__name__}: {error}).",
                "Models are fetched at the first use: go on-line once, or use reward.tokenize=13a, intl, zh or char.",
            ) from error


def _check_smoothing(method: str, value: float | None) -> None:
    if method not in _SMOOTHING:
        raise ConfigError(
            f'reward.smooth_method is "{method}"; expected one of {", ".join(_SMOOTHING)}.{nearest(method, _SMOOTHING)}'
        )
    if value is None:
        return
    if method not in _VALUED:
        raise ConfigError(
            f"reward.smooth_value is {value}, and smooth_method={method} has no use for it.",
            "Leave it null, or use reward.smooth_method=floor or add-k.",
        )
    if not value > 0 or value - value != 0:
        raise ConfigError(f"reward.smooth_value is {value}; expected a number above 0, or null.")
