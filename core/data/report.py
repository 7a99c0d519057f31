"""What became of the data: rows read, rows left out and why, lengths, and what a person should know before training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from core.data.records import RowError
from core.rows import Row

SHOWN = 5
"""Bad rows that a message or the report spells out."""


@dataclass
class SplitReport:
    """Counts of one split. `dropped` and `changed`: reason -> rows.

    Attributes:
        source: files, name or "sandbox".
        format: as detected or given; kind: what the rows hold, once adapted to the objective.
        read: rows found, bad ones included; rows: what training gets.
        prompts: distinct prompts among `rows`.
        tokens: (median, 95th percentile, largest) tokens of prompt + longest response.
        trained: tokens whose mask is True.
        bad: the bad rows that `max_bad_rows` let pass.
    """

    name: str
    source: str = ""
    format: str = ""
    kind: str = ""
    read: int = 0
    rows: int = 0
    prompts: int = 0
    tokens: tuple[int, int, int] = (0, 0, 0)
    trained: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    bad: list[RowError] = field(default_factory=list)

    def measure(self, rows: Sequence[Row]) -> None:
        """Fill in what depends on the finished rows."""
        self.changed, self.dropped = +self.changed, +self.dropped
        self.rows = len(rows)
        self.prompts = len({row.prompt_text for row in rows})
        self.trained = sum(sum(r.mask) for row in rows for r in row.responses)
        lengths = sorted(len(row.prompt) + max((len(r.tokens) for r in row.responses), default=0) for row in rows)
        if lengths:
            self.tokens = (lengths[len(lengths) // 2], lengths[math.ceil(0.95 * len(lengths)) - 1], lengths[-1])

    def lines(self) -> list[str]:
        """One line with what is there, one with what was left out, one with what was changed; bad rows by place."""
        bare = self.kind == "prompts"
        distinct = "" if bare and self.prompts == self.rows else f" ({self.prompts:,} prompts)"
        what = f"{self.rows:,} {self.kind}{distinct} of {self.read:,} rows read, format {self.format}"
        median, most, longest = self.tokens
        sizes = f"; tokens a row: median {median}, 95 % {most}, longest {longest}" if longest else ""
        sizes += f"; {self.trained:,} trained" if longest and not bare else ""
        out = [f"Data, {self.name}: {what}, from {self.source}{sizes}."]
        for verb, counts in (("left out", self.dropped), ("changed or noted", self.changed)):
            if counts:
                parts = "; ".join(f"{count:,} {reason}" for reason, count in counts.items())
                out.append(f"Data, {self.name}, {verb}: {parts}.")
        out += [f"Data, {self.name}, bad row: {error.message}" for error in self.bad[:SHOWN]]
        return out


@dataclass
class DataReport:
    """Counts of both splits, and notes in whole sentences."""

    train: SplitReport = field(default_factory=lambda: SplitReport("train"))
    validation: SplitReport = field(default_factory=lambda: SplitReport("validation"))
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say something once."""
        if text and text not in self.notes:
            self.notes.append(text)

    def lines(self) -> list[str]:
        """For the log, in order of importance."""
        out = self.train.lines()
        if self.validation.read or self.validation.rows:
            out += self.validation.lines()
        return out + self.notes
