"""Margin reward model, as in Llama 2: pairs that people found clearly different must differ by more.

    loss = - log sigmoid(r(x, y+) - r(x, y-) - m(y+, y-))                 Touvron et al. 2023 (Llama 2), eq. 2

Where m comes from (`margins`):
    data          the rows' own margins, times `scale`
    small, large  a level's number in the paper's tables (Llama 2, table 27), from the column `level_column`
    a map         the same with your own numbers: {1: 0.0, 2: 0.5, 3: 1.0}
Differs from the paper: nothing. All else is reward_bt's, imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from core.api import Batch, CollectContext, Collects, DataError, LossOutput, Models, Objective, Reads, Row, check_option
from core.api import functional as F
from plugins.objectives.reward_bt import check_loss_options, check_zero, score_metrics, set_zero

SMALL = {"significantly better": 1.0, "better": 2 / 3, "slightly better": 1 / 3, "negligibly better": 0.0, "unsure": 0.0}
LARGE = {"significantly better": 3.0, "better": 2.0, "slightly better": 1.0, "negligibly better": 0.0, "unsure": 0.0}
"""Llama 2, table 27: the margin of each answer to "how much better is it?"."""


class RewardMargin(Objective):
    """Bradley-Terry reward model with margins (Llama 2), from pairs."""

    api_version = 1
    reads: Reads = "pairs"
    trains = frozenset({"reward"})
    collects: Collects = "once"
    generates = False
    mean_over = "rows"
    default_lr = 2e-5
    margins_may_miss = True

    def __init__(
        self,
        margins: Literal["data", "small", "large"] | Mapping[str, float] = "data",
        level_column: str = "preference_level",
        scale: float = 1.0,
        missing: Literal["error", "zero"] = "error",
        label_smoothing: float = 0.0,
        centre_coef: float = 0.0,
        group_heads: bool = False,
        zero: Literal["demonstrations", "samples", "none"] = "demonstrations",
        zero_rows: int = 512,
    ) -> None:
        table = {"small": SMALL, "large": LARGE}.get(margins) if isinstance(margins, str) else margins
        check_option(table is not None or margins == "data", "margins", margins, "data, small, large or a map of levels")
        check_option(0 < scale < float("inf"), "scale", scale, "a positive number")
        check_option(missing in ("error", "zero"), "missing", missing, "error or zero")
        usual = level_column == "preference_level"
        check_option(
            usual or margins != "data", "level_column", level_column, "preference_level with margins=data, which reads none"
        )
        self.table = None if table is None else {str(level): _number(level, value) for level, value in table.items()}
        self.level_column, self.scale, self.missing = level_column, scale, missing
        self.label_smoothing, self.centre_coef = check_loss_options(label_smoothing, centre_coef)
        self.zero, self.zero_rows = check_zero(zero, zero_rows)
        self.heads_by = "group" if group_heads else ""
        if zero == "samples":
            self.frozen = frozenset({"policy"})

    def collect(self, rows: Sequence[Row], ctx: CollectContext) -> Sequence[Row]:
        """The rows with the margins that the loss subtracts."""
        found = [self._margin(row) for row in rows]
        unknown = [row for row, margin in zip(rows, found, strict=True) if margin is None]
        if unknown and self.missing == "error":
            raise DataError(
                f"{unknown[0].source or unknown[0].id}:{self._column}: {len(unknown)} of {len(rows)} rows have no margin "
                f"(this is the first).",
                "Give all rows one, set objective.margins to a map of your levels, or objective.missing=zero.",
            )
        if unknown:
            ctx.note(f"{len(unknown)} of {len(rows)} rows have no margin; theirs is taken for 0.")
        return [
            row.with_responses(row.responses, margins=((margin or 0.0) * self.scale,), ties=row.ties)
            for row, margin in zip(rows, found, strict=True)
        ]

    @property
    def _column(self) -> str:
        return "margin" if self.table is None else self.level_column

    def _margin(self, row: Row) -> float | None:
        if self.table is None:
            return None if row.margins is None else row.margins[0]
        level = row.columns.get(self.level_column)
        if level is None:
            return None
        if str(level) not in self.table:
            raise DataError(
                f"{row.source or row.id}:{self.level_column}: is {level!r}; expected one of {', '.join(self.table)}.",
                "Set objective.margins to a map of your levels: {1: 0.0, 2: 0.5, 3: 1.0}.",
            )
        return self.table[str(level)]

    def loss(self, models: Models, batch: Batch) -> LossOutput:
        scores = models.scores("reward", batch)
        chosen, rejected = batch.pairs(scores)
        margins = batch.pairs(batch.margins)[0]
        loss = F.bradley_terry_loss(chosen - rejected, self.label_smoothing, margins).mean()
        if self.centre_coef > 0:
            loss = loss + self.centre_coef * (chosen + rejected).square().mean()
        pairs = F.row_pairs(batch.row_index, batch.ties)
        metrics, counts = score_metrics(scores, batch, pairs)
        return LossOutput(loss, batch.count("rows"), {**metrics, "asked_margin": margins.mean()}, counts)

    def finish(self, models: Models, rows: Sequence[Row], ctx: CollectContext) -> str:
        return set_zero(self.zero, self.zero_rows, models, rows, ctx)


def _number(level: Any, value: Any) -> float:
    check_option(
        isinstance(value, (int, float)) and 0 <= value < math.inf, f"margins.{level}", value, "a number of 0 or more"
    )
    return float(value)
