"""A whole file as examples: one format, no id twice, margins in all rows or in none, bad rows counted up to a limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from core.data.formats import Example, Format, detect, digest
from core.data.parsers import parse
from core.data.records import Record, RowError
from core.data.report import SHOWN, SplitReport
from core.errors import DataError


class BadRows:
    """Collects bad rows; beyond `limit` the data is refused, with the first few of them spelt out."""

    def __init__(self, limit: int, report: SplitReport) -> None:
        self.limit, self.report = limit, report

    def add(self, error: RowError) -> None:
        """Count one more."""
        self.report.bad.append(error)
        if len(self.report.bad) >= self.limit + SHOWN:
            self.settle()

    def settle(self) -> None:
        """At the end of a file: raise where there were too many, else put them in the report."""
        bad = self.report.bad
        if len(bad) <= self.limit:
            return
        first, more = bad[0], bad[1:SHOWN]
        message = first.message + "".join(f"\n  {error.message}" for error in more)
        if self.limit:
            message += f"\n  ({len(bad)} bad rows or more; data.max_bad_rows is {self.limit})"
        raise DataError(message, first.hint or "Mend the row, or leave up to N bad rows out with data.max_bad_rows=N.")


def read_examples(
    records: Iterable[Record | RowError],
    report: SplitReport,
    *,
    format: Format | None = None,
    max_bad_rows: int = 0,
    ignore: Sequence[str] = (),
    margins_may_miss: bool = False,
) -> list[Example]:
    """Every good row of one source.

    Args:
        report: gets the counts.
        format: None = by the columns of the first good row; all rows must have that one.
        margins_may_miss: True = rows without a margin stand beside rows with one; else they are bad.
        max_bad_rows: more bad rows than this are an error.
        ignore: columns to read as if they were not there.

    Raises:
        DataError: too many bad rows, or none that is good.
    """
    bad = BadRows(max_bad_rows, report)
    examples = _unique_ids(list(_parsed(records, report, bad, format, ignore)), bad, report)
    examples = examples if margins_may_miss else _whole_margins(examples, bad)
    bad.settle()
    if not examples:
        raise DataError(f"{report.source}: no usable row among {report.read}.", "See the bad rows above.")
    if report.bad:
        report.dropped["bad rows"] = len(report.bad)
    if conflicts := count_conflicts(examples):
        report.changed["pairs that another row contradicts (kept)"] = conflicts
    return examples


def _parsed(
    records: Iterable[Record | RowError], report: SplitReport, bad: BadRows, format: Format | None, ignore: Sequence[str]
) -> Iterator[Example]:
    first, manner, given = "", None, format is not None
    for record in records:
        report.read += 1
        if isinstance(record, RowError):
            bad.add(record)
            continue
        if ignore:
            record = Record(record.where, {k: v for k, v in record.data.items() if k not in ignore})
        try:
            if format is None:
                format = detect(record)
            example = parse(record, format)
            if not given:
                _same_format(record, format, first)
            if manner is None:
                first, manner = record.where, example.messages is None
            elif manner != (example.messages is None):
                kinds = ("turns", "text") if manner else ("text", "turns")
                raise RowError(
                    record.where, "prompt", f"is {kinds[0]}, but {kinds[1]} in the first row ({first}).", _ONE_FORMAT
                )
        except RowError as error:
            bad.add(error)
            continue
        report.changed["rankings that held a text twice (the higher place is kept)"] += _doubled(record, example)
        yield example
    report.format = format or "unknown"


def _doubled(record: Record, example: Example) -> bool:
    return example.kind == "rankings" and len(record.data["responses"]) > len(example.responses)


_ONE_FORMAT = "One source has one format; split it into files and train on one of them."


def _same_format(record: Record, format: Format, first: str) -> None:
    """Another format among the rows: its extra columns would be lost without a word."""
    if (found := detect(record)) != format:
        raise RowError(record.where, "", f"has the format {found}, but the first row ({first}) has {format}.", _ONE_FORMAT)


def _unique_ids(examples: list[Example], bad: BadRows, report: SplitReport) -> list[Example]:
    """Given ids must differ; made ones (equal content) get a number."""
    seen: dict[str, str] = {}
    times: dict[str, int] = {}
    out = []
    for example in examples:
        if example.id in seen and not example.made_id:
            bad.add(
                RowError(example.source, "id", f"{example.id!r} is also the id of {seen[example.id]}.", "Make ids unique.")
            )
            continue
        if example.id in seen:
            times[example.id] = times.get(example.id, 1) + 1
            example = dataclasses.replace(example, id=f"{example.id}-{times[example.id]}")
            report.changed["rows with the same content as an earlier one (kept)"] += 1
        seen[example.id] = example.source
        out.append(example)
    return out


def _whole_margins(examples: list[Example], bad: BadRows) -> list[Example]:
    """Margins in all rows that express a preference, or in none: a loss must not treat "unknown" as a number."""
    without = {e.id for e in examples if e.margins is None and len(e.responses) > 1 and not e.all_tied}
    some = next((e.source for e in examples if e.margins is not None and not e.all_tied), None)
    if some is None:
        return examples
    for example in examples:
        if example.id in without:
            field = "margin" if example.kind == "pairs" else "scores"
            hint = f"Give all rows one, or do without: data.ignore=[{field}]"
            bad.add(RowError(example.source, field, f"is missing, but other rows have one (such as {some}).", hint))
    return [e for e in examples if e.id not in without]


def count_conflicts(examples: Iterable[Example]) -> int:
    """Pairs of which another row says the opposite."""
    seen: set[tuple[str, str, str]] = set()
    conflicts = 0
    for example in examples:
        if len(example.responses) != 2 or example.all_tied:
            continue
        a, b = (digest(text) for text in example.responses)
        conflicts += (example.prompt_key, b, a) in seen
        seen.add((example.prompt_key, a, b))
    return conflicts
