"""What an objective reads, made from what the data holds; and the cut into training and validation."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

from core.data.formats import Example
from core.data.report import SplitReport
from core.errors import DataError
from core.objective import Reads

_NEEDS = {
    "prompts": "a column prompt (or messages)",
    "demonstrations": "prompt and completion, messages, conversations, or text",
    "pairs": "chosen and rejected, or responses (best first)",
    "rankings": "responses (best first), or chosen and rejected",
}
_POSSIBLE: dict[str, tuple[str, ...]] = {
    "prompts": ("prompts", "demonstrations", "pairs", "rankings"),
    "demonstrations": ("demonstrations", "text"),
    "pairs": ("pairs", "rankings"),
    "rankings": ("rankings", "pairs"),
}


def check_reads(examples: Sequence[Example], reads: Reads, report: SplitReport) -> None:
    """Can the objective read such rows at all? Needs no tokenizer. Raises DataError naming what was found and needed."""
    first = examples[0]
    if first.kind in _POSSIBLE[reads]:
        return
    found = sorted({*first.columns, *_columns_of(first)})
    hint = "Use another objective (objective=sft, objective=dpo) or other data."
    if reads == "demonstrations" and first.kind in ("pairs", "rankings"):
        hint = "A chosen answer is only the better of two. To imitate it all the same, write it into a column completion."
    message = f"{first.source}: the rows are {first.kind} (format {report.format}; columns: {', '.join(found)}),"
    raise DataError(f"{message} but the objective reads {reads}: it needs {_NEEDS[reads]}.", hint)


def _columns_of(example: Example) -> list[str]:
    prompt = ["text"] if example.kind == "text" else ["prompt"] if example.messages is None else ["messages"]
    names = {"demonstrations": ["completion"], "pairs": ["chosen", "rejected"], "rankings": ["responses"]}
    return prompt + names.get(example.kind, [])


def adapt(examples: Sequence[Example], reads: Reads, report: SplitReport, *, keep_ties: bool = False) -> list[Example]:
    """Rows as the objective reads them; what is left out or made is counted.

    prompts: one row for each distinct prompt, the first. pairs from rankings: the best against each lower one. Rows
    that prefer nothing are left out of pairs and rankings unless `keep_ties`.
    """
    check_reads(examples, reads, report)
    report.kind = reads
    if reads == "prompts":
        return _distinct(examples, report)
    if reads == "demonstrations":
        return list(examples)
    preferred = [e for e in examples if keep_ties or not e.all_tied]
    if len(preferred) < len(examples):
        report.dropped["ties (the objective learns nothing from them)"] = len(examples) - len(preferred)
    if reads == "pairs":
        pairs = [pair for example in preferred for pair in _pairs(example, keep_ties)]
        if len(pairs) > len(preferred):
            report.changed["rankings became pairs: the best against each lower one"] = len(preferred)
        return pairs
    return preferred


def _distinct(examples: Sequence[Example], report: SplitReport) -> list[Example]:
    out: dict[str, Example] = {}
    for example in examples:
        bare = dataclasses.replace(example, responses=(), margins=None, ties=None, kind="prompts")
        out.setdefault(example.prompt_key, bare)
    if len(out) < len(examples):
        report.dropped["rows whose prompt an earlier row has"] = len(examples) - len(out)
    return list(out.values())


def _pairs(example: Example, keep_ties: bool) -> Iterator[Example]:
    if len(example.responses) == 2:
        yield dataclasses.replace(example, kind="pairs")
        return
    for i, lower in enumerate(example.responses[1:], start=1):
        tied = example.ties is not None and all(example.ties[:i])
        if tied and not keep_ties:
            continue
        margins = None if example.margins is None else (sum(example.margins[:i]),)
        yield dataclasses.replace(
            example,
            id=f"{example.id}/{i}",
            responses=(example.responses[0], lower),
            margins=margins,
            ties=(True,) if tied else None,
            kind="pairs",
        )


def split_by_prompt(examples: Sequence[Example], fraction: float) -> tuple[list[Example], list[Example]]:
    """(training, validation): whole prompts go to one side, by a hash that no order and no seed changes.

    Dialogues that begin with the same user's turn count as one prompt, as they are often cut from one conversation.
    """
    train: list[Example] = []
    validation: list[Example] = []
    for example in examples:
        (validation if _point(_start(example)) < fraction else train).append(example)
    return train, validation


def _start(example: Example) -> str:
    if isinstance(example.prompt, str):
        return example.prompt or example.responses[0]
    return next(m["content"] for m in example.prompt if m["role"] == "user")


def _point(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def take(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """At most `limit` rows in their order: a sample by the hash of ids, as files are often grouped by prompt."""
    if limit is None or limit >= len(examples):
        return list(examples)
    chosen = set(sorted(range(len(examples)), key=lambda i: (_point(examples[i].id), i))[:limit])
    return [e for i, e in enumerate(examples) if i in chosen]
