"""What a source likes in the look of an answer, and whether the annotators like it too.

Of the pairs of which one answer has more of a trait (more words, more list points, ...), in what share does the source
prefer that one? Both answers are to one prompt, so what prompts differ in cancels.

    rate        = P(the source scores the answer with more of it higher), equal scores counted half
    correlation = 2 rate - 1: Kendall's tau of score and trait within a prompt
    given_label = the same, with the pairs whose better answer has more of it and those whose better one has less weighed
                  alike: what the trait moves beyond what the annotators' judgement explains
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.features import FEATURES
from core.preferences.bootstrap import Bootstrap, Estimate
from core.preferences.pairs import Floats, Table


class Traits:
    """The differences in traits of the ordered pairs, counted once and held against each source."""

    def __init__(self, bootstrap: Bootstrap, table: Table) -> None:
        self._bootstrap, self._table = bootstrap, table
        counted = {text: tuple(count(text) for count in FEATURES.values()) for text in set(table.texts)}
        values = np.array([counted[text] for text in table.texts], dtype=np.float64).reshape(-1, len(FEATURES))
        pairs = table.ordered
        more = np.sign(values[pairs.first] - values[pairs.second])
        self._more: dict[str, Floats] = {name: more[:, k] for k, name in enumerate(FEATURES)}
        self._people = {name: self._mean(np.where(m == 0, np.nan, (m > 0) + 0.0)) for name, m in self._more.items()}

    def people(self) -> dict[str, Any]:
        """{trait: {"rate", "correlation"}} of the annotators' own preference; traits that never differ are left out."""
        return {
            name: {"rate": rate.to_json(), "correlation": rate.scaled(2.0, -1.0).to_json()}
            for name, rate in self._people.items()
            if rate.value is not None
        }

    def of(self, correct: Floats) -> dict[str, Any]:
        """{trait: {"rate", "correlation", "given_label", "beyond_people"}} of a source that is `correct` on (n,) pairs.

        `beyond_people` is its rate minus the annotators' on the same pairs.
        """
        out: dict[str, Any] = {}
        for name, more in self._more.items():
            # Where the better answer has less of the trait, to be wrong is to prefer more of it.
            prefers = np.where(more == 0, np.nan, np.where(more > 0, correct, 1 - correct))
            rate = self._mean(prefers)
            if rate.value is None:
                continue
            people = self._mean(np.where(np.isfinite(prefers), more > 0, np.nan))
            with_more, with_less = self._sides(prefers, more)
            out[name] = {
                "rate": rate.to_json(),
                "correlation": rate.scaled(2.0, -1.0).to_json(),
                "given_label": with_more.mean_with(with_less).scaled(2.0, -1.0).to_json(),
                "beyond_people": rate.minus(people).to_json(),
            }
        return out

    def _mean(self, values: Floats) -> Estimate:
        pairs = self._table.ordered
        return self._bootstrap.mean(values, pairs.weight, pairs.prompt)

    def _sides(self, values: Floats, more: Floats) -> list[Estimate]:
        pairs = self._table.ordered
        part = np.where(more > 0, 0, 1).astype(np.int64)
        return self._bootstrap.means(values, pairs.weight, pairs.prompt, part, 2)
