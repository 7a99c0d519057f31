"""The report on a reward: how far it agrees with the annotators, where it fails, and what it knows beyond length.

Pure arithmetic on rows and scores: no model, no torch, no plugin. docs/reward-report.md defines every number.

    report = preference_report(rows, {"rm": [[1.2, -0.3], ...], "length": [[52, 40], ...]},
                               main="rm", units={"rm": "log-odds", "length": "tokens"})
    print("\\n".join(preference_lines(report)))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.preferences.bootstrap import LEVEL, Bootstrap
from core.preferences.calibration import calibration
from core.preferences.lines import group_lines, preference_lines
from core.preferences.ordering import tau, ties
from core.preferences.pairs import Floats, Table, build_table
from core.preferences.slices import (
    Lengths,
    Partition,
    balanced,
    column_parts,
    gap,
    halves,
    lengths,
    margin_parts,
    named,
    on_parts,
)
from core.preferences.spread import names_of, spread
from core.preferences.traits import Traits
from core.preferences.verdict import FEW_PROMPTS, baseline_of, verdict
from core.rows import Row

__all__ = ["FEW_PROMPTS", "Scores", "baseline_of", "group_lines", "preference_lines", "preference_report"]

Scores = Sequence[Sequence[float | None]]
"""[row][response]: one score a response, None where the source abstains."""

LENGTH = "length"
VERSION = 1


def preference_report(
    rows: Sequence[Row],
    scores: Mapping[str, Scores],
    *,
    main: str,
    units: Mapping[str, str],
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Everything that is measured on a reward and its baselines, as plain JSON values without NaN.

    Args:
        rows: with their responses best first; `ties`, `margins` and `columns` (`group`, `annotator`, `preference_level`,
            `chosen_model`, `rejected_model`, `models`, `source`) are used where they are there.
        scores: source -> [row][response].
        main: the source under test; the others are what it is held against ("length" is, where it is given).
        units: source -> unit of its scores; "log-odds" are checked for calibration.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: `main` has no scores, or their shape is not that of the rows.
    """
    if main not in scores:
        raise ValueError(f"main={main!r} has no scores; there are scores of {', '.join(scores) or 'nothing'}.")
    table = build_table(rows)
    flat = {name: table.flat(scores[name], name) for name in [main, *(n for n in scores if n != main)]}
    measured = _Measured.of(table, flat, units, Bootstrap(table.prompts, resamples, seed))
    tied = len(table.tied)
    report: dict[str, Any] = {
        "version": VERSION,
        "main": main,
        "rows": len(rows),
        "prompts": table.prompts,
        "pairs": len(table.ordered),
        "tied_pairs": tied,
        "rankings": sum(len(row.responses) > 2 for row in rows),
        "level": LEVEL,
        "resamples": resamples,
        "seed": seed,
        "parts": {name: part.describe() for name, part in measured.partitions.items()},
        "length_measure": measured.lengths.measure,
        "people": measured.traits.people(),
        "sources": {name: measured.source(name, main, units.get(name, "")) for name in flat},
    }
    report["baseline"] = baseline_of(report)
    report["verdict"] = verdict(report)
    return report


@dataclass(frozen=True)
class _Measured:
    """What all sources are measured with: the same pairs, parts and draws."""

    table: Table
    flat: Mapping[str, Floats]
    bootstrap: Bootstrap
    correct: Mapping[str, Floats]
    partitions: Mapping[str, Partition]
    lengths: Lengths
    traits: Traits
    names: dict[str, Sequence[str | None]]

    @classmethod
    def of(cls, table: Table, flat: Mapping[str, Floats], units: Mapping[str, str], bootstrap: Bootstrap) -> _Measured:
        found = {"margin": margin_parts(table)} | {c: column_parts(table, c) for c in ("group", "annotator")}
        long = lengths(table, flat.get(LENGTH), units.get(LENGTH, ""))
        partitions = {name: part for name, part in found.items() if part is not None}
        correct = {name: _correct(table, values) for name, values in flat.items()}
        return cls(table, flat, bootstrap, correct, partitions, long, Traits(bootstrap, table), names_of(table))

    def source(self, name: str, main: str, unit: str) -> dict[str, Any]:
        table, boot, flat, correct = self.table, self.bootstrap, self.flat[name], self.correct[name]
        pairs = table.ordered
        even, sides = balanced(boot, table, correct, self.lengths.sides)
        found_tau = tau(boot, table, flat)
        delta = flat[pairs.first] - flat[pairs.second]
        return {
            "unit": unit,
            "scored": int(np.isfinite(flat).sum()),
            "abstained": int(np.isnan(flat).sum()),
            "accuracy": boot.mean(correct, pairs.weight, pairs.prompt).to_json(),
            "length_balanced": even.to_json(),
            **self._lead(name, main),
            "tau": found_tau.to_json() if found_tau is not None else None,
            **self._parts(correct),
            "length": {
                "ratio": named(self.lengths.parts.labels, on_parts(boot, table, correct, self.lengths.parts)),
                "chosen_longer": sides[0].to_json(),
                "chosen_shorter": sides[1].to_json(),
            },
            "calibration": calibration(boot, table, delta, correct) if unit == "log-odds" else None,
            "ties": ties(boot, table, flat),
            "scores": spread(table, flat, self.names),
            "traits": self.traits.of(correct),
        }

    def _lead(self, name: str, main: str) -> dict[str, Any]:
        """How far the main source leads this one, on the pairs that both scored; None of the main one itself."""
        if name == main:
            return {"difference": None, "difference_length_balanced": None}
        pairs = self.table.ordered
        lead = self.correct[main] - self.correct[name]
        even, _ = balanced(self.bootstrap, self.table, lead, self.lengths.sides)
        plain = self.bootstrap.mean(lead, pairs.weight, pairs.prompt)
        return {"difference": plain.to_json(), "difference_length_balanced": even.to_json()}

    def _parts(self, correct: Floats) -> dict[str, Any]:
        """{"margin": [...] or None, "group": {"parts": [...], "gap": ...} or None, "annotator": the same}."""
        out: dict[str, Any] = {"margin": None, "group": None, "annotator": None}
        for name, partition in self.partitions.items():
            estimates = on_parts(self.bootstrap, self.table, correct, partition)
            parts = named(partition.labels, estimates)
            out[name] = parts if name == "margin" else {"parts": parts, "gap": gap(partition.labels, estimates)}
        return out


def _correct(table: Table, flat: Floats) -> Floats:
    """(n,) 1 where the better response of an ordered pair scores higher, 0 where lower, one half where alike."""
    delta = flat[table.ordered.first] - flat[table.ordered.second]
    return halves(delta, np.isnan(delta))
