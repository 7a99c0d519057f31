"""The section on policies: what `policies.json` of a run folder says, as sentences, a table, pictures and samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.policies.places import POCKET
from core.report.agreement import counted
from core.report.compared import reference_name
from core.report.forest import WIDTH, Entry, Picture, Point, boxes, forest, mark, plane
from core.report.policy_table import Line, table

_KEYS = (("main", "both orders"), ("base", "shown first"), ("people", "shown second"))


def section(report: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """{"verdict", "modes", "remarks", "basis", "labels", "rows", "pictures", "width"}; None without a report."""
    if report is None:
        return None
    return {
        **{key: report["verdict"][key] for key in ("text", "modes", "remarks")},
        "basis": _basis(report),
        "main": report["policy"],
        "labels": {label: _path(label, numbers) for label, numbers in report["policies"].items()},
        "rows": [_row(line) for line in table(report)],
        "pictures": [picture for picture in (_wins(report), _frontier(report), _lengths(report)) if picture is not None],
        "width": WIDTH,
    }


def _basis(report: Mapping[str, Any]) -> str:
    how = report["generation"]
    limits = f"temperature {how['temperature']:g}, at most {how['max_new_tokens']} tokens"
    limits += f", top-k {how['top_k']}" if how["top_k"] else ""
    limits += f", top-p {how['top_p']:g}" if how["top_p"] != 1 else ""
    answers = f"{counted(report['samples'], 'answer')} of each policy to {counted(report['prompts'], 'prompt')}"
    return (
        f"{answers} of {report['source']}, with the same random numbers ({limits}). "
        f"Intervals are 95 %, from {report['resamples']:,} resamples of the prompts."
    )


def _path(label: str, numbers: Mapping[str, Any]) -> str:
    """What stands under a policy's name: its path, where that says more."""
    path = "the pocket model" if numbers["path"] == POCKET else str(numbers["path"])
    return "" if path == label else path


def _row(line: Line) -> dict[str, Any]:
    """The row for the template: each cell is (value, interval)."""
    cells = [(value, f"[{rest}" if rest else "") for value, _, rest in (cell.partition(" [") for cell in line.cells)]
    return {
        "group": line.group,
        "name": line.name.strip(),
        "part": line.name.startswith(" "),
        "help": line.help,
        "cells": cells,
    }


def _wins(report: Mapping[str, Any]) -> Picture | None:
    rewards = list(dict.fromkeys(win["reward"] for win in report["wins"]))
    rivals = list(dict.fromkeys(win["over"] for win in report["wins"]))
    entries = []
    for win in report["wins"]:
        label = win["reward"] if len(rivals) == 1 else win["over"]
        label = f"{win['reward']}: {win['over']}" if len(rivals) > 1 and len(rewards) > 1 else label
        orders = win["orders"] or {}
        marks = (
            *mark("main", win["rate"]),
            *mark("base", orders.get("shown_first")),
            *mark("people", orders.get("shown_second")),
        )
        if marks:
            entries.append(Entry(label, marks))
    if not entries:
        return None
    over = f" over {reference_name(rivals[0])}" if len(rivals) == 1 else ""
    note = "Ties count half. Right of the line it is the better one."
    return forest(f"Win rate of {report['policy']}{over}", entries, _KEYS, note)


def _frontier(report: Mapping[str, Any]) -> Picture | None:
    """What the first reward has been bought for in KL; None with fewer than two policies that have moved."""
    first = next((name for name, one in report["policies"][report["policy"]]["rewards"].items() if one), None)
    points = []
    for label, numbers in report["policies"].items():
        reward = numbers["rewards"].get(first)
        kl = 0.0 if numbers["role"] == "reference" else (numbers["kl"] or {}).get("answer", {}).get("value")
        if kl is not None and reward and reward["value"] is not None:
            style = {"policy": "main", "against": "people"}.get(numbers["role"], "base")
            points.append(Point(label, style, kl, reward["value"], reward["low"], reward["high"]))
    if sum(point.style != "base" for point in points) < 2:
        return None
    note = "KL from the reference in nats an answer, across; the mean reward, up."
    return plane(f"What {first} has cost", points, ("KL", str(first)), note)


def _lengths(report: Mapping[str, Any]) -> Picture | None:
    names = ("p05", "p25", "p50", "p75", "p95")
    rows = [
        {"label": label, "quantiles": [numbers["length"][q] for q in names], "count": numbers["length"]["pairs"]}
        for label, numbers in report["policies"].items()
    ]
    return boxes("Length of the answers, in tokens", rows, "Dot: median; thick: the middle half; thin: 5 to 95 %.")
