"""The prompts that policies answer, and the data's own answers to them: read once, tokenised for each policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.data.adapt import take
from core.data.config import DataConfig
from core.data.formats import Example
from core.data.load import read_validation
from core.data.report import DataReport, SplitReport
from core.data.tokenise import Tokeniser
from core.errors import DataError
from core.objective import Reads
from core.rows import Row

WORDS = {
    "demonstrations": "the data's answers",
    "pairs": "the chosen answers of the data",
    "rankings": "the best answers of the data",
    "prompts": "the references of the data",
}


@dataclass(frozen=True)
class Prompts:
    """What all policies of an evaluation are asked.

    Attributes:
        asked: distinct prompts, without responses.
        answered: the same prompts with one good answer of the data each; empty where the data has none.
        what: whose answers these are, in words.
        report: counts of the data.
    """

    asked: list[Example]
    answered: list[Example]
    what: str
    report: DataReport

    def rows(self, config: DataConfig, tokenizer: Any) -> list[Row]:
        """The prompts for one tokenizer, opened for the assistant to answer; a long one is cut, none is left out."""
        return self._rows(self.asked, config, tokenizer, "prompts")

    def own(self, config: DataConfig, tokenizer: Any) -> list[Row]:
        """The data's answers for one tokenizer."""
        return self._rows(self.answered, config, tokenizer, "demonstrations")

    def _rows(self, examples: Sequence[Example], config: DataConfig, tokenizer: Any, reads: Reads) -> list[Row]:
        whole = dataclasses.replace(config, mask="completion", overlong="truncate")
        rows = Tokeniser(whole, tokenizer, reads, DataReport(), keep_all=True).rows(examples, SplitReport("prompts"))
        assert len(rows) == len(examples)
        return rows


def read_prompts(config: DataConfig, most: int | None) -> Prompts:
    """The validation prompts, distinct, at most `most` (a sample that depends on the rows alone).

    Raises:
        DataError: ill-formed data, or fewer than two prompts.
    """
    examples, report = read_validation(config)
    distinct: dict[str, Example] = {}
    for example in examples:
        distinct.setdefault(example.prompt_key, example)
    chosen = take(list(distinct.values()), most)
    if len(chosen) < 2:
        raise DataError(
            f"{report.validation.source}: there is one prompt, and every interval is over prompts.", "Give two at least."
        )
    counts = report.validation
    if len(distinct) < len(examples):
        counts.dropped["rows whose prompt an earlier row has"] = len(examples) - len(distinct)
    if len(chosen) < len(distinct):
        counts.dropped["prompts beyond evaluate.prompts (a fixed sample is kept)"] = len(distinct) - len(chosen)
    kind = chosen[0].kind
    answered = [example for example in map(_answered, chosen) if example is not None]
    counts.dropped, counts.changed = +counts.dropped, +counts.changed
    counts.kind, counts.rows, counts.prompts = "prompts", len(chosen), len(chosen)
    asked = [dataclasses.replace(e, responses=(), margins=None, ties=None, kind="prompts") for e in chosen]
    return Prompts(asked, answered, WORDS[kind] if answered else "", report)


def _answered(example: Example) -> Example | None:
    """With its best answer alone; of a bare prompt the first reference. None where there is neither."""
    texts = example.responses or example.references
    if not texts or example.all_tied:
        return None
    return dataclasses.replace(example, responses=texts[:1], margins=None, ties=None, kind="demonstrations")
