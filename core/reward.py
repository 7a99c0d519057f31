"""Reward sources: text in, numbers out. They know nothing of the objective that uses them.

A reward source is a plugin of the entry-point group `accordant.rewards`. Its config is its constructor.
The same source labels pairs for DPO, picks the best of K, is PPO's signal, and is measured in evaluation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from core.rows import Message, Row


@dataclass(frozen=True)
class Sample:
    """One prompt with one response, as a reward source sees it.

    Attributes:
        prompt: the prompt as a person reads it.
        response: the answer as a person reads it, without special tokens.
        tokens: (T,) token ids of the answer under the policy's tokenizer, the stop token included.
        messages: the prompt as turns, where the data is conversational; else None.
        references: texts of good answers; empty where the data has none.
        columns: every other column of the data row.
        finished: False where the answer was cut at the length limit.
        row_id: the row it belongs to; samples of one row share it.
    """

    prompt: str
    response: str
    tokens: Sequence[int] = ()
    messages: tuple[Message, ...] | None = None
    references: tuple[str, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    finished: bool = True
    row_id: str = ""


class RewardSource(ABC):
    """Scores answers. Higher is better, always; negate inside if your quantity is a cost.

    Declarations (class attributes):
        api_version: the plugin contract this class was written for (core.API_VERSION).
        needs: columns that the data must have ("references" is one); checked before training starts.
        unit: what one point of score is, for reports ("tokens", "BLEU", "log-odds", "").
    """

    api_version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset()
    unit: str = ""  # an instance may say more exactly

    @abstractmethod
    def score(self, samples: Sequence[Sample]) -> Sequence[float | None]:
        """One finite number per sample, in order; None = this source does not apply to that sample.

        Pure: the same samples give the same scores, in any order and in batches of any size, unless the
        source says otherwise in its docstring (a running normaliser does).
        """


def samples_of(row: Row) -> list[Sample]:
    """The samples of a row, one for each of its responses."""
    return [
        Sample(
            prompt=row.prompt_text,
            response=response.text,
            tokens=response.tokens,
            messages=row.messages,
            references=row.references,
            columns=row.columns,
            finished=response.finished,
            row_id=row.id,
        )
        for response in row.responses
    ]
