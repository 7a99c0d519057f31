"""The picture of best-of-K curves: over K, of the first collection and the last."""

from __future__ import annotations

import json
import re

from core.report.charts import _LEFT, _RIGHT, WIDTH, best_of_chart, chart_groups

SERIES = {
    "best_of/1": {"train": [(1, 0.4), (17, 0.6), (33, 0.7)]},
    "best_of/2": {"train": [(1, 0.6), (17, 0.7), (33, 0.75)]},
    "best_of/4": {"train": [(1, 0.8), (17, 0.8), (33, 0.78)]},
    "best_of/12": {"train": [(1, 0.9), (17, 0.85), (33, 0.8)]},
    "objective/scores": {"train": [(1, 0.4), (17, 0.6), (33, 0.7)]},
}


def test_the_first_collection_and_the_last():
    (chart,) = best_of_chart(SERIES)
    assert [(line.name, line.points) for line in chart.lines] == [
        ("last collection", [(1, 0.7), (2, 0.75), (4, 0.78), (12, 0.8)]),
        ("first collection", [(1, 0.4), (2, 0.6), (4, 0.8), (12, 0.9)]),
    ]
    assert "first collection from 0.4 to 0.9, up to K = 12" in chart.summary
    data = json.loads(chart.data)
    assert (data["over"], data["doubling"], data["x"]) == ("K", True, [_LEFT, WIDTH - _RIGHT, 1.0, 12.0])


def test_each_doubling_is_equally_wide():
    (chart,) = best_of_chart({name: SERIES[name] for name in ("best_of/1", "best_of/2", "best_of/4")})
    points = re.search(r'<polyline class="line chosen" points="([^"]+)"', chart.svg)
    assert points is not None
    x = [float(pair.split(",")[0]) for pair in points[1].split()]
    assert x == [_LEFT, (_LEFT + WIDTH - _RIGHT) / 2, WIDTH - _RIGHT]
    ticks = re.findall(r'text-anchor="middle">(\d+)</text>', chart.svg)
    assert ticks == ["1", "2", "4"]


def test_one_collection_is_one_line():
    (chart,) = best_of_chart({name: {"train": splits["train"][:1]} for name, splits in SERIES.items()})
    assert [line.points for line in chart.lines] == [[(1, 0.4), (2, 0.6), (4, 0.8), (12, 0.9)]]


def test_no_curve_without_several_k():
    assert best_of_chart({}) == []
    assert best_of_chart({"best_of/1": SERIES["best_of/1"], "loss": {"train": [(1, 1.0)]}}) == []


def test_it_stands_for_the_single_curves():
    groups = dict(chart_groups(SERIES, {}))
    assert [chart.title for chart in groups["Rewards"]] == ["score of the best of K", "objective/scores"]
    assert list(groups) == ["Rewards"]


def test_somebody_elses_metric_is_no_point_of_it():
    """A plugin may log what it likes."""
    series = {**SERIES, "best_of/all": {"train": [(1, 2.0), (17, 3.0)]}, "best_of/0": {"train": [(1, 2.0), (17, 3.0)]}}
    groups = dict(chart_groups(series, {}))
    assert len(best_of_chart(series)[0].lines[0].points) == 4
    assert {chart.title for chart in groups["More"]} == {"best_of/all", "best_of/0"}
