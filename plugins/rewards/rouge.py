"""ROUGE of one answer against its references, as F1 from 0 to 1.

    F1     = 2 * P * R / (P + R) = 2 * matches / (units of the answer + units of the reference)
    rouge1, rouge2    units: words, pairs of neighbouring words; matches: of each, the smaller of its two counts
    rougeL            units: words; matches: the length of the longest common subsequence of words

Words are runs of letters, marks and digits of any script, in lower case, not stemmed. Of several references the one
that gives the highest score counts. An empty answer is 0, and so is rouge2 of an answer of one word.

Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 2 (n-grams, several references) and
3.1 (longest common subsequence); its length by bit parallelism: Hyyrö 2004, "Bit-Parallel LCS-length Computation
Revisited", figure 2. Differs from the paper: F1 (beta = 1), as the package rouge-score has it. On texts in ASCII the
scores are that package's (0.1.2, without stemming); it drops every other letter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from core.api import ConfigError, RewardSource, Sample
from plugins.rewards.references import check_scale, references_of

_UNITS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}


class Rouge(RewardSource):
    """ROUGE-1, ROUGE-2 or ROUGE-L (F1) against the references of the data, 0 to 1."""

    api_version = 1
    needs = frozenset({"references"})

    def __init__(self, variant: Literal["rouge1", "rouge2", "rougeL"] = "rougeL", scale: float = 1.0) -> None:
        if variant not in _UNITS:
            raise ConfigError(f'reward.variant is "{variant}"; expected rouge1, rouge2 or rougeL.')
        check_scale(scale)
        self.variant, self.scale = variant, scale
        self.unit = _UNITS[variant] if scale == 1 else ""

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """One number per sample, `scale` times 0 to 1. DataError where a sample has no references."""
        found = []
        for sample in samples:
            response = words(sample.response)
            found.append(self.scale * max(self._f1(response, words(text)) for text in references_of(sample, "rouge")))
        return found

    def _f1(self, response: list[str], reference: list[str]) -> float:
        if self.variant == "rougeL":
            return f1(lcs_length(response, reference), len(response), len(reference))
        order = 1 if self.variant == "rouge1" else 2
        left, right = _ngrams(response, order), _ngrams(reference, order)
        return f1((left & right).total(), left.total(), right.total())


def words(text: str) -> list[str]:
    """Runs of letters, marks and digits in lower case: \"L'été, 2 fois\" -> [\"l\", \"été\", \"2\", \"fois\"]."""
    # The package regex, as \w of re leaves out the vowel signs of Indic scripts and so cuts their words.
    import regex

    found: list[str] = regex.findall(r"[\p{L}\p{M}\p{N}]+", text.lower())
    return found


def f1(matches: int, answered: int, expected: int) -> float:
    """F1 from the number of matches and the units of both texts; 0 where one has none."""
    return 2 * matches / (answered + expected) if answered and expected else 0.0


def _ngrams(tokens: list[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def lcs_length(left: Sequence[str], right: Sequence[str]) -> int:
    """The length of the longest common subsequence. One step of whole-number arithmetic per item of `right`.

    Bit i of `rows` is 0 where the table of the textbook rises by one between row i and row i + 1 (Hyyrö 2004).
    """
    places: dict[str, int] = {}
    for index, token in enumerate(left):
        places[token] = places.get(token, 0) | 1 << index
    full = (1 << len(left)) - 1
    rows = full
    for token in right:
        hits = rows & places.get(token, 0)
        rows = ((rows + hits) | (rows - hits)) & full
    return len(left) - rows.bit_count()
