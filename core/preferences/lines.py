"""A report on a reward as lines of text, for a console."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

_WIDTH = 100
_MINUS = "−"


def preference_lines(report: Mapping[str, Any]) -> list[str]:
    """A small table (sources by accuracy, accuracy with length balanced, lead of the main one, tau), then the verdict."""
    head = ["", "agrees", "length-balanced", f"{report['main']} leads by", "tau"]
    rows = [head] + [_row(name, source, report) for name, source in report["sources"].items()]
    # Columns that say nothing for this data (no rankings, no baseline) take no room.
    used = [k for k in range(len(head)) if k == 0 or any(row[k] for row in rows[1:])]
    widths = {k: max(len(row[k]) for row in rows) for k in used}
    table = ["  ".join(row[k].ljust(widths[k]) for k in used).rstrip() for row in rows]
    return [*(table if len(used) > 1 else []), *_wrapped(report["verdict"]["text"])]


def group_lines(report: Mapping[str, Any]) -> list[str]:
    """How far the main source agrees with each group of annotators, and the gap; nothing where rows have no group."""
    found = report["sources"][report["main"]]["group"]
    if not found:
        return []
    lines = [
        f"group {part['label']}: agrees {_percent(part)} ({part['pairs']:,} pair{'' if part['pairs'] == 1 else 's'})"
        for part in found["parts"]
    ]
    gap = found["gap"]
    if gap and gap["value"] is not None:
        luck = "" if gap["chance"] is None else f"; luck alone gives up to {100 * gap['chance']:.1f}"
        lines.append(f"from {gap['best']} to {gap['worst']}: {_points(gap).removeprefix('+')} points{luck}")
    return lines


def _wrapped(text: str) -> list[str]:
    """Lines in which a number and its % stay together."""
    return [line.replace("\u00a0", " ") for line in textwrap.wrap(text.replace(" %", "\u00a0%"), _WIDTH)]


def _row(name: str, source: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    lead = source["difference"]
    return [
        name,
        _percent(source["accuracy"]),
        _percent(source["length_balanced"]),
        _points(lead) if lead else "",
        _plain(source["tau"]) if source["tau"] else "",
    ]


def _percent(estimate: Mapping[str, Any]) -> str:
    return "" if estimate["value"] is None else f"{100 * estimate['value']:.1f} %{_interval(estimate, 100, 1)}"


def _points(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return ""
    return f"{100 * estimate['value']:+.1f}".replace("-", _MINUS) + _interval(estimate, 100, 1)


def _plain(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return ""
    return f"{estimate['value']:.2f}".replace("-", _MINUS) + _interval(estimate, 1, 2)


def _interval(estimate: Mapping[str, Any], factor: float, digits: int) -> str:
    if estimate["low"] is None:
        return ""
    low, high = (f"{factor * estimate[side]:.{digits}f}".replace("-", _MINUS) for side in ("low", "high"))
    return f" [{low}, {high}]"
