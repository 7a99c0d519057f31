"""Data as it was, with one more column: records are read as examples, and written back with the scores of each response.

A record is kept as the text of its line, so that whatever it holds is written again; of the parsed example only what
rewards read is used. Responses are found again in the record's own order: (chosen, rejected), or that of `responses`.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from core.atomic import write_atomic
from core.data import sandbox
from core.data.adapt import take
from core.data.config import DataConfig
from core.data.examples import read_examples
from core.data.formats import Example, Format
from core.data.records import HubOptions, Record, RowError, read_records
from core.data.report import DataReport, SplitReport
from core.data.turns import check_answer
from core.errors import ConfigError, DataError
from core.rows import Response, Row
from core.settings import Evaluate

SCORED = "scored.jsonl"
_NO_ANSWER = "A prompt alone has nothing to score: give completion, chosen and rejected, responses or messages."
# Columns by which formats are told: a score under such a name would change what the file is.
_KNOWN = frozenset(
    {
        *("id", "prompt", "completion", "label", "messages", "conversations", "system", "text", "reference", "references"),
        *("chosen", "rejected", "response_a", "response_b", "margin", "tie", "majority", "responses", "scores", "ties"),
    }
)


@dataclass(frozen=True)
class Item:
    """One good record.

    Attributes:
        line: the record as JSON.
        example: what it says.
        order: for each response of the record, its index in `example.responses`; of one response: ().
    """

    line: str
    example: Example
    order: tuple[int, ...]


def output_path(config: Mapping[str, Any], folder: Path) -> Path:
    """Where the data with its scores goes; `folder` is the run's. Makes the folder that it goes into.

    Raises:
        ConfigError: there is a file already, or formats of data know the column by its name.
    """
    options = Evaluate(**config["evaluate"])
    if options.field in _KNOWN:
        raise ConfigError(
            f"evaluate.field={options.field} is a column that data formats know by this name.",
            "Give another, such as my_scores.",
        )
    if options.output is None:
        return folder / SCORED
    path = Path(options.output).expanduser()
    _refuse_existing(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"evaluate.output={path}: its folder cannot be made ({error.strerror}).", "Give another path."
        ) from error
    return path


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ConfigError(
            f"evaluate.output={path} exists, and nothing is overwritten.", "Give another path, or move that one away."
        )


def read_items(config: DataConfig, field: str, report: SplitReport) -> list[Item]:
    """The good records of a source in their order, at most `data.limit`; `report` says what became of the others.

    Raises:
        DataError: ill-formed data, more than `data.max_bad_rows` bad rows, no responses in it, a value that JSON has no
            word for, or a record that has the column `field` already.
    """
    seen: list[_Seen] = []

    def kept(records: Iterable[Record | RowError]) -> Iterator[Record | RowError]:
        for record in records:
            if isinstance(record, Record):
                _refuse_column(record, field)
                try:
                    seen.append(_Seen(record.where, _line(record), record.data.get("responses")))
                except RowError as error:
                    yield error
                    continue
            yield record

    sandboxed = config.name == "sandbox"
    format = None if config.format == "auto" or sandboxed else cast(Format, config.format)
    report.source = "sandbox[test]" if sandboxed else _named(config.path)
    examples = read_examples(
        kept(_sandbox(config) if sandboxed else read_records(config.path or (), _hub(config))),
        report,
        format=format,
        max_bad_rows=config.max_bad_rows,
        ignore=config.ignore,
        margins_may_miss=True,
    )
    if examples[0].kind == "prompts":
        raise DataError(f"{report.source}: these are prompts without answers (format {report.format}).", _NO_ANSWER)
    items = list(_joined(seen, examples))
    if config.limit is not None and config.limit < len(items):
        report.dropped["rows beyond the limit (a fixed sample is kept)"] = len(items) - config.limit
        chosen = {id(example) for example in take(examples, config.limit)}
        items = [item for item in items if id(item.example) in chosen]
    report.kind, report.rows = examples[0].kind, len(items)
    report.prompts = len({item.example.prompt_key for item in items})
    report.changed, report.dropped = +report.changed, +report.dropped
    return items


@dataclass(frozen=True)
class _Seen:
    """A record before anybody knows whether it is good. `responses`: its column of that name, as it is."""

    where: str
    line: str
    responses: Any


def _refuse_column(record: Record, field: str) -> None:
    if field in record.data:
        raise DataError(
            f"{record.where}:{field}: the data has this column already, and nothing is overwritten.",
            "Give another column to write to, such as evaluate.field=new_scores.",
        )


def _joined(seen: Sequence[_Seen], examples: Sequence[Example]) -> Iterator[Item]:
    """Each example with its record: both are in the order of the file, and bad records have no example."""
    records = iter(seen)
    for example in examples:
        record = next(record for record in records if record.where == example.source)
        order: tuple[int, ...] = tuple(range(len(example.responses))) if len(example.responses) > 1 else ()
        if example.kind == "rankings":  # a text that stands there twice is one response with one score
            order = tuple(example.responses.index(check_answer("responses", text)) for text in record.responses)
        yield Item(record.line, example, order)


def _sandbox(config: DataConfig) -> Iterator[Record | RowError]:
    """Pairs of the test split; rankings where their size is set, demonstrations where their quality is."""
    if not config.validation_rows:
        raise ConfigError("data.validation_rows is 0, so there is nothing to score.", "Give data.validation_rows=200.")
    kind = "demonstrations" if config.quality else "rankings" if config.responses else "pairs"
    made = sandbox.records(kind, "test", config.seed, config.validation_rows, **config.sandbox_options())
    for number, data in enumerate(made, start=1):
        yield Record(f"sandbox[test]:{number}", data)


def _hub(config: DataConfig) -> HubOptions:
    return HubOptions(config.split, config.config_name, config.revision, ask=config.name == "hub")


def _named(path: str | Sequence[str] | None) -> str:
    return path if isinstance(path, str) else ", ".join(path or ())


# -- rows --------------------------------------------------------------------------------------------------------------


def rows_of(items: Sequence[Item], config: DataConfig, tokenizer: Any = None) -> list[Row]:
    """The items as rows, texts whole. Without a tokenizer the prompt is one dummy token, and responses have none."""
    if tokenizer is not None:
        return _tokenised(items, config, tokenizer)
    return [
        Row(
            id=e.id,
            prompt=[0],
            responses=tuple(Response([], [], text) for text in e.responses),
            prompt_text=e.prompt_text,
            messages=e.messages,
            margins=e.margins,
            ties=e.ties,
            references=e.references,
            columns=e.columns,
            source=e.source,
        )
        for e in (item.example for item in items)
    ]


def _tokenised(items: Sequence[Item], config: DataConfig, tokenizer: Any) -> list[Row]:
    from core.data.tokenise import Tokeniser

    # No answer is cut, and none is left out: what is scored is what the file says.
    whole = dataclasses.replace(config, max_length=_NO_LIMIT, max_prompt_length=None, mask="completion")
    kind = items[0].example.kind
    reads = "demonstrations" if kind == "text" else kind
    rows = Tokeniser(whole, tokenizer, reads, DataReport()).rows([i.example for i in items], SplitReport("tokenised"))
    assert len(rows) == len(items)
    return rows


_NO_LIMIT = 2**40


# -- writing -----------------------------------------------------------------------------------------------------------

Table = Sequence[Sequence[float | None]]
"""[row][response of the example]."""


def write_scored(path: Path, items: Sequence[Item], field: str, scores: Mapping[str, Table]) -> None:
    """One line for each item: its record, then `field` with {label: number}, or {label: [numbers]} for several responses.

    The file is there whole or not at all.

    Raises:
        ConfigError: it exists already.
    """
    _refuse_existing(path)
    lines = (_with_scores(item, field, {k: table[i] for k, table in scores.items()}) for i, item in enumerate(items))
    data = "".join(f"{line}\n" for line in lines).encode()
    # No time in the gzip header: the same scores are the same file.
    write_atomic(path, gzip.compress(data, compresslevel=6, mtime=0) if path.suffix == ".gz" else data)


def _with_scores(item: Item, field: str, scores: Mapping[str, Sequence[float | None]]) -> str:
    value = {label: [given[k] for k in item.order] if item.order else given[0] for label, given in scores.items()}
    return f"{item.line[:-1]}, {_json(field)}: {_json(value)}}}"


def _line(record: Record) -> str:
    """The record as JSON, its keys in their order. RowError for what JSON has no word for."""
    try:
        return _json(record.data)
    except (TypeError, ValueError):
        return _json({name: _plain(value, record.where, name) for name, value in record.data.items()})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _plain(value: Any, where: str, name: str) -> Any:
    """What tables hold besides JSON's own: times and decimals as text, NaN (how tables say "nothing") as null."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item, where, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, where, f"{name}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, datetime.timedelta)):
        return str(value)
    raise RowError(where, name, f"holds a {type(value).__name__}, which a line of JSON cannot.", "Leave the column out.")
