"""From a config to rows: read, check, adapt to the objective, split, tokenise. The report says what became of every row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from core.data.adapt import adapt, check_reads, split_by_prompt, take
from core.data.config import DataConfig
from core.data.examples import read_examples
from core.data.formats import Example, Format
from core.data.records import HubOptions, Record, RowError, read_records
from core.data.report import DataReport, SplitReport
from core.data.tokenise import CUT_PROMPT, CUT_RESPONSE, GLUED, NOT_PREFIX, Tokeniser
from core.errors import DataError
from core.objective import Reads
from core.rows import Row

__all__ = ["Data", "DataConfig", "DataReport", "check_data", "load_data", "read_validation"]


@dataclass(frozen=True)
class Data:
    """What a run trains on and measures with.

    Attributes:
        train, validation: rows as the objective reads them; validation may be empty.
        report: counts, lengths, notes; `report.lines()` for the log.
        prompts: the distinct prompts of the validation rows (else of the training rows), without responses, opened for
            the assistant to answer. They differ from `row.prompt` where data.mask trains a part of the prompt too.
    """

    train: list[Row]
    validation: list[Row]
    report: DataReport
    prompts: list[Row] = field(default_factory=list)


def load_data(config: DataConfig, tokenizer: Any, reads: Reads, *, margins_may_miss: bool = False) -> Data:
    """Rows for an objective that reads `reads` ("prompts", "demonstrations", "pairs" or "rankings").

    With `margins_may_miss`, some rows may have a margin and others not.

    Raises:
        DataError: ill-formed data (file:line:field), too many bad rows, rows of another kind, nothing left.
        ConfigError: a mask that such rows cannot have.
    """
    report = DataReport()
    train, validation = _examples(config, reads, report, margins_may_miss)
    tokeniser = Tokeniser(config, tokenizer, reads, report)
    rows = tokeniser.rows(train, report.train), tokeniser.rows(validation, report.validation)
    prompts = _prompts(config, tokenizer, validation or train, rows[1] or rows[0])
    _advise(config, report)
    return Data(*rows, report, prompts)


def read_validation(config: DataConfig) -> tuple[list[Example], DataReport]:
    """The validation examples as the data has them, responses included, without a tokenizer.

    Where the data has none, the training examples (the report's notes say so). The sandbox gives demonstrations, rankings
    where their size is set.

    Raises:
        DataError: ill-formed data, too many bad rows, or texts without prompts.
    """
    report = DataReport()
    counts = report.validation
    if _has_validation(config):
        reads: Reads | None = ("rankings" if config.responses else "demonstrations") if config.name == "sandbox" else None
        examples = _read(config, reads, "validation", counts, margins_may_miss=True)
    else:
        train, examples = _sources(config, None, report, margins_may_miss=True)
        if not examples:
            report.note("The data has no validation rows: the prompts are those of its training rows.")
            examples, report.validation = train, dataclasses.replace(report.train, name="prompts")
            counts = report.validation
    if examples[0].kind == "text":
        raise DataError(
            f"{counts.source}: these are texts without prompts (format {counts.format}).",
            "A policy answers prompts: give a column prompt, or messages.",
        )
    if config.validation_limit == 0:
        raise DataError("data.validation_limit is 0, so there is no prompt.", "Give another, or leave it out.")
    counts.kind = examples[0].kind
    return take(examples, config.validation_limit), report


def check_data(config: DataConfig, reads: Reads | None = None) -> DataReport:
    """Read and check everything that can be checked without a tokenizer. Raises DataError as `load_data` does.

    With `reads`, the rows must also be such as the objective can read.
    """
    report = DataReport()
    for counts, examples in zip((report.train, report.validation), _sources(config, reads, report), strict=True):
        if examples and reads is not None:
            check_reads(examples, reads, counts)
        counts.kind, counts.rows = examples[0].kind if examples else "", len(examples)
        counts.prompts = len({e.prompt_key for e in examples})
    return report


def _examples(
    config: DataConfig, reads: Reads, report: DataReport, margins_may_miss: bool
) -> tuple[list[Example], list[Example]]:
    """Training and validation examples as the objective reads them, within the limits."""
    train, validation = _sources(config, reads, report, margins_may_miss)
    train = adapt(train, reads, report.train, keep_ties=config.keep_ties)
    if validation:
        validation = adapt(validation, reads, report.validation, keep_ties=config.keep_ties)
    for examples, limit, counts in (
        (train, config.limit, report.train),
        (validation, config.validation_limit, report.validation),
    ):
        if limit is not None and limit < len(examples):
            counts.dropped["rows beyond the limit (a fixed sample is kept)"] = len(examples) - limit
    train, validation = take(train, config.limit), take(validation, config.validation_limit)
    if not train:
        raise DataError(f"{report.train.source}: no row is left to train on.", "See what was left out, or get more data.")
    known = {e.prompt_key for e in train}
    if shared := sum(e.prompt_key in known for e in validation):
        report.note(f"{shared:,} of {len(validation):,} validation rows have a prompt that is trained on too.")
    return train, validation


def _sources(
    config: DataConfig, reads: Reads | None, report: DataReport, margins_may_miss: bool = False
) -> tuple[list[Example], list[Example]]:
    """All examples of both splits. Without a validation source, a share of the prompts where the config says so."""
    train = _read(config, reads, "train", report.train, margins_may_miss)
    if _has_validation(config):
        return train, _read(config, reads, "validation", report.validation, margins_may_miss)
    if not config.validation_fraction:
        return train, []
    train, validation = split_by_prompt(train, config.validation_fraction)
    if not train:
        hint = "Change data.validation_fraction, or give data.validation_path."
        raise DataError(
            f"{report.train.source}: every prompt fell to validation (fraction {config.validation_fraction}).", hint
        )
    if not validation:
        report.note("No prompt fell to validation: there are too few. Give data.validation_path to measure on other rows.")
        return train, []
    report.validation.source, report.validation.format = report.train.source, report.train.format
    report.validation.read = len(validation)
    report.train.read -= len(validation)
    return train, validation


def _has_validation(config: DataConfig) -> bool:
    if config.name == "sandbox":
        return config.validation_rows > 0
    return bool(config.validation_path or config.validation_split)


def _read(config: DataConfig, reads: Reads | None, split: str, counts: SplitReport, margins_may_miss: bool) -> list[Example]:
    format = None if config.format == "auto" or config.name == "sandbox" else cast(Format, config.format)
    if config.name == "sandbox":
        counts.source, records = "sandbox", _sandbox(config, reads or "pairs", split)
    else:
        path = config.path if split == "train" else config.validation_path or config.path
        counts.source = path if isinstance(path, str) else ", ".join(path or ())
        records = read_records(path or (), _hub(config, split))
    return read_examples(
        records,
        counts,
        format=format,
        max_bad_rows=config.max_bad_rows,
        ignore=config.ignore,
        margins_may_miss=margins_may_miss,
    )


def _hub(config: DataConfig, split: str) -> HubOptions:
    chosen = config.split if split == "train" else config.validation_split or config.split
    return HubOptions(chosen, config.config_name, config.revision, ask=config.name == "hub")


def _sandbox(config: DataConfig, reads: Reads, split: str) -> Iterator[Record | RowError]:
    from core.data import sandbox

    count = config.train_rows if split == "train" else config.validation_rows
    made = sandbox.records(reads, split, config.seed, count, **config.sandbox_options())
    for number, data in enumerate(made, start=1):
        yield Record(f"sandbox[{split}]:{number}", data)


def _prompts(config: DataConfig, tokenizer: Any, examples: Sequence[Example], rows: Sequence[Row]) -> list[Row]:
    """Prompts to answer in evaluation, of the rows that are in use."""
    if not rows or examples[0].kind == "text":
        return []
    used, silent = {row.id for row in rows}, DataReport()
    scratch = SplitReport("prompts")
    kept = adapt([e for e in examples if e.id in used], "prompts", scratch)
    return Tokeniser(_unmasked(config), tokenizer, "prompts", silent).rows(kept, scratch)


def _unmasked(config: DataConfig) -> DataConfig:
    return dataclasses.replace(config, mask="completion")


def _advise(config: DataConfig, report: DataReport) -> None:
    """What a person should know before training on this."""
    changed, rows = report.train.changed, max(1, report.train.rows)
    if changed[NOT_PREFIX]:
        report.note(
            f"The prompt's last token and the response's first one merge in {changed[NOT_PREFIX]:,} responses; they are "
            "split before it. End prompts with no white space, or begin responses with none."
        )
    if changed[GLUED] > rows / 2 and config.template != "chat":
        report.note(
            "Most responses follow their prompt with no white space between, as the data has it. "
            "data.template=chat makes a dialogue of them."
        )
    if cut := changed[CUT_RESPONSE] + changed[CUT_PROMPT]:
        report.note(f"{cut:,} texts were cut to fit data.max_length and data.max_prompt_length.")
