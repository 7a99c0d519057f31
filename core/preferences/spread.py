"""Where a source's scores lie: chosen and rejected responses, and by who wrote them (the pictures of Llama 2, sect. 3.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from core.preferences.bootstrap import rounded
from core.preferences.pairs import Bools, Floats, Table, column_values, ranks

_BINS = 24
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MOST_NAMES = 40


def spread(table: Table, flat: Floats, names: dict[str, Sequence[str | None]]) -> dict[str, Any] | None:
    """Histogram and quantiles of one source's scores; None where it scored nothing.

    `chosen` are the best responses of their rows, `rejected` those that some other one of the row was judged better than.
    Scores in the outer half per cent are counted in the first and the last bin, so that one outlier does not flatten all.

    Args:
        names: column -> (N,) name of each response, as `names_of` gives them.
    """
    known = np.isfinite(flat)
    if not known.any():
        return None
    chosen, rejected = _sides(table)
    low, high = (float(x) for x in np.quantile(flat[known], [0.005, 0.995]))
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    sides = {"chosen": chosen & known, "rejected": rejected & known}
    return {
        "all": _summary(flat[known]),
        **{side: _summary(flat[mask]) for side, mask in sides.items()},
        "edges": [rounded(edge) for edge in edges],
        "histogram": {side: np.histogram(np.clip(flat[mask], low, high), edges)[0].tolist() for side, mask in sides.items()},
        "by": {column: _by_name(flat, known, said) for column, said in names.items()},
    }


def names_of(table: Table) -> dict[str, Sequence[str | None]]:
    """(N,) who wrote each response (`chosen_model` and `rejected_model`, `models`), and where its row is from (`source`)."""
    authors: list[str | None] = []
    origins: list[str | None] = []
    for row, origin in zip(table.rows, table.labels("source"), strict=True):
        count = len(row.responses)
        said = column_values(row.columns, "models", count)
        pair = [row.columns.get(f"{side}_model") for side in ("chosen", "rejected")]
        if said is None and count == 2 and all(isinstance(name, str) for name in pair):
            said = [str(name) for name in pair]
        authors += said if said is not None else [None] * count
        origins += [origin] * count
    found = {"model": authors, "source": origins}
    return {column: said for column, said in found.items() if len(set(said) - {None}) > 1}


def _sides(table: Table) -> tuple[Bools, Bools]:
    best = np.array([place == 0 for row in table.rows for place in ranks(row)], dtype=np.bool_)
    compared = np.repeat(
        np.array([len(set(ranks(row))) > 1 for row in table.rows], dtype=np.bool_), [len(r.responses) for r in table.rows]
    )
    return best & compared, ~best


def _by_name(flat: Floats, known: Bools, said: Sequence[str | None]) -> list[dict[str, Any]]:
    """The commonest names, by their median score, highest first."""
    counts = Counter(name for name, seen in zip(said, known, strict=True) if seen and name is not None)
    labels = np.array(["" if name is None else name for name in said], dtype=object)
    rows = [{"label": name, **_summary(flat[known & (labels == name)])} for name, _ in counts.most_common(_MOST_NAMES)]
    return sorted(rows, key=lambda row: (-row["quantiles"][2], -row["mean"]))


def _summary(values: Floats) -> dict[str, Any]:
    """{"count", "mean", "std", "quantiles": [5, 25, 50, 75, 95 %]}; numbers are None where there are no values."""
    if not len(values):
        return {"count": 0, "mean": None, "std": None, "quantiles": [None] * len(_QUANTILES)}
    quantiles = [rounded(float(q)) for q in np.quantile(values, _QUANTILES)]
    mean, std = rounded(float(values.mean())), rounded(float(values.std()))
    return {"count": len(values), "mean": mean, "std": std, "quantiles": quantiles}
