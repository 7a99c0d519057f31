"""Rows as pairs: every two responses of a row that were judged, laid out as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core.rows import Row

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """n pairs of responses, the better one first (of equal ones: the one that stands first).

    Attributes:
        first, second: (n,) index of the response in the flat list of all responses.
        row: (n,) index of the row.
        prompt: (n,) index of the prompt; rows with the same prompt share it.
        weight: (n,) 1 / the number of such pairs in the row, so that the pairs of a row together weigh one.
        margin: (n,) how much better the first is, in the data's unit; NaN = unknown.
    """

    first: Ints
    second: Ints
    row: Ints
    prompt: Ints
    weight: Floats
    margin: Floats

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Table:
    """All rows of a report.

    Attributes:
        rows: R rows, responses best first.
        texts: (N,) the text of every response of every row, in order.
        start: (R,) where a row's responses begin in `texts`.
        prompt: (R,) index of the prompt of a row.
        prompts: how many different prompts there are.
        ordered: pairs of which one response was judged better.
        tied: pairs judged equal.
    """

    rows: Sequence[Row]
    texts: list[str]
    start: Ints
    prompt: Ints
    prompts: int
    ordered: Pairs
    tied: Pairs

    def flat(self, scores: Sequence[Sequence[float | None]], name: str) -> Floats:
        """(N,) the scores of a source, NaN where it abstains or gave no finite number.

        Raises:
            ValueError: another number of rows, or of scores in a row, than the table has.
        """
        if len(scores) != len(self.rows):
            raise ValueError(f"{len(self.rows)} rows but scores[{name!r}] of {len(scores)}; one list a row is needed.")
        for row, given in zip(self.rows, scores, strict=True):
            if len(given) != len(row.responses):
                raise ValueError(
                    f"Row {row.id!r}: {len(row.responses)} responses but {len(given)} scores of {name!r}; "
                    "one score (or None) a response is needed."
                )
        flat = np.array([np.nan if s is None else s for given in scores for s in given], dtype=np.float64)
        return np.where(np.isfinite(flat), flat, np.nan)

    def labels(self, column: str) -> list[str | None]:
        """(R,) what a column says of each row, as text; None where it says nothing."""
        return [_text(row.columns.get(column)) for row in self.rows]


def build_table(rows: Sequence[Row]) -> Table:
    """The rows with their pairs: (i, j) is ordered where i stands before j and they are not judged equal."""
    counts = np.array([len(row.responses) for row in rows], dtype=np.int64)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])[:-1]
    known: dict[tuple[Any, ...], int] = {}
    prompt = np.array([known.setdefault(_prompt_key(row), len(known)) for row in rows], dtype=np.int64)
    found: dict[bool, list[tuple[int, int, int, float, float]]] = {False: [], True: []}
    for index, row in enumerate(rows):
        pairs = list(_pairs_of(row))
        for tied, into in found.items():
            chosen = [(i, j, margin) for i, j, equal, margin in pairs if equal is tied]
            into += [(index, i, j, 1.0 / len(chosen), margin) for i, j, margin in chosen]
    ordered, equal = (_laid_out(found[tied], start, prompt) for tied in (False, True))
    texts = [response.text for row in rows for response in row.responses]
    return Table(rows, texts, start, prompt, len(known), ordered, equal)


def ranks(row: Row) -> list[int]:
    """(K,) the place of each response, 0 = best; responses judged equal share one."""
    places = [0] if row.responses else []
    for k in range(1, len(row.responses)):
        places.append(places[-1] + (0 if row.ties is not None and row.ties[k - 1] else 1))
    return places


def _pairs_of(row: Row) -> list[tuple[int, int, bool, float]]:
    place, count = ranks(row), len(row.responses)
    # Neighbours' margins add up: the second is m1 below the first, the third m1 + m2.
    height = None if row.margins is None else np.concatenate([[0.0], np.cumsum(row.margins)])
    return [
        (i, j, place[i] == place[j], float(height[j] - height[i]) if height is not None else np.nan)
        for i in range(count)
        for j in range(i + 1, count)
    ]


def _laid_out(found: list[tuple[int, int, int, float, float]], start: Ints, prompt: Ints) -> Pairs:
    columns = np.array(found, dtype=np.float64).reshape(-1, 5).T
    row, i, j = (c.astype(np.int64) for c in columns[:3])
    return Pairs(start[row] + i, start[row] + j, row, prompt[row], columns[3], columns[4])


def _prompt_key(row: Row) -> tuple[Any, ...]:
    """What makes two rows' prompts the same; tokens where there is no text (rows made by a program)."""
    return ("text", row.prompt_text) if row.prompt_text else ("tokens", *row.prompt)


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, (list, dict, tuple)) or str(value).strip() == "" else str(value)


def column_values(columns: Mapping[str, Any], name: str, count: int) -> list[str] | None:
    """A column that holds one text a response; None where it does not."""
    value = columns.get(name)
    if not isinstance(value, (list, tuple)) or len(value) != count:
        return None
    return [_text(item) or "?" for item in value]
