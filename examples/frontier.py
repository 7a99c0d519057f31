"""The frontier of a reward and the KL: many runs on one page, and in one table.

    python examples/frontier.py runs/* --out frontier.html

Each run is a path of its validations: what the judge gave (`--judge gold`) over the KL from the reference. One picture for
each optimised reward, one colour for each objective, or for each `run.group` where runs have one. The page loads nothing;
the table goes to stdout as Markdown.
"""

from __future__ import annotations

import argparse
import html
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from core.report.changes import LENGTH, show
from core.report.charts import nice_ticks
from core.report.facts import duration, read_series
from core.report.kl_section import root_ticks
from core.runfolder import CONFIG, METRICS, RUN, read_json, read_jsonl

FAR = 20.0
"""Nats of KL from which a run counts as one that has lost its reference."""
WIDTH, HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 12, 36
# After Okabe and Ito, for the colour-blind, on light and on dark paper; each has a mark of its own as well.
_COLOURS = ("#0072b2", "#c25400", "#00805d", "#b3568a", "#8a6d00", "#2f8fc4", "#6e6e6e")
_ON_DARK = ("#4da3e0", "#f0843c", "#2fc79b", "#e09ac2", "#e0b840", "#8fd0f5", "#a8a8a8")
_MARKS = ("circle", "square", "triangle", "diamond", "down", "cross", "ring")


@dataclass(frozen=True)
class Trace:
    """One run. `path`: (KL, judge) of its validations in order; `before` and `after`: metrics of the first and the last."""

    name: str
    objective: str
    reward: str
    seed: int
    path: tuple[tuple[float, float], ...]
    before: Mapping[str, float]
    after: Mapping[str, float]
    seconds: float
    status: str
    judge: str = "gold"

    @property
    def failures(self) -> list[str]:
        """What went wrong: "gold below its start", "KL above 20", "empty answers", "all answers cut", "not finished"."""
        judge = f"rewards/{self.judge}/mean"
        found = {
            f"{self.judge} below its start": self.after[judge] < self.before[judge],
            f"KL above {FAR:g}": self.after["objective/kl"] > FAR,
            "empty answers": self.after.get(LENGTH, math.inf) < 2,  # of the stop token alone, in the mean
            "all answers cut": self.after.get("completions/clipped_ratio", 0.0) > 0.99,
            "not finished": self.status != "finished",
        }
        return [what for what, happened in found.items() if happened]


def read_trace(folder: Path, judge: str) -> Trace | str:
    """A run folder's trace, or why it has none."""
    if not (folder / RUN).is_file():
        return "no run folder"
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")) or {}
    series = read_series(list(read_jsonl(folder / METRICS)))
    points = {name: dict(splits.get("validation", ())) for name, splits in series.items()}
    kl, scores = points.get("objective/kl", {}), points.get(f"rewards/{judge}/mean", {})
    steps = sorted(kl.keys() & scores.keys())
    if len(steps) < 2:
        return f"{len(steps)} validations with KL and {judge}; two are needed"
    before, after = ({name: values[s] for name, values in points.items() if s in values} for s in (steps[0], steps[-1]))
    run = read_json(folder / RUN)
    return Trace(
        folder.name,
        str((config.get("run") or {}).get("group") or method(config["objective"])),
        str(config["reward"]["name"]),
        int(config["seed"]),
        tuple((kl[step], scores[step]) for step in steps),
        before,
        after,
        float(run.get("seconds") or 0.0),
        str(run.get("status")),
        judge,
    )


def method(objective: Mapping[str, Any]) -> str:
    """What the objective is called here: ppo without clipping and value network is REINFORCE."""
    plain = objective.get("clip_range", 0.0) is None and objective.get("value") is False
    return "reinforce" if objective["name"] == "ppo" and plain else str(objective["name"])


def groups(traces: Sequence[Trace]) -> dict[tuple[str, str], list[Trace]]:
    """(reward, objective) -> its runs by seed, in order of the names."""
    found: dict[tuple[str, str], list[Trace]] = {}
    for trace in sorted(traces, key=lambda t: (t.reward, t.objective, t.seed, t.name)):
        found.setdefault((trace.reward, trace.objective), []).append(trace)
    return found


HEAD = (
    *("reward", "objective", "runs", "{judge}", "best on the way", "reward's own", "KL, nats", "length, tokens"),
    *("time", "failures"),
)


def table(traces: Sequence[Trace], judge: str) -> list[tuple[str, ...]]:
    """The head and a row for each reward and objective: means over runs, ± their standard deviation."""
    rows = [tuple(name.format(judge=judge) for name in HEAD)]
    for (reward, objective), runs in groups(traces).items():
        rows.append(
            (
                reward,
                objective,
                str(len(runs)),
                change(runs, f"rewards/{judge}/mean"),
                spread([max(score for _, score in run.path) for run in runs]),
                change(runs, f"rewards/{reward}/mean"),
                spread([run.after["objective/kl"] for run in runs]),
                change(runs, LENGTH),
                duration(statistics.median(run.seconds for run in runs)),
                failures(runs),
            )
        )
    return rows


def change(runs: Sequence[Trace], name: str) -> str:
    """ "0.44 → 0.59 ± 0.02": the mean before, and mean and spread after; "–" where it was not measured."""
    both = [(run.before[name], run.after[name]) for run in runs if name in run.before and name in run.after]
    if not both:
        return "–"
    return f"{show(statistics.fmean(b for b, _ in both))} → {spread([after for _, after in both])}"


def spread(values: Sequence[float]) -> str:
    """ "0.59 ± 0.02": the mean, and the standard deviation over two values or more."""
    mean = show(statistics.fmean(values))
    return f"{mean} ± {show(statistics.stdev(values), 2)}" if len(values) > 1 else mean


def failures(runs: Sequence[Trace]) -> str:
    """ "2 of 5: gold below its start 2, KL above 20 1"; "0 of 5"."""
    failed = [run.failures for run in runs if run.failures]
    kinds = list(dict.fromkeys(kind for found in failed for kind in found))
    told = ", ".join(f"{kind} {sum(kind in found for found in failed)}" for kind in kinds)
    return f"{len(failed)} of {len(runs)}" + (f": {told}" if told else "")


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


# -- the page -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """One scale for all pictures, so that they can be compared: the KL by its square root, the judge as it is."""

    kl: float
    low: float
    high: float

    @classmethod
    def around(cls, traces: Sequence[Trace]) -> Frame:
        points = [point for trace in traces for point in trace.path]
        low, high = min(score for _, score in points), max(score for _, score in points)
        air = 0.05 * (high - low) or 0.1
        return cls(max(max(kl for kl, _ in points), 1e-6), low - air, high + air)

    def at(self, kl: float, score: float) -> tuple[float, float]:
        share = math.sqrt(max(kl, 0.0) / self.kl)
        x = _LEFT + share * (WIDTH - _LEFT - _RIGHT)
        y = HEIGHT - _BOTTOM - (score - self.low) / (self.high - self.low) * (HEIGHT - _TOP - _BOTTOM)
        return round(x, 1), round(y, 1)


def page(traces: Sequence[Trace], judge: str) -> str:
    """One HTML page that loads nothing."""
    styles = {name: i % len(_COLOURS) for i, name in enumerate(sorted({t.objective for t in traces}))}
    frame = Frame.around(traces)
    key = "".join(
        f'<li><svg viewBox="-6 -6 12 12" aria-hidden="true">{mark(i, 0, 0)}</svg>{html.escape(name)}</li>'
        for name, i in styles.items()
    )
    figures = "".join(
        f"<figure><figcaption>reward {html.escape(reward)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(told(runs, judge))}">'
        f"{''.join(picture(frame, runs, styles, judge))}</svg></figure>"
        for reward, runs in by_reward(traces).items()
    )
    head, *rows = table(traces, judge)
    cells = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    columns = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    return _PAGE.format(
        css=_CSS,
        colours=f"{_classes(_COLOURS)} @media (prefers-color-scheme: dark) {{ {_classes(_ON_DARK)} }}",
        runs=f"{len(traces)} run{'s' if len(traces) > 1 else ''}",
        judge=html.escape(judge),
        key=key,
        figures=figures,
        head=columns,
        rows=cells,
        far=f"{FAR:g}",
    )


def _classes(colours: Sequence[str]) -> str:
    return " ".join(f".c{i} {{ --c: {colour}; }}" for i, colour in enumerate(colours))


def by_reward(traces: Sequence[Trace]) -> dict[str, list[Trace]]:
    found: dict[str, list[Trace]] = {}
    for trace in sorted(traces, key=lambda t: (t.reward, t.objective, t.seed)):
        found.setdefault(trace.reward, []).append(trace)
    return found


def told(runs: Sequence[Trace], judge: str) -> str:
    """A picture in words."""
    ends = (f"{t.objective} seed {t.seed} to {judge} {show(t.path[-1][1])} at KL {show(t.path[-1][0])}" for t in runs)
    return f"{judge} over KL: {'; '.join(ends)}"


def picture(frame: Frame, runs: Sequence[Trace], styles: Mapping[str, int], judge: str) -> Iterator[str]:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    for value in nice_ticks(frame.low, frame.high, 5):
        y = frame.at(0, value)[1]
        yield f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 3.5}" text-anchor="end">{show(value)}</text>'
    for kl in root_ticks(frame.kl):
        yield f'<text x="{frame.at(kl, 0)[0]}" y="{bottom + 15}" text-anchor="middle">{show(kl)}</text>'
    yield f'<text x="{(_LEFT + right) / 2}" y="{HEIGHT - 4}" text-anchor="middle">KL from the reference, nats</text>'
    for trace in runs:
        places = [frame.at(kl, score) for kl, score in trace.path]
        points = " ".join(f"{x},{y}" for x, y in places)
        style = styles[trace.objective]
        words = html.escape(f"{trace.name}: {judge} {show(trace.path[-1][1])} at KL {show(trace.path[-1][0])}")
        yield f'<g class="c{style}"><title>{words}</title><polyline points="{points}"/>{mark(style, *places[-1])}</g>'


def mark(style: int, x: float, y: float) -> str:
    """The mark of an objective, about 8 wide, at (x, y)."""
    shapes = {
        "circle": f'<circle cx="{x}" cy="{y}" r="4"/>',
        "ring": f'<circle class="open" cx="{x}" cy="{y}" r="4"/>',
        "square": _polygon(x, y, (-3.6, -3.6), (3.6, -3.6), (3.6, 3.6), (-3.6, 3.6)),
        "triangle": _polygon(x, y, (0, -4.6), (4.4, 3.4), (-4.4, 3.4)),
        "down": _polygon(x, y, (0, 4.6), (4.4, -3.4), (-4.4, -3.4)),
        "diamond": _polygon(x, y, (0, -5), (5, 0), (0, 5), (-5, 0)),
        "cross": f'<path d="M{x - 4},{y - 4}L{x + 4},{y + 4}M{x - 4},{y + 4}L{x + 4},{y - 4}"/>',
    }
    return f'<g class="c{style} mark">{shapes[_MARKS[style]]}</g>'


def _polygon(x: float, y: float, *corners: tuple[float, float]) -> str:
    return f'<polygon points="{" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)}"/>'


_CSS = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --card: #fff; --ink: #1d2125; --quiet: #5d6670; --rule: #e3e0d9;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181b; --card: #1c2024; --ink: #e8e6e1; --quiet: #a0a8b0; --rule: #30363c; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 48px 24px; }
h1 { font: 400 2rem/1.2 Palatino, Georgia, serif; margin: 0 0 8px; }
p { color: var(--quiet); max-width: 46rem; margin: 0 0 16px; }
ul { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 20px; padding: 0; margin: 0 0 16px; }
li svg { width: 14px; height: 14px; margin-right: 6px; vertical-align: -2px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); gap: 12px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { font-weight: 600; font-size: .9rem; }
text { font-size: 11px; fill: var(--quiet); }
.grid { stroke: var(--rule); }
polyline { fill: none; stroke: var(--c); stroke-width: 1.6; opacity: .55; stroke-linejoin: round; }
g:hover > polyline { opacity: 1; stroke-width: 3; }
.mark circle, .mark polygon { fill: var(--c); stroke: var(--card); stroke-width: .8; }
.mark path { stroke: var(--c); stroke-width: 2.4; }
.mark .open { fill: none; stroke: var(--c); stroke-width: 2; }
.scroll { overflow-x: auto; margin: 32px 0 16px; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 400; color: var(--quiet); }
th, td { padding: 5px 14px 5px 0; vertical-align: top; border-bottom: 1px solid var(--rule); white-space: nowrap; }
td:last-child { white-space: normal; min-width: 9rem; padding-right: 0; }
@media (max-width: 720px) { main { padding: 24px 16px; } h1 { font-size: 1.5rem; } }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Reward and KL: {runs}</title><style>{css}{colours}</style></head><body><main>
<h1>The frontier of {judge} and KL</h1>
<p>{runs}. Each line is a run: what {judge} gave its answers over the KL from the reference, from validation to validation,
with a mark at its end. Further up is better, further left is nearer to the reference. The KL axis is a square root, and all
pictures have the same axes.</p>
<ul>{key}</ul>
<div class="pictures">{figures}</div>
<div class="scroll" role="region" tabindex="0" aria-label="All runs, in numbers">
<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>
<p>Means over the runs, ± their standard deviation; time is the median. A run has failed where {judge} ends below its start,
the KL above {far}, its answers are empty or all cut, or it did not finish.</p>
</main></body></html>
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--judge", default="gold", help="the reward that all runs have measured (eval.rewards)")
    parser.add_argument("--out", type=Path, default=Path("frontier.html"))
    given = parser.parse_args(arguments)
    traces = []
    for folder in given.runs:
        trace = read_trace(folder, given.judge)
        if isinstance(trace, Trace):
            traces.append(trace)
        else:
            print(f"left out: {folder}: {trace}", file=sys.stderr)
    if not traces:
        print(f"None of the {len(given.runs)} folders has a KL and {given.judge} in two validations.", file=sys.stderr)
        return 2
    given.out.write_text(page(traces, given.judge), encoding="utf-8")
    print(markdown(table(traces, given.judge)))
    print(f"\n{given.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
